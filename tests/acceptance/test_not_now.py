"""Endpoints that ask for time, and messages that wait in a worker when their subscription changes."""

import threading

import pytest

from .receiver import Reply
from .stage import Stage, to_tenant
from .waiting import eventually

ONE_ATTEMPT = {"kind": "schedule", "delays_seconds": []}


@pytest.mark.parametrize("status", [429, 503])
def test_an_endpoint_that_asks_for_time_costs_no_attempt(stage: Stage, status: int) -> None:
    not_now = Reply(status, {"retry-after": "1"})
    tenant, endpoint = stage.tenant(), stage.endpoint(not_now, not_now)
    subscription = tenant.subscribe(endpoint, "*", retry_policy=ONE_ATTEMPT)
    internal = stage.internal(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = internal.send("order.created", {"n": 1})

    delivery = tenant.delivery(subscription, receipt.event_id, "delivered")
    shown = tenant.api.get(f"/v1/deliveries/{delivery['id']}")
    attempts = [(attempt["number"], attempt["status_code"]) for attempt in shown["attempts"]]
    assert attempts == [(1, status), (2, status), (3, 200)]
    assert [attempt["error"].split(":")[0] for attempt in shown["attempts"][:2]] == ["not_now", "not_now"]
    first, second, third = endpoint.arrivals
    assert second.at - first.at >= 1 and third.at - second.at >= 1
    assert tenant.dead_letters(subscription) == []
    view = tenant.api.get(subscription.path)
    assert (view["breaker"]["state"], view["failing"]) == ("closed", None)


def test_while_an_endpoint_has_asked_for_time_all_its_deliveries_wait(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(Reply(429, {"retry-after": "3"}))
    subscription = tenant.subscribe(endpoint, "*", retry_policy=ONE_ATTEMPT)
    internal = stage.internal(to_tenant(tenant))
    stage.wait_until_in_force()
    internal.send("order.created", {"n": 1})
    endpoint.expect(1)
    held = eventually(lambda: tenant.deliveries(subscription, state="held"), within=2, what="the first is held")
    assert [delivery["held_reason"] for delivery in held] == ["rate"]

    receipts = [internal.send("order.created", {"n": n}) for n in range(2, 5)]

    (first, *others) = endpoint.expect(5, within=20)
    assert all(other.at - first.at >= 3 for other in others)
    for receipt in receipts:
        tenant.delivery(subscription, receipt.event_id, "delivered")


@pytest.mark.parametrize("change", ["pause", "delete"])
def test_what_waits_in_a_worker_stays_when_its_subscription_is_paused_or_deleted(stage: Stage, change: str) -> None:
    released = threading.Event()
    tenant, endpoint = stage.tenant(), stage.endpoint(then=Reply(200, after=released))
    subscription = tenant.subscribe(endpoint, "*", max_in_flight=2, timeout_seconds=20)
    internal = stage.internal(to_tenant(tenant))
    stage.wait_until_in_force()
    for n in range(12):
        internal.send("order.created", {"n": n})
    endpoint.expect(2)

    if change == "pause":
        tenant.api.expect(200, "POST", f"{subscription.path}/pause", json={})
    else:
        tenant.api.delete(subscription.path)
    stage.wait_until_in_force()
    released.set()

    ended = ("held", "paused") if change == "pause" else ("cancelled", None)

    def all_stay() -> bool:
        shown = [(d["state"], d["held_reason"]) for d in stage.operator.every("/v1/deliveries", tenant_id=tenant.id)]
        return shown.count(ended) == 10 and shown.count(("delivered", None)) == 2

    eventually(all_stay, within=20, what="ten were never sent")
    assert len(endpoint.arrivals) == 2
