"""Endpoints that fail for longer than a moment: they are left alone, probed, and in the end given up."""

import json
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from .client import Client, Json
from .load import scaled
from .receiver import Endpoint, Reply
from .stage import Stage, to_tenant
from .tenants import Subscription, Tenant, quick_retries
from .waiting import eventually
from .world import World

EVENTS = scaled(200, 1000)

# So that one can wait for it. Between two warnings lie a fifth of the time, and several probes.
COOLDOWN_SECONDS = scaled(3, 9)
DISABLED_AFTER_SECONDS = scaled(20, 60)

SETTINGS = {
    "DELIVERY_WORKER_BREAKER__COOLDOWN_SECONDS": str(COOLDOWN_SECONDS),
    "DELIVERY_WORKER_BREAKER__MAX_COOLDOWN_SECONDS": str(COOLDOWN_SECONDS),
    "DISPATCHER_WARDEN__DISABLE_AFTER_SECONDS": str(DISABLED_AFTER_SECONDS),
    "DISPATCHER_WARDEN__POLL_MS": "100",
}

# Attempts that may be under way, or in the queue, when a breaker opens.
IN_HAND = 60

# How far a delivery may overtake another: as many as are released in one go, at twenty a second.
OVERTAKES = 40

# Never used up before the breaker opens, nor by its probes.
PATIENT = quick_retries(50)


@pytest.fixture(scope="module", autouse=True)
def impatient(world: World) -> Iterator[None]:
    """Nobody here waits for five days."""
    with world.disturbed():
        world.up(**SETTINGS)
        yield


def test_an_endpoint_that_fails_is_left_alone_until_a_probe_finds_it_well(
    stage: Stage, report: Callable[[str], None]
) -> None:
    tenant, endpoint, witness = stage.tenant(), stage.endpoint(then=503), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*", retry_policy=PATIENT, max_in_flight=1)
    tenant.subscribe(witness, "*")
    internal = stage.internal(to_tenant(tenant))
    stage.wait_until_in_force()
    assert tenant.api.get(subscription.path)["breaker"] == {"state": "closed", "until": None}

    sent = [internal.send("report").event_id for _ in range(EVENTS)]

    witness.expect(EVENTS, within=60)
    view = eventually(lambda: is_spared(tenant, subscription), within=30, what="the breaker is open")
    assert view["state"] == "active" and view["failing"]["warned_percent"] in (0, 50, 70, 90)
    assert tenant.api.get(f"{subscription.path}/stats")["breaker"]["state"] in ("open", "half_open")
    spared = eventually(
        lambda: untouched(stage.operator, subscription), within=30, what="the rest is held, and has used up no attempt"
    )
    assert len(spared) >= EVENTS - IN_HAND
    before = len(endpoint.arrivals)
    endpoint.expect(before + 2, within=30)
    met = len(endpoint.arrivals)
    assert met <= IN_HAND, "it was asked by what was in hand and by probes, and by nothing else"
    # A probe is made with one of them, whichever is the oldest.
    assert len(untouched(stage.operator, subscription)) >= len(spared) - (met - before)

    back = time.monotonic()
    endpoint.answer_from_now_on(Reply(200))

    endpoint.expect(met + EVENTS, within=120)
    drained = time.monotonic() - back
    good = [arrival.event_id for arrival in endpoint.arrivals[met:]]
    # What was under way when it came back may have failed just before.
    good = list(dict.fromkeys(good))
    assert sorted(good) == sorted(sent), "every one of them, by itself"
    untried = {delivery["event_id"] for delivery in spared}
    places = overtaken([event_id for event_id in good if event_id in untried], sent)
    eventually(
        lambda: tenant.api.get(subscription.path)["stats"]["delivered"] == EVENTS,
        within=30,
        what="every delivery is recorded",
    )
    probes = probes_of(stage.operator, subscription)
    assert [status for status in probes if status == 200] == [200] * 3, "most of five probes found it well"
    assert set(probes) == {503, 200}, "and others had not"
    healed = tenant.api.get(subscription.path)
    assert (healed["breaker"], healed["failing"]) == ({"state": "closed", "until": None}, None)
    report(
        f"{EVENTS} events to an endpoint that is down: asked {met} times, {len(spared)} deliveries spared; "
        f"back again, it had all of them in {drained:.1f} s, at most {places} places before their turn"
    )
    assert places <= OVERTAKES, "oldest first"


