"""Deliveries that wait, and the forms in which they go."""

import hashlib
import hmac
import json
import threading
from base64 import b64encode

from .providers import stripe_event
from .receiver import Reply
from .stage import Stage, to_tenant
from .tenants import quick_retries
from .waiting import eventually


def test_a_paused_subscription_holds_its_deliveries_and_drains_them_when_resumed(stage: Stage) -> None:
    tenant, endpoint, witness = stage.tenant(), stage.endpoint(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    tenant.subscribe(witness, "*")
    stripe = stage.stripe(to_tenant(tenant))
    assert tenant.api.change(subscription.path, {"state": "paused"})["state"] == "paused"
    stage.wait_until_in_force()

    sent = [stripe.send().event_id for _ in range(5)]

    witness.expect(5)
    for event_id in sent:
        assert tenant.delivery(subscription, event_id, "held")["held_reason"] == "paused"
    assert endpoint.arrivals == []
    tenant.api.change(subscription.path, {"state": "active"})
    arrivals = endpoint.expect(5)
    assert sorted(arrival.event_id for arrival in arrivals) == sorted(sent)
    for event_id in sent:
        assert tenant.delivery(subscription, event_id, "delivered")["attempts_made"] == 1


def test_a_pause_holds_retries_as_well(stage: Stage) -> None:
    tenant, endpoint, witness = stage.tenant(), stage.endpoint(503), stage.endpoint(503)
    subscription = tenant.subscribe(endpoint, "*", retry_policy={"kind": "schedule", "delays_seconds": [1]})
    tenant.subscribe(witness, "*", retry_policy={"kind": "schedule", "delays_seconds": [4]})
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()
    endpoint.expect(1)

    tenant.api.change(subscription.path, {"state": "paused"})

    # Whoever is not paused has got its retry by now, although that was due later.
    witness.expect(2)
    assert len(endpoint.arrivals) == 1
    assert tenant.delivery(subscription, receipt.event_id, "held")["attempts_made"] == 1
    tenant.api.change(subscription.path, {"state": "active"})
    endpoint.expect(2)
    tenant.delivery(subscription, receipt.event_id, "delivered")


def test_deleting_a_subscription_cancels_what_waits_for_it(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(503)
    subscription = tenant.subscribe(endpoint, "*", retry_policy={"kind": "schedule", "delays_seconds": [2]})
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()
    tenant.delivery(subscription, receipt.event_id, "held")

    tenant.api.delete(subscription.path)

    tenant.api.refused(404, "not-found", "GET", subscription.path)
    delivery = tenant.delivery(subscription, receipt.event_id, "cancelled")
    assert (delivery["due_at"], delivery["held_reason"]) == (None, None)
    tenant.api.refused(409, "conflict", "POST", f"/v1/deliveries/{delivery['id']}/retry", json={})
    assert len(endpoint.arrivals) == 1


def test_a_rate_limit_holds_over_a_burst(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*", rate_limit={"per_second": 5})
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    for _ in range(20):
        stripe.send()

    times = sorted(arrival.at for arrival in endpoint.expect(20, within=20))
    # The bucket holds a second's worth, so of any span of w seconds it gives at most 5 + 5 w.
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= 5 + 5 * (times[last] - begin) + 1, "faster than the limit"
    assert times[-1] - times[0] <= 20 / 5 + 3, "slower than the limit"
    eventually(
        lambda: len(tenant.deliveries(subscription, state="delivered")) == 20, within=10, what="all are recorded"
    )


def test_raw_deliveries_are_the_providers_bytes_and_content_type(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*", payload_format="raw")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    body = '{ "id":"evt_raw",\r\n\t"type" : "invoice.paid" , "é": "\\u00e9", "n": 1.0e2, "n": 1 }\n'
    headers = stripe.headers(body) | {"content-type": "application/vnd.acme+json; charset=UTF-8; v=2"}

    assert stripe.post(body.encode(), headers).status_code == 200

    (arrival,) = endpoint.expect(1)
    assert arrival.body == body.encode()
    assert arrival.headers["content-type"] == "application/vnd.acme+json; charset=UTF-8; v=2"
    arrival.verified(subscription.secret)


def test_the_event_format_names_the_type_event(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*", payload_format="event")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    event = stripe_event("invoice.paid")

    stripe.send_event(event)

    body = endpoint.expect(1)[0].verified(subscription.secret)
    assert list(body) == ["event", "timestamp", "data"]
    assert (body["event"], body["data"]) == ("invoice.paid", event)


def test_a_plain_hmac_is_over_the_exact_bytes_and_keyed_with_the_secret_as_shown(stage: Stage) -> None:
    tenant, in_hex, in_base64 = stage.tenant(), stage.endpoint(), stage.endpoint()
    scheme = {"scheme": "hmac_sha256", "header": "X-SecureBase-Signature"}
    of_hex = tenant.subscribe(in_hex, "*", signatures=[scheme | {"encoding": "hex", "prefix": ""}])
    of_base64 = tenant.subscribe(
        in_base64, "*", signatures=[{"scheme": "standard"}, scheme | {"encoding": "base64", "prefix": "sha256="}]
    )
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    stripe.send()

    (arrival,) = in_hex.expect(1)
    assert of_hex.secret.startswith("whsec_")
    expected = hmac.new(of_hex.secret.encode(), arrival.body, hashlib.sha256)
    assert arrival.headers["x-securebase-signature"] == expected.hexdigest()
    assert "webhook-signature" not in arrival.headers
    (arrival,) = in_base64.expect(1)
    expected = hmac.new(of_base64.secret.encode(), arrival.body, hashlib.sha256)
    assert arrival.headers["x-securebase-signature"] == f"sha256={b64encode(expected.digest()).decode()}"
    arrival.verified(of_base64.secret)


def test_a_secret_of_the_tenants_own_signs(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    secret = f"whsec_{b64encode(bytes(range(32))).decode()}"
    subscription = tenant.subscribe(endpoint, "*", secret=secret)
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    stripe.send()

    assert subscription.secret == secret
    endpoint.expect(1)[0].verified(secret)


def test_a_slow_endpoint_does_not_keep_its_neighbours_waiting(stage: Stage) -> None:
    tenant, quick = stage.tenant(), stage.endpoint()
    released = threading.Event()
    slow = stage.endpoint(then=Reply(200, after=released))
    tenant.subscribe(slow, "*", max_in_flight=2, timeout_seconds=20, retry_policy=quick_retries(3))
    tenant.subscribe(quick, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    sent = [stripe.send().event_id for _ in range(30)]

    quick.expect(30)
    assert len(slow.arrivals) <= 2, "no more at the same time than the subscription allows"
    released.set()
    slow.expect(30, within=30)
    assert slow.counted().keys() == set(sent)


def test_a_change_of_url_holds_for_what_waits(stage: Stage) -> None:
    tenant, old, new = stage.tenant(), stage.endpoint(then=503), stage.endpoint()
    subscription = tenant.subscribe(old, "*", retry_policy={"kind": "schedule", "delays_seconds": [2]})
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()
    tenant.delivery(subscription, receipt.event_id, "held")

    tenant.api.change(subscription.path, {"url": new.url})

    new.expect(1, event_id=receipt.event_id)
    assert len(old.arrivals) == 1
    assert json.loads(new.arrivals[0].body)["type"] == "invoice.paid"
