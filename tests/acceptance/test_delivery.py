"""An event's way from a provider to the tenants that asked for it."""

import json
import os
import statistics
import time
from collections.abc import Callable

import pytest

from .providers import stripe_event
from .stage import Stage, to_account, to_everyone, to_tenant

EVENTS = int(os.environ.get("POSTHORN_ACCEPTANCE_EVENTS", "200"))


def test_a_stripe_event_reaches_every_tenant_that_asked_for_it_and_nobody_else(stage: Stage) -> None:
    acme, globex, initech = stage.tenant(), stage.tenant(), stage.tenant()
    at_acme, at_globex, at_initech = stage.endpoint(), stage.endpoint(), stage.endpoint()
    of_acme = acme.subscribe(at_acme, "invoice.*")
    of_globex = globex.subscribe(at_globex, "invoice.paid", "customer.created")
    of_initech = initech.subscribe(at_initech, "customer.*")
    stripe = stage.stripe(to_everyone())
    stage.wait_until_in_force()

    sent = stripe_event("invoice.paid")
    receipt = stripe.send_event(sent)

    assert not receipt.duplicate
    for endpoint, subscription in ((at_acme, of_acme), (at_globex, of_globex)):
        (arrival,) = endpoint.expect(1)
        assert arrival.event_id == receipt.event_id
        body = arrival.verified(subscription.secret)
        assert body["type"] == "invoice.paid"
        assert body["data"] == sent
    delivered = {acme.id: of_acme, globex.id: of_globex}
    assert {(d["tenant_id"], d["subscription_id"]) for d in stage.deliveries(receipt.event_id)} >= {
        (tenant, subscription.id) for tenant, subscription in delivered.items()
    }
    assert initech.deliveries(of_initech) == []
    assert at_initech.arrivals == []


def test_an_event_of_a_connected_account_reaches_the_tenant_of_that_account_only(stage: Stage) -> None:
    acme, globex = stage.tenant(), stage.tenant()
    at_acme, at_globex = stage.endpoint(), stage.endpoint()
    of_acme, of_globex = acme.subscribe(at_acme, "*"), globex.subscribe(at_globex, "*")
    stripe = stage.stripe(to_account())
    stage.wait_until_in_force()

    receipt = stripe.send("payout.paid", account=acme.external_id)

    (arrival,) = at_acme.expect(1)
    assert arrival.verified(of_acme.secret)["data"]["account"] == acme.external_id
    assert globex.deliveries(of_globex) == []
    event = acme.api.get(f"/v1/events/{receipt.event_id}")
    assert (event["tenant_id"], event["routed"]) == (acme.id, "tenant")


def test_an_idle_platform_delivers_in_well_under_two_seconds(stage: Stage, report: Callable[[str], None]) -> None:
    acme, globex = stage.tenant(), stage.tenant()
    endpoints = stage.endpoint(), stage.endpoint()
    secrets = [tenant.subscribe(to, "invoice.*").secret for tenant, to in zip((acme, globex), endpoints, strict=True)]
    stripe = stage.stripe(to_everyone())
    stage.wait_until_in_force()

    answered, arrived = [], []
    for _ in range(EVENTS):
        began = time.monotonic()
        receipt = stripe.send("invoice.paid")
        answered.append(time.monotonic() - began)
        arrivals = [endpoint.expect(1, event_id=receipt.event_id)[0] for endpoint in endpoints]
        for arrival, secret in zip(arrivals, secrets, strict=True):
            arrival.verified(secret)
        arrived.append(max(arrival.at for arrival in arrivals) - began)

    report(
        f"{EVENTS} events one at a time, from the request to its answer: {_percentiles(answered)}; "
        f"to the arrival at both tenants: {_percentiles(arrived)}"
    )
    assert _percentile(arrived, 99) < 2.0


