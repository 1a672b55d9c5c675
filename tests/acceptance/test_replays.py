"""Many dead letters at once: told apart, counted, set going again by a job, and forgotten."""

import itertools
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from .client import Json
from .load import scaled, share
from .providers import Internal
from .receiver import Endpoint, Reply
from .stage import Stage, to_tenant
from .tenants import Subscription, Tenant, quick_retries
from .waiting import eventually

# Each subscription fails once less often than what opens its breaker; and an endpoint that is gone, once.
FAILURES = 9
FAILING = scaled(8, 275)
GONE = scaled(8, 50)

REASONS: dict[str, tuple[int, int, int]] = {
    # What the endpoint answers, how many subscriptions, and how many events each.
    "exhausted": (500, FAILING, FAILURES),
    "permanent": (422, FAILING, FAILURES),
    "gone": (410, GONE, 1),
}
DEAD = sum(subscriptions * events for _, subscriptions, events in REASONS.values())

# Of the job: it is halfway after some seconds, in which live traffic is looked at.
RATE = scaled(25, 200)
# Live traffic from the door to the endpoint, 99 of 100. The job would take longer than that by far.
LIVE_SECONDS = scaled(3.0, 1.0)


@dataclass(frozen=True)
class Corpse:
    """A subscription all of whose deliveries died, with its endpoint, and of which events they were."""

    reason: str
    subscription: Subscription
    endpoint: Endpoint
    events: set[str]


class Graveyard:
    """A tenant with dead letters of three reasons."""

    def __init__(self, stage: Stage) -> None:
        self.tenant = stage.tenant()
        self.internal = stage.internal(to_tenant(self.tenant))
        self.corpses = [
            self._subscribe(stage, reason, status)
            for reason, (status, subscriptions, _) in REASONS.items()
            for _ in range(subscriptions)
        ]

    def _subscribe(self, stage: Stage, reason: str, status: int) -> Corpse:
        endpoint = stage.endpoint(then=status)
        policy = quick_retries(1, permanent_statuses=[422])
        return Corpse(reason, self.tenant.subscribe(endpoint, f"ends.{reason}", retry_policy=policy), endpoint, set())

    def fill(self) -> None:
        """Everything dies."""
        for reason, (_, _, events) in REASONS.items():
            for _ in range(events):
                event_id = self.internal.send(f"ends.{reason}").event_id
                for corpse in self.corpses:
                    if corpse.reason == reason:
                        corpse.events.add(event_id)
        eventually(lambda: len(self.letters()) == DEAD, within=60 + DEAD / 20, what=f"{DEAD} deliveries are dead")

    def letters(self, **filters: str) -> list[Json]:
        return list(self.tenant.api.every("/v1/dead-letters", limit=200, **filters))

    def heal(self) -> None:
        """The endpoints are well again, and those that were gone are back."""
        for corpse in self.corpses:
            corpse.endpoint.answer_from_now_on(Reply(200))
            if corpse.reason == "gone":
                self.tenant.api.expect(200, "POST", f"{corpse.subscription.path}/resume", json={})

    def arrived(self) -> int:
        return sum(len(corpse.endpoint.arrivals) for corpse in self.corpses)

    def counted(self) -> dict[str, Counter[str]]:
        """How often each subscription has got each event."""
        return {corpse.subscription.id: corpse.endpoint.counted() for corpse in self.corpses}


