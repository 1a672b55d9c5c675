"""Providers send again; tenants hear of it once."""

from concurrent.futures import ThreadPoolExecutor

from .providers import stripe_event
from .stage import Stage, to_everyone, to_tenant


def test_the_same_event_fifty_times_at_once_is_delivered_once(stage: Stage) -> None:
    acme, globex = stage.tenant(), stage.tenant()
    endpoints = stage.endpoint(), stage.endpoint()
    for tenant, endpoint in zip((acme, globex), endpoints, strict=True):
        tenant.subscribe(endpoint, "invoice.*")
    stripe = stage.stripe(to_everyone())
    stage.wait_until_in_force()
    event = stripe_event()

    with ThreadPoolExecutor(max_workers=50) as pool:
        receipts = list(pool.map(lambda _: stripe.send_event(event), range(50)))

    (event_id,) = {receipt.event_id for receipt in receipts}
    assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * 49
    for endpoint in endpoints:
        endpoint.expect(1, event_id=event_id)
    assert stage.operator.get(f"/v1/events/{event_id}")["duplicates"] == 49
    # An event that came later has arrived, so what was on the way before it has arrived as well.
    marker = stripe.send()
    for endpoint in endpoints:
        endpoint.expect(1, event_id=marker.event_id)
        assert endpoint.counted()[event_id] == 1
    ours = {acme.id, globex.id}
    assert sorted(d["tenant_id"] for d in stage.deliveries(event_id) if d["tenant_id"] in ours) == sorted(ours)


def test_an_id_is_known_to_its_source_only(stage: Stage) -> None:
    tenant = stage.tenant()
    one, other = stage.stripe(to_tenant(tenant)), stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    event = stripe_event()

    first, second = one.send_event(event), other.send_event(event)

    assert (first.duplicate, second.duplicate) == (False, False)
    assert first.event_id != second.event_id


def test_a_repeat_with_another_body_is_still_the_same_event(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    event = stripe_event()

    first = stripe.send_event(event)
    again = stripe.send_event(event | {"pending_webhooks": 0})

    assert (again.event_id, again.duplicate) == (first.event_id, True)
    assert stage.operator.get(f"/v1/events/{first.event_id}")["payload"] == event