def test_a_subscription_that_goes_on_failing_is_warned_and_disabled_and_recovers_what_it_missed(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(then=503)
    subscription = tenant.subscribe(endpoint, "invoice.*", retry_policy=PATIENT)
    told, deaf = stage.endpoint(), stage.endpoint()
    tenant.subscribe(told, "posthorn.subscription.*")
    tenant.subscribe(deaf, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    first = stripe.send("invoice.paid")
    failing = eventually(lambda: tenant.api.get(subscription.path)["failing"], within=30, what="it is failing")
    assert failing["since"] < failing["disables_at"]
    disabled = eventually(
        lambda: is_disabled(tenant, subscription), within=3 * DISABLED_AFTER_SECONDS + 30, what="it is disabled"
    )

    notices = [notice(arrival.body) for arrival in told.expect(4)]
    assert [kind for kind, _ in notices] == ["posthorn.subscription.warning"] * 3 + ["posthorn.subscription.disabled"]
    assert all(data["subscription_id"] == subscription.id for _, data in notices)
    assert [data["percent"] for _, data in notices[:3]] == [50, 70, 90]
    assert {data["disables_at"] for _, data in notices[:3]} == {failing["disables_at"]}
    assert notices[3][1]["reason"] == disabled["disabled_reason"] == "failing"
    assert notices[3][1]["recover_since"] == disabled["recover_since"] == failing["since"]

    # What it misses now, it is not sent later by itself.
    stage.wait_until_in_force()
    missed = [stripe.send("invoice.paid").event_id for _ in range(3)]
    for event_id in missed:
        deaf.expect(1, event_id=event_id)
        assert tenant.deliveries(subscription, event_id=event_id) == []
    endpoint.answer_from_now_on(Reply(200))
    resumed = tenant.api.expect(200, "POST", f"{subscription.path}/resume", json={}).json()
    assert (resumed["state"], resumed["disabled_reason"], resumed["failing"]) == ("active", None, None)
    assert resumed["breaker"] == {"state": "closed", "until": None}, "it begins anew"
    assert resumed["recover_since"] == disabled["recover_since"]
    tenant.delivery(subscription, first.event_id, "delivered", within=30)

    asked = {"since": resumed["recover_since"]}
    job = tenant.api.expect(202, "POST", f"{subscription.path}/recover", json=asked).json()

    done = eventually(lambda: has_ended(tenant, job), within=30, what="the job has ended")
    assert (done["kind"], done["state"], done["count"], done["done"], done["failed"]) == (
        "recover", "completed", 3, 3, 0,
    )  # fmt: skip
    assert done["filter"]["since"] == resumed["recover_since"]
    for event_id in missed:
        delivery = tenant.delivery(subscription, event_id, "delivered")
        assert [attempt["trigger"] for attempt in delivery["attempts"]] == ["recover"]
        assert endpoint.counted()[event_id] == 1
    assert tenant.api.get(subscription.path)["recover_since"] is None
    assert all(not kind.startswith("posthorn.") for kind, _ in map(notice, bodies(deaf))), "nobody asked for these"


def test_a_tenant_that_asks_is_told_what_died_and_what_arrived_after_all(stage: Stage) -> None:
    tenant, other = stage.tenant(), stage.tenant()
    endpoint, told, strange = stage.endpoint(then=500), stage.endpoint(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "invoice.*", retry_policy=quick_retries(1))
    tenant.subscribe(told, "posthorn.delivery.exhausted", "posthorn.delivery.recovered")
    other.subscribe(strange, "posthorn.*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send("invoice.paid")

    delivery = tenant.delivery(subscription, receipt.event_id, "dead")
    parcel = {
        "subscription_id": subscription.id,
        "delivery_id": delivery["id"],
        "event_id": receipt.event_id,
        "event_type": "invoice.paid",
    }
    (arrival,) = told.expect(1)
    assert notice(arrival.body) == ("posthorn.delivery.exhausted", parcel | {"reason": "exhausted"})
    endpoint.answer_from_now_on(Reply(200))
    tenant.api.order(f"/v1/dead-letters/{tenant.dead_letter(subscription)['id']}/replay")
    tenant.delivery(subscription, receipt.event_id, "delivered")
    _, arrival = told.expect(2)
    assert notice(arrival.body) == ("posthorn.delivery.recovered", parcel)
    assert strange.arrivals == []


def test_what_becomes_of_an_operational_event_is_not_told(stage: Stage) -> None:
    tenant, told = stage.tenant(), stage.endpoint()
    endpoint, broken = stage.endpoint(then=500), stage.endpoint(then=500)
    tenant.subscribe(endpoint, "invoice.*", retry_policy=quick_retries(1))
    deaf = tenant.subscribe(broken, "posthorn.*", retry_policy=quick_retries(1))
    tenant.subscribe(told, "posthorn.*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    stripe.send("invoice.paid")

    tenant.dead_letter(deaf)
    told.expect(1)
    # Whatever would be told of that death, would have been told by the time that another one is.
    stripe.send("invoice.paid")
    arrivals = told.expect(2)
    about = [notice(arrival.body)[1]["event_type"] for arrival in arrivals]
    assert about == ["invoice.paid", "invoice.paid"]


def is_spared(tenant: Tenant, subscription: Subscription) -> Json:
    """The subscription, once its breaker is not closed."""
    view = tenant.api.get(subscription.path)
    assert view["breaker"]["state"] in ("open", "half_open"), view
    assert view["breaker"]["until"] is not None
    return view


def is_disabled(tenant: Tenant, subscription: Subscription) -> Json:
    view = tenant.api.get(subscription.path)
    return view if view["state"] == "disabled" else None


def has_ended(tenant: Tenant, job: Json) -> Json:
    view = tenant.api.get(f"/v1/replays/{job['id']}")
    return view if view["finished_at"] is not None else None


# With a thousand deliveries these take more requests than a tenant's key may make in a second.


def untouched(operator: Client, subscription: Subscription) -> list[Json]:
    """What waits for the breaker without ever having been tried, as soon as nothing is on its way."""
    held = list(operator.every("/v1/deliveries", subscription_id=subscription.id, state="held", limit=200))
    assert len(held) >= EVENTS - 1, "one of them may be probing"
    return [one for one in held if one["held_reason"] == "breaker" and one["attempts_made"] == 0]


def probes_of(operator: Client, subscription: Subscription) -> list[int | None]:
    """What the attempts came to that were made to find out."""
    wholes = (
        operator.get(f"/v1/deliveries/{delivery['id']}")
        for delivery in operator.every("/v1/deliveries", subscription_id=subscription.id, limit=200)
        if delivery["attempts_made"] > 0
    )
    return [a["status_code"] for whole in wholes for a in whole["attempts"] if a["trigger"] == "probe"]


def overtaken(arrived: list[str], sent: list[str]) -> int:
    """By how many places one of them came before its turn, at most."""
    among = set(arrived)
    turn = dict(zip((event_id for event_id in sent if event_id in among), count(), strict=False))
    return max((turn[event_id] - place for place, event_id in enumerate(arrived)), default=0)


def bodies(endpoint: Endpoint) -> list[bytes]:
    return [arrival.body for arrival in endpoint.arrivals]


def notice(body: bytes) -> tuple[str, Json]:
    """The type and the data of an event in the standard format."""
    read = json.loads(body)
    return read["type"], read["data"]