def test_a_job_replays_one_tenants_dead_letters_beside_live_traffic_and_through_a_restart(
    stage: Stage, report: Callable[[str], None]
) -> None:
    world, ours, theirs = stage.world, Graveyard(stage), Graveyard(stage)
    live = stage.endpoint()
    ours.tenant.subscribe(live, "live")
    stage.wait_until_in_force()
    ours.fill()
    theirs.fill()
    operator, mine = stage.operator, {"tenant_id": ours.tenant.id}
    untouched, undisturbed = theirs.letters(), theirs.counted()
    # At least once: what was sent twice before it died is told in the end, and is not the job's doing.
    died, begun = ours.counted(), ours.arrived()

    # What there is, by what it died of.
    groups = operator.get("/v1/dead-letters/groups", limit=200, **mine)
    assert groups["next_cursor"] is None
    counts = [group["count"] for group in groups["data"]]
    assert counts == sorted(counts, reverse=True)
    assert all(group["tenant_id"] == ours.tenant.id for group in groups["data"])
    assert all(group["first_died_at"] <= group["last_died_at"] for group in groups["data"])
    expected = {(c.subscription.id, c.reason): len(c.events) for c in ours.corpses}
    found = {(group["subscription_id"], group["reason"]): group["count"] for group in groups["data"]}
    assert found.items() <= expected.items() and len(found) == min(200, len(expected))
    statuses = {reason: str(status) for reason, (status, _, _) in REASONS.items()}
    assert all(statuses[group["reason"]] in group["error"] for group in groups["data"])
    assert ours.letters(reason="gone", event_type="ends.*")[0]["event_type"] == "ends.gone"
    assert ours.letters(event_type="ends.gone,other.*") == ours.letters(reason="gone")

    # A dry run counts.
    asked: dict[str, Any] = {"filter": mine, "rate_per_second": RATE}
    dry = operator.expect(202, "POST", "/v1/dead-letters/replay", json=asked | {"dry_run": True}).json()
    assert (dry["state"], dry["count"], dry["done"], dry["dry_run"]) == ("completed", DEAD, 0, True)
    assert (ours.counted(), len(ours.letters())) == (died, DEAD), "and changes nothing"

    ours.heal()
    theirs.heal()
    stage.wait_until_in_force()
    with Trickle(ours.internal, "live") as trickle:
        job = operator.expect(202, "POST", "/v1/dead-letters/replay", json=asked).json()
        assert (job["kind"], job["tenant_id"], job["count"]) == ("dead_letters", ours.tenant.id, DEAD)
        path = f"/v1/replays/{job['id']}"
        halfway = eventually(
            lambda: reaches(ours.tenant, path, DEAD // 2), within=60 + DEAD / RATE, what="the job is halfway"
        )
        cancelled = ours.tenant.api.expect(200, "POST", f"{path}/cancel", json={}).json()
        assert cancelled["state"] == "cancelled" and cancelled["finished_at"] is not None
        assert halfway["done"] <= cancelled["done"] < DEAD
        ours.tenant.api.refused(409, "conflict", "POST", f"{path}/cancel", json={})
        # What it set going goes on, and nothing else does.
        eventually(lambda: ours.arrived() >= begun + cancelled["done"], within=30, what="what was set going arrives")
        assert ours.tenant.api.get(path) == cancelled
        assert ours.arrived() == begun + cancelled["done"]
        assert len(ours.letters()) == DEAD - cancelled["done"]
    waits = trickle.waits(live)

    with world.disturbed():
        resumed = ours.tenant.api.expect(200, "POST", f"{path}/resume", json={}).json()
        assert (resumed["state"], resumed["finished_at"]) == ("running", None)
        ours.tenant.api.refused(409, "conflict", "POST", f"{path}/resume", json={})
        eventually(lambda: reaches(ours.tenant, path, cancelled["done"] + DEAD // 8), within=60, what="the job goes on")
        world.kill("dispatcher")
        world.up()
        done = eventually(lambda: has_ended(ours.tenant, path), within=60 + DEAD / RATE, what="the job has ended")
    assert (done["state"], done["done"], done["failed"]) == ("completed", DEAD, 0)

    # Each exactly once more than when it had died, by the receivers' own logs.
    eventually(lambda: ours.arrived() >= begun + DEAD, within=60, what="all arrive")
    for corpse in ours.corpses:
        before = died[corpse.subscription.id]
        assert before.keys() == corpse.events
        assert corpse.endpoint.counted() == {event_id: count + 1 for event_id, count in before.items()}, corpse.reason
    assert ours.letters() == []
    for reason in REASONS:
        corpse = next(corpse for corpse in ours.corpses if corpse.reason == reason)
        for event_id in corpse.events:
            attempts = ours.tenant.delivery(corpse.subscription, event_id, "delivered")["attempts"]
            assert [(a["generation"], a["trigger"]) for a in attempts] == [(1, "dispatch"), (2, "replay")]
    assert (theirs.letters(), theirs.counted()) == (untouched, undisturbed), "the other tenant's are as they were"
    report(
        f"{DEAD} dead letters replayed at {RATE} a second, cancelled at {cancelled['done']}, resumed, and the "
        f"dispatcher killed: each arrived once ({begun - DEAD} had been sent twice before they died); {len(waits)} "
        f"live events beside it waited p50 {share(waits, 0.5) * 1000:.0f} ms, p99 {share(waits, 0.99) * 1000:.0f} ms"
    )
    assert share(waits, 0.99) < LIVE_SECONDS


@pytest.fixture
def dead(stage: Stage) -> "Dead":
    return Dead(stage)


class Dead:
    """A tenant with one subscription and three dead letters of it, of two types."""

    def __init__(self, stage: Stage) -> None:
        self.tenant, self.endpoint = stage.tenant(), stage.endpoint(then=500)
        self.subscription = self.tenant.subscribe(self.endpoint, "*", retry_policy=quick_retries(1))
        self.internal = stage.internal(to_tenant(self.tenant))
        stage.wait_until_in_force()
        self.events = [self.internal.send(event_type).event_id for event_type in ("order.paid", "order.sent", "lead")]
        letters = eventually(
            lambda: len(found := self.tenant.dead_letters(self.subscription)) == 3 and found,
            within=15,
            what="there are three dead letters",
        )
        self.letters = {letter["event_id"]: letter for letter in letters or []}

    def left(self) -> set[str]:
        """Events of the dead letters that are left."""
        return {letter["event_id"] for letter in self.tenant.dead_letters(self.subscription)}

    def replay(self, filter: Json, **asked: Any) -> Json:
        body = {"filter": filter} | asked
        return self.tenant.api.expect(202, "POST", "/v1/dead-letters/replay", json=body).json()

    def ended(self, job: Json) -> Json:
        return eventually(
            lambda: has_ended(self.tenant, f"/v1/replays/{job['id']}"), within=30, what="the job has ended"
        )


def test_a_job_replays_what_its_filter_means_and_nothing_else(dead: Dead) -> None:
    dead.endpoint.answer_from_now_on(Reply(200))
    paid, sent, lead = dead.events

    one = dead.ended(dead.replay({"ids": [dead.letters[paid]["id"]], "reason": "exhausted"}))
    assert (one["count"], one["done"]) == (1, 1) and dead.left() == {sent, lead}
    by_type = dead.ended(dead.replay({"event_type": "order.*", "subscription_id": dead.subscription.id}))
    assert (by_type["count"], by_type["done"]) == (1, 1) and dead.left() == {lead}
    nothing = dead.replay({"reason": "permanent"})
    assert (nothing["state"], nothing["count"]) == ("completed", 0)
    died_at = dead.letters[lead]["died_at"]
    assert dead.replay({"to": died_at}, dry_run=True)["count"] == 0
    assert dead.replay({"from": died_at}, dry_run=True)["count"] == 1

    assert by_type["subscription_id"] == dead.subscription.id
    assert by_type["filter"] == {"event_type": "order.*", "subscription_id": dead.subscription.id}
    listed = list(dead.tenant.api.every("/v1/replays", limit=2))
    assert [job["id"] for job in listed][-2:] == [by_type["id"], one["id"]], "newest first"
    assert len(listed) == 5


def test_a_job_is_begun_once_for_an_idempotency_key(dead: Dead) -> None:
    headers, body = {"idempotency-key": "once"}, {"filter": {}, "dry_run": True}
    first, again = (
        dead.tenant.api.expect(202, "POST", "/v1/dead-letters/replay", json=body, headers=headers) for _ in range(2)
    )
    assert first.json() == again.json() and again.headers["idempotent-replayed"] == "true"
    other = {"filter": {}, "dry_run": False}
    dead.tenant.api.refused(409, "idempotency-conflict", "POST", "/v1/dead-letters/replay", json=other, headers=headers)
    assert len(dead.left()) == 3


REPLAY_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({}, "/filter"),
    ({"filter": {}, "speed": 3}, "/speed"),
    ({"filter": {"colour": "red"}}, "/filter/colour"),
    ({"filter": {"reason": "tired"}}, "/filter/reason"),
    ({"filter": {"event_type": ".*"}}, "/filter/event_type"),
    ({"filter": {"from": "yesterday"}}, "/filter/from"),
    ({"filter": {"ids": []}}, "/filter/ids"),
    ({"filter": {"ids": [f"dl_{number:032x}" for number in range(1001)]}}, "/filter/ids"),
    ({"filter": {}, "rate_per_second": 0.05}, "/rate_per_second"),
    ({"filter": {}, "rate_per_second": 10_001}, "/rate_per_second"),
    ({"filter": {}, "dry_run": "yes"}, "/dry_run"),
]


def test_a_replay_that_is_wrong_is_refused_by_its_field(stage: Stage) -> None:
    api = stage.tenant().api
    for body, pointer in REPLAY_FAULTS:
        problem = api.refused(422, "validation-failed", "POST", "/v1/dead-letters/replay", json=body)
        assert [error["pointer"] for error in problem["errors"]] == [pointer], body


def test_a_dead_letter_that_is_deleted_is_forgotten_and_its_delivery_stays_dead(stage: Stage, dead: Dead) -> None:
    event_id = dead.events[0]
    path = f"/v1/dead-letters/{dead.letters[event_id]['id']}"
    stage.tenant().api.refused(404, "not-found", "DELETE", path)

    dead.tenant.api.delete(path)

    dead.tenant.api.refused(404, "not-found", "GET", path)
    dead.tenant.api.refused(404, "not-found", "DELETE", path)
    assert dead.left() == set(dead.events[1:])
    assert dead.tenant.delivery(dead.subscription, event_id, "dead")["attempts_made"] == 1
    # The event is not lost with it.
    dead.endpoint.answer_from_now_on(Reply(200))
    since = {"since": "2026-01-01T00:00:00Z", "include": ["failed"]}
    job = dead.tenant.api.expect(202, "POST", f"{dead.subscription.path}/recover", json=since).json()
    assert dead.ended(job)["done"] == 3
    attempts = dead.tenant.delivery(dead.subscription, event_id, "delivered")["attempts"]
    assert [(a["generation"], a["trigger"]) for a in attempts] == [(1, "dispatch"), (2, "recover")]


def test_the_operator_forgets_dead_letters_by_their_age(stage: Stage, dead: Dead) -> None:
    other = Dead(stage)
    purge, mine = "/v1/dead-letters", {"tenant_id": dead.tenant.id}
    for wrong in ({}, {"older_than_seconds": "a week"}, {"older_than_seconds": "-1"}):
        problem = stage.operator.refused(422, "validation-failed", "DELETE", purge, params=wrong)
        assert problem["errors"][0]["pointer"] == "older_than_seconds"
    dead.tenant.api.refused(403, "forbidden", "DELETE", purge, params={"older_than_seconds": "0"})

    stage.operator.expect(204, "DELETE", purge, params={"older_than_seconds": "3600"} | mine)
    stage.operator.expect(204, "DELETE", purge, params={"older_than_seconds": "0", "reason": "permanent"} | mine)
    assert dead.left() == set(dead.events), "they are younger, or died of something else"
    stage.operator.expect(204, "DELETE", purge, params={"older_than_seconds": "0", "reason": "exhausted"} | mine)

    assert dead.left() == set()
    assert other.left() == set(other.events), "and another tenant's stay"


def test_recovering_sends_what_failed_and_what_came_before_the_subscription(stage: Stage) -> None:
    tenant, early = stage.tenant(), stage.endpoint()
    tenant.subscribe(early, "*")
    internal = stage.internal(to_tenant(tenant))
    stage.wait_until_in_force()
    other = internal.send("other").event_id
    before = [internal.send("order.paid").event_id for _ in range(3)]
    early.expect(4)
    endpoint = stage.endpoint(500, 500, then=200)
    subscription = tenant.subscribe(endpoint, "order.*", retry_policy=quick_retries(1))
    stage.wait_until_in_force()
    died = [internal.send("order.paid").event_id for _ in range(2)]
    for event_id in died:
        tenant.delivery(subscription, event_id, "dead")
    arrived = internal.send("order.paid").event_id
    tenant.delivery(subscription, arrived, "delivered")
    path = f"{subscription.path}/recover"
    since = tenant.api.get(f"/v1/events/{before[0]}")["received_at"]

    for wrong, pointer in (
        ({}, "/since"),
        ({"since": since, "until": since}, "/since"),
        ({"since": "2099-01-01T00:00:00Z"}, "/since"),
        ({"since": since, "include": []}, "/include"),
        ({"since": since, "include": ["lost"]}, "/include/0"),
        ({"since": since, "rate_per_second": 0}, "/rate_per_second"),
    ):
        problem = tenant.api.refused(422, "validation-failed", "POST", path, json=wrong)
        assert [error["pointer"] for error in problem["errors"]] == [pointer], wrong
    dry = tenant.api.expect(202, "POST", path, json={"since": since, "dry_run": True}).json()
    assert has_counted(tenant, dry)["count"] == 5
    only = tenant.api.expect(202, "POST", path, json={"since": since, "include": ["failed"], "dry_run": True}).json()
    assert has_counted(tenant, only)["count"] == 2
    assert len(endpoint.arrivals) == 3

    job = tenant.api.expect(202, "POST", path, json={"since": since}).json()

    ended = eventually(lambda: has_ended(tenant, f"/v1/replays/{job['id']}"), within=30, what="the job has ended")
    assert (ended["kind"], ended["subscription_id"], ended["done"]) == ("recover", subscription.id, 5)
    for event_id in before:
        attempts = tenant.delivery(subscription, event_id, "delivered")["attempts"]
        assert [(a["generation"], a["trigger"]) for a in attempts] == [(1, "recover")]
    for event_id in died:
        attempts = tenant.delivery(subscription, event_id, "delivered")["attempts"]
        assert [(a["generation"], a["trigger"]) for a in attempts] == [(1, "dispatch"), (2, "recover")]
    counted = endpoint.counted()
    assert other not in counted and counted[arrived] == 1
    assert all(counted[event_id] == 1 for event_id in before) and all(counted[event_id] == 2 for event_id in died)
    assert tenant.dead_letters(subscription) == []


# --- the command line ---


def test_dead_letters_are_grouped_replayed_and_followed_from_the_command_line(stage: Stage, dead: Dead) -> None:
    posthorn = stage.world.posthorn
    mine, theirs = ("--tenant", dead.tenant.id), ("--subscription", dead.subscription.id)

    grouped = printed(posthorn("dlq", "list", "--group", *mine))
    as_json = lines(posthorn("dlq", "list", "--group", "--json", *theirs))
    narrowed = lines(posthorn("dlq", "list", "--json", *mine, "--event-type", "order.*"))
    assert "exhausted" in grouped and dead.subscription.id in grouped
    assert [(row["count"], row["reason"], row["subscription_id"]) for row in as_json] == [
        (3, "exhausted", dead.subscription.id)
    ]
    assert {row["event_id"] for row in narrowed} == set(dead.events[:2])

    (dry,) = lines(posthorn("dlq", "replay", *mine, "--reason", "exhausted", "--dry-run", "--json"))
    assert (dry["count"], dry["dry_run"], dry["state"]) == (3, True, "completed")
    assert len(dead.left()) == 3

    dead.endpoint.answer_from_now_on(Reply(200))
    followed = lines(posthorn("dlq", "replay", *mine, "--event-type", "order.*", "--rate", "50", "--json"))
    assert (followed[-1]["state"], followed[-1]["done"]) == ("completed", 2), "it stays until the job has ended"
    assert followed[-1]["rate_per_second"] == 50
    assert dead.left() == {dead.events[2]}

    (status,) = lines(posthorn("replay", "status", followed[-1]["id"], "--json"))
    assert status == followed[-1]
    assert {dry["id"], status["id"]} <= {job["id"] for job in lines(posthorn("replay", "status", "--json"))}
    assert status["id"] in printed(posthorn("replay", "status", status["id"]))


def test_a_job_is_cancelled_from_the_command_line(stage: Stage, dead: Dead) -> None:
    posthorn = stage.world.posthorn
    # The second of them would go after ten seconds.
    job = dead.replay({}, rate_per_second=0.1)

    (cancelled,) = lines(posthorn("replay", "cancel", job["id"], "--json"))

    assert cancelled["state"] == "cancelled" and cancelled["done"] <= 1
    again = posthorn("replay", "cancel", job["id"])
    assert again.returncode != 0 and "409" in again.stderr
    # The one that went dies again.
    eventually(lambda: len(dead.left()) == 3, within=15, what="all three are dead letters")


def test_dead_letters_are_purged_from_the_command_line(stage: Stage, dead: Dead) -> None:
    posthorn, mine = stage.world.posthorn, ("--tenant", dead.tenant.id)

    printed(posthorn("dlq", "purge", "--older-than", "7d", *mine))
    assert len(dead.left()) == 3, "they are younger"
    printed(posthorn("dlq", "purge", "--older-than", "0s", *mine))
    assert dead.left() == set()

    for wrong in (("dlq", "purge", "--older-than", "a week"), ("dlq", "purge"), ("dlq", "replay")):
        assert posthorn(*wrong).returncode != 0, "nothing is forgotten or replayed by mistake"
    for unknown in (("dlq", "show", f"dl_{0:032x}"), ("replay", "status", f"rpl_{0:032x}")):
        done = posthorn(*unknown)
        assert done.returncode != 0 and "404" in done.stderr


def printed(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(done: "subprocess.CompletedProcess[str]") -> list[Json]:
    """One JSON object a line."""
    return [json.loads(line) for line in printed(done).splitlines()]


def reaches(tenant: Tenant, path: str, done: int) -> Json:
    """The job, once it has set so many going."""
    job = tenant.api.get(path)
    return job if job["done"] >= done else None


def has_ended(tenant: Tenant, path: str) -> Json:
    job = tenant.api.get(path)
    return job if job["finished_at"] is not None else None


def has_counted(tenant: Tenant, job: Json) -> Json:
    """A dry run has ended when it has counted."""
    return eventually(lambda: has_ended(tenant, f"/v1/replays/{job['id']}"), within=15, what="it has counted")


class Trickle:
    """Live traffic, ten a second for as long as it is entered."""

    PER_SECOND = 10

    def __init__(self, internal: Internal, event_type: str) -> None:
        self._internal, self._event_type = internal, event_type
        self._accepted: dict[str, float] = {}
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="live")

    def __enter__(self) -> "Trickle":
        self._sending = self._pool.submit(self._send)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()

    def waits(self, endpoint: Endpoint) -> list[float]:
        """From the door to the endpoint, in seconds, when all have arrived."""
        self._sending.result()
        arrivals = endpoint.expect(len(self._accepted), within=30)
        return [max(0.0, arrival.at - self._accepted[arrival.event_id]) for arrival in arrivals]

    def _send(self) -> None:
        began = time.monotonic()
        for number in itertools.count():
            # The pace, and not a wait for anything: event n is due n intervals after the beginning.
            if self._ended.wait(began + number / self.PER_SECOND - time.monotonic()):
                return
            event_id = self._internal.send(self._event_type).event_id
            self._accepted[event_id] = time.monotonic()
