"""What follows an attempt that fails."""

import json
import threading
from itertools import pairwise

import pytest

from .client import Json
from .receiver import Reply
from .stage import Stage, to_tenant
from .tenants import Tenant, quick_retries
from .waiting import eventually

# A sleeping system starts an attempt at most a second after its plan; jitter and the way come on top.
LATE_SECONDS = 2.5


def told(delivery: Json) -> list[tuple[int, int, str, int | None]]:
    """Generation, number, trigger and status of each attempt."""
    return [(a["generation"], a["number"], a["trigger"], a["status_code"]) for a in delivery["attempts"]]


def test_a_refused_delivery_is_retried_until_the_endpoint_accepts_it(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(Reply(503, body=b"down for maintenance"), 503, then=200)
    policy = {"kind": "exponential", "base_seconds": 0.5, "factor": 2, "max_delay_seconds": 10, "max_attempts": 5}
    subscription = tenant.subscribe(endpoint, "invoice.*", retry_policy=policy)
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send("invoice.paid")

    arrivals = endpoint.expect(3)
    delivery = tenant.delivery(subscription, receipt.event_id, "delivered")
    assert told(delivery) == [(1, 1, "dispatch", 503), (1, 2, "retry", 503), (1, 3, "retry", 200)]
    assert delivery["attempts_made"] == 3
    first, _, last = delivery["attempts"]
    assert (first["response"], first["error"].split(":")[0]) == ("down for maintenance", "status")
    assert last["error"] is None
    for arrival in arrivals:
        arrival.verified(subscription.secret)
    assert {arrival.event_id for arrival in arrivals} == {receipt.event_id}
    assert len({arrival.body for arrival in arrivals}) == 1
    assert len({arrival.headers["webhook-signature"] for arrival in arrivals[::2]}) == 2, "signed anew"
    stamps = [int(arrival.headers["webhook-timestamp"]) for arrival in arrivals]
    assert stamps == sorted(stamps) and stamps[0] < stamps[-1]
    for (earlier, later), planned in zip(pairwise(arrivals), (0.5, 1.0), strict=True):
        assert planned * 0.8 <= later.at - earlier.at <= planned * 1.2 + LATE_SECONDS
    assert tenant.dead_letters(subscription) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422, 429, 500, 502, 504])
def test_whatever_is_not_accepted_is_tried_again(stage: Stage, status: int) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(status, then=204)
    subscription = tenant.subscribe(endpoint, "*", retry_policy=quick_retries(2))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    delivery = tenant.delivery(subscription, receipt.event_id, "delivered")
    assert told(delivery) == [(1, 1, "dispatch", status), (1, 2, "retry", 204)]