def test_a_body_arrives_as_the_provider_wrote_it(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    # Numbers that a detour through floating point would change, and text beyond ASCII.
    data = '{"big": 12345678901234567890, "exact": 1.10, "small": 1e-7, "name": "Zoë \\u2603"}'
    body = f'{{"id": "evt_numbers", "object": "event", "type": "invoice.paid", "created": 1700000000, "data": {data}}}'

    receipt = stripe.post(body.encode(), stripe.headers(body)).json()

    (arrival,) = endpoint.expect(1)
    delivered = arrival.verified(subscription.secret)
    assert delivered["timestamp"].startswith("2023-11-14T22:13:20"), "the event's own time"
    assert delivered["data"] == json.loads(body)
    assert body.encode() in arrival.body, "not a byte of the data was rewritten"
    event = tenant.api.get(f"/v1/events/{receipt['event_id']}")
    assert event["payload"] == json.loads(body)
    assert event["occurred_at"] == "2023-11-14T22:13:20.000Z"
    assert event["headers"]["content-type"] == "application/json; charset=utf-8"


def test_every_delivery_carries_the_headers_that_receivers_rely_on(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*", headers={"X-Team": "billing"})
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    (arrival,) = endpoint.expect(1)
    assert arrival.method == "POST"
    assert arrival.headers["webhook-id"] == receipt.event_id
    assert abs(int(arrival.headers["webhook-timestamp"]) - time.time()) < 30
    assert arrival.headers["user-agent"].startswith("Posthorn/")
    assert arrival.headers["content-type"].startswith("application/json")
    assert arrival.headers["x-team"] == "billing"
    version, trace, span, _flags = arrival.headers["traceparent"].split("-")
    assert (version, len(trace), len(span)) == ("00", 32, 16)
    attempt = tenant.delivery(subscription, receipt.event_id, "delivered")["attempts"][0]
    sent = {name: value for name, value in attempt["request_headers"].items() if name.startswith("webhook-")}
    assert sent == {name: value for name, value in arrival.headers.items() if name.startswith("webhook-")}


@pytest.mark.parametrize("size", [100, 50_000, 900_000])
def test_bodies_of_any_size_arrive_whole(stage: Stage, size: int) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    sent = stripe_event(data={"object": {"filler": "x" * size}})
    stripe.send_event(sent)

    (arrival,) = endpoint.expect(1)
    assert arrival.verified(subscription.secret)["data"] == sent


def test_an_event_that_forty_subscriptions_want_reaches_each_once(stage: Stage) -> None:
    tenant = stage.tenant()
    endpoints = [stage.endpoint() for _ in range(40)]
    subscriptions = [tenant.subscribe(endpoint, "invoice.*") for endpoint in endpoints]
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send("invoice.paid")

    for endpoint, subscription in zip(endpoints, subscriptions, strict=True):
        (arrival,) = endpoint.expect(1)
        arrival.verified(subscription.secret)
    assert len(stage.deliveries(receipt.event_id)) == 40


def test_a_pattern_matches_any_depth_below_it_and_nothing_beside_it(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "customer.*", "invoice.paid")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    unwanted = ["customer", "customers.created", "invoice.paid.late", "invoice"]
    wanted = ["customer.created", "customer.subscription.deleted", "invoice.paid"]
    for event_type in unwanted + wanted:
        stripe.send(event_type)

    types = sorted(json.loads(arrival.body)["type"] for arrival in endpoint.expect(3))
    assert types == sorted(wanted)
    assert len(list(tenant.api.every("/v1/deliveries"))) == 3


def test_a_subscription_sees_only_the_sources_it_names(stage: Stage) -> None:
    tenant, by_slug, by_id = stage.tenant(), stage.endpoint(), stage.endpoint()
    named, other = stage.stripe(to_tenant(tenant)), stage.stripe(to_tenant(tenant))
    tenant.subscribe(by_slug, "*", sources=[named.address])
    tenant.subscribe(by_id, "*", sources=[named.id])
    stage.wait_until_in_force()

    other.send()
    receipt = named.send()

    for endpoint in (by_slug, by_id):
        (arrival,) = endpoint.expect(1)
        assert arrival.event_id == receipt.event_id
    assert len(list(tenant.api.every("/v1/deliveries"))) == 2
    (event,) = tenant.api.every("/v1/events", source=named.address)
    assert event["id"] == receipt.event_id


def test_a_thin_event_is_taken_as_well(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "v1.billing.*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send_event(
        {
            "id": "evt_test_65RCjM",
            "object": "v2.core.event",
            "type": "v1.billing.meter.error_report_triggered",
            "created": "2026-02-03T04:05:06.789Z",
            "livemode": False,
            "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
        }
    )

    endpoint.expect(1, event_id=receipt.event_id)
    event = tenant.api.get(f"/v1/events/{receipt.event_id}")
    assert event["event_type"] == "v1.billing.meter.error_report_triggered"
    assert event["occurred_at"] == "2026-02-03T04:05:06.789Z"


def test_a_change_is_in_force_within_a_second(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    tenant.subscribe(endpoint, "*")
    began = time.monotonic()
    while not endpoint.arrivals:
        stripe.send()
        assert time.monotonic() - began < 1.5, "a second to be in force, and a little to arrive"


def _percentiles(seconds: list[float]) -> str:
    return f"p50 {_percentile(seconds, 50) * 1000:.0f} ms, p99 {_percentile(seconds, 99) * 1000:.0f} ms"


def _percentile(seconds: list[float], percent: int) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]