def test_a_delivery_whose_schedule_is_used_up_becomes_a_dead_letter_and_can_be_replayed(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(then=503)
    subscription = tenant.subscribe(endpoint, "*", retry_policy=quick_retries(2))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()
    letter = tenant.dead_letter(subscription)
    delivery = tenant.delivery(subscription, receipt.event_id, "dead")
    assert told(delivery) == [(1, 1, "dispatch", 503), (1, 2, "retry", 503)]
    assert letter["reason"] == "exhausted"
    assert (letter["delivery_id"], letter["event_id"]) == (delivery["id"], receipt.event_id)
    assert "503" in letter["error"]
    assert tenant.api.get(f"/v1/dead-letters/{letter['id']}") == letter

    endpoint.answer_from_now_on(Reply(200))
    going = tenant.api.order(f"/v1/dead-letters/{letter['id']}/replay")

    assert going["id"] == delivery["id"]
    replayed = tenant.delivery(subscription, receipt.event_id, "delivered")
    assert told(replayed) == [(1, 1, "dispatch", 503), (1, 2, "retry", 503), (2, 1, "replay", 200)]
    assert endpoint.expect(3)[-1].event_id == receipt.event_id
    endpoint.arrivals[-1].verified(subscription.secret)
    assert tenant.dead_letters(subscription) == []
    tenant.api.refused(404, "not-found", "POST", f"/v1/dead-letters/{letter['id']}/replay", json={})


def test_dead_letters_are_listed_shown_and_replayed_from_the_command_line(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(then=500)
    subscription = tenant.subscribe(endpoint, "*", retry_policy=quick_retries(1))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()
    letter = tenant.dead_letter(subscription)

    listed = stage.world.posthorn("dlq", "list", "--tenant", tenant.id)
    as_json = stage.world.posthorn("dlq", "list", "--subscription", subscription.id, "--json")
    shown = stage.world.posthorn("dlq", "show", letter["id"])
    endpoint.answer_from_now_on(Reply(200))
    replayed = stage.world.posthorn("dlq", "replay", letter["id"])

    for done in (listed, as_json, shown, replayed):
        assert done.returncode == 0, done.stderr
    assert letter["id"] in listed.stdout and "exhausted" in listed.stdout
    assert json.loads(as_json.stdout) == letter
    assert len(json.loads(shown.stdout)["delivery"]["attempts"]) == 1
    delivery = tenant.delivery(subscription, receipt.event_id, "delivered")
    assert told(delivery) == [(1, 1, "dispatch", 500), (2, 1, "replay", 200)]
    again = stage.world.posthorn("dlq", "replay", letter["id"])
    assert again.returncode != 0 and "404" in again.stderr


def test_an_endpoint_that_is_gone_is_disabled(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(410)
    subscription = tenant.subscribe(endpoint, "*", retry_policy=quick_retries(5))
    witness = stage.endpoint()
    tenant.subscribe(witness, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    letter = tenant.dead_letter(subscription)
    assert letter["reason"] == "gone"
    assert told(tenant.delivery(subscription, receipt.event_id, "dead")) == [(1, 1, "dispatch", 410)]
    disabled = tenant.api.get(subscription.path)
    assert (disabled["state"], disabled["disabled_reason"]) == ("disabled", "gone")
    stage.wait_until_in_force()
    missed = stripe.send()
    witness.expect(1, event_id=missed.event_id)
    assert tenant.deliveries(subscription, event_id=missed.event_id) == []

    revived = tenant.api.change(subscription.path, {"state": "active"})

    assert (revived["state"], revived["disabled_reason"]) == ("active", None)
    stage.wait_until_in_force()
    endpoint.expect(1, event_id=stripe.send().event_id)


def test_an_endpoint_that_asks_for_time_gets_it(stage: Stage) -> None:
    tenant = stage.tenant()
    endpoints = {status: stage.endpoint(Reply(status, {"retry-after": "2"})) for status in (429, 503, 500)}
    for endpoint in endpoints.values():
        tenant.subscribe(endpoint, "*", retry_policy=quick_retries(3))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    stripe.send()

    for status in (429, 503):
        first, second = endpoints[status].expect(2)
        assert 2.0 <= second.at - first.at <= 2.0 * 1.2 + LATE_SECONDS
    first, second = endpoints[500].expect(2)
    assert second.at - first.at < 2.0, "a 500 is not asked how long"


def test_an_endpoint_that_does_not_answer_in_time_has_failed(stage: Stage) -> None:
    released = threading.Event()
    tenant, endpoint = stage.tenant(), stage.endpoint(Reply(200, after=released))
    subscription = tenant.subscribe(endpoint, "*", timeout_seconds=1, retry_policy=quick_retries(2))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    delivery = tenant.delivery(subscription, receipt.event_id, "delivered")
    released.set()
    assert told(delivery) == [(1, 1, "dispatch", None), (1, 2, "retry", 200)]
    late = delivery["attempts"][0]
    assert late["error"].startswith("timeout") and late["response"] is None
    assert 1000 <= late["response_time_ms"] < 3000


def test_a_redirect_is_a_failure_and_is_not_followed(stage: Stage) -> None:
    tenant, elsewhere = stage.tenant(), stage.endpoint()
    endpoint = stage.endpoint(*(Reply(status, {"location": elsewhere.url}) for status in (301, 307)), then=200)
    subscription = tenant.subscribe(endpoint, "*", retry_policy=quick_retries(3))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    delivery = tenant.delivery(subscription, receipt.event_id, "delivered")
    assert told(delivery) == [(1, 1, "dispatch", 301), (1, 2, "retry", 307), (1, 3, "retry", 200)]
    assert all(attempt["error"].startswith("redirect") for attempt in delivery["attempts"][:2])
    assert elsewhere.arrivals == []


def test_nothing_is_tried_again_after_a_permanent_status(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(then=422)
    policy = quick_retries(5, permanent_statuses=[400, 422])
    subscription = tenant.subscribe(endpoint, "*", retry_policy=policy)
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    assert tenant.dead_letter(subscription)["reason"] == "permanent"
    assert told(tenant.delivery(subscription, receipt.event_id, "dead")) == [(1, 1, "dispatch", 422)]
    assert tenant.api.get(subscription.path)["state"] == "active"


def test_an_endpoint_that_nobody_serves_refuses_the_connection(stage: Stage) -> None:
    tenant = stage.tenant()
    # The discard port, on which nothing listens.
    subscription = tenant.subscribe("http://127.0.0.1:9/hooks", "*", retry_policy=quick_retries(1))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    (attempt,) = tenant.delivery(subscription, receipt.event_id, "dead")["attempts"]
    assert attempt["status_code"] is None
    assert attempt["error"].startswith("connection_refused")


def test_a_held_delivery_can_be_attempted_now(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(503)
    policy = {"kind": "schedule", "delays_seconds": [3600, 3600]}
    subscription = tenant.subscribe(endpoint, "*", retry_policy=policy)
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()
    held = tenant.delivery(subscription, receipt.event_id, "held")
    assert held["held_reason"] == "retry" and held["due_at"] is not None

    tenant.api.order(f"/v1/deliveries/{held['id']}/retry")

    delivery = tenant.delivery(subscription, receipt.event_id, "delivered")
    assert told(delivery) == [(1, 1, "dispatch", 503), (1, 2, "manual", 200)]


def test_a_delivered_delivery_can_be_sent_again(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()
    delivery = tenant.delivery(subscription, receipt.event_id, "delivered")

    tenant.api.order(f"/v1/deliveries/{delivery['id']}/retry")

    first, second = endpoint.expect(2)
    assert first.event_id == second.event_id == receipt.event_id
    again = tenant.delivery(subscription, receipt.event_id, "delivered")
    assert told(again)[0] == (1, 1, "dispatch", 200)


def test_of_a_long_answer_the_first_thousand_characters_are_kept(stage: Stage) -> None:
    answer = "ä" * 5000
    tenant, endpoint = stage.tenant(), stage.endpoint(Reply(200, {"content-type": "text/plain"}, answer.encode()))
    subscription = tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    (attempt,) = tenant.delivery(subscription, receipt.event_id, "delivered")["attempts"]
    assert attempt["response"] == answer[:1000]


def test_the_stats_of_a_subscription_count_what_came_of_its_deliveries(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(200, 200, then=500)
    subscription = tenant.subscribe(endpoint, "*", retry_policy=quick_retries(1))
    assert subscription.view["stats"] == {"delivered": 0, "failed": 0, "last_triggered_at": None}
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    for state in ("delivered", "delivered", "dead"):
        tenant.delivery(subscription, stripe.send().event_id, state)

    _expect_stats(tenant, subscription.path, delivered=2, failed=1)


def _expect_stats(tenant: Tenant, path: str, *, delivered: int, failed: int) -> None:
    def counted() -> bool:
        stats = tenant.api.get(path)["stats"]
        assert (stats["delivered"], stats["failed"]) == (delivered, failed), stats
        return stats["last_triggered_at"] is not None

    eventually(counted, within=15, what="the stats are true")
