"""What breaks is mended without anything being lost, and without anybody restarting a service."""

import contextlib
import itertools
import re
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass

import httpx
import pytest

from .client import Json
from .providers import Stripe, stripe_event
from .receiver import Endpoint, Reply
from .stage import Stage, to_everyone, to_tenant
from .tenants import quick_retries
from .waiting import eventually
from .world import SERVICES, is_running


@dataclass(frozen=True)
class Interruption:
    """How services go, and how many events may arrive again for that."""

    verb: str
    signal: signal.Signals
    events: int
    repeats: int


KILLED = Interruption("killed", signal.SIGKILL, events=2000, repeats=50)
STOPPED = Interruption("stopped", signal.SIGTERM, events=1000, repeats=0)


def test_while_the_broker_is_dead_events_are_taken_and_afterwards_all_arrive(stage: Stage) -> None:
    world = stage.world
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    pids = world.service_pids()

    with world.disturbed():
        world.kill("rabbitmq")
        sent = [stripe.send().event_id for _ in range(50)]
        eventually(lambda: "not" in _line(stage, "dispatcher", "broker"), within=30, what="the broker is told missing")
        for service in SERVICES:
            assert world.admin(service, "/livez").status_code == 200
        assert world.admin("gateway", "/readyz").status_code == 200, "it still takes events"
        assert endpoint.arrivals == []
        sent += [stripe.send().event_id for _ in range(50)]

        world.start_broker()

        # Nothing was under way when the broker died, so nothing has to wait until a lease runs out.
        back = time.monotonic()
        for event_id in sent:
            endpoint.expect(1, event_id=event_id, within=60)
        assert endpoint.arrivals[-1].at - back < 15, "as soon as the broker is there"
        assert world.service_pids() == pids, "nobody restarted anything"
        assert all(is_running(pid) for pid in pids.values())
        for event_id in sent:
            assert tenant.delivery(subscription, event_id, "delivered")["attempts_made"] == 1
        eventually(lambda: _line(stage, "dispatcher", "broker") == "ok", within=30, what="the broker is told well")


def test_while_the_database_is_dead_providers_are_asked_to_come_back(stage: Stage) -> None:
    world = stage.world
    tenant, endpoint = stage.tenant(), stage.endpoint(503)
    policy = {"kind": "schedule", "delays_seconds": [2]}
    subscription = tenant.subscribe(endpoint, "*", retry_policy=policy)
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    waiting = stripe.send()
    tenant.delivery(subscription, waiting.event_id, "held")
    pids = world.service_pids()
    events = [stripe_event() for _ in range(5)]

    with world.disturbed():
        world.kill("postgres")
        for event in events:
            answer = stripe.post_event(event)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
            assert int(answer.headers["retry-after"]) >= 1
        problem = tenant.api.refused(503, "unavailable", "GET", "/v1/events")
        assert problem["status"] == 503
        eventually(
            lambda: world.admin("gateway", "/readyz").status_code == 503, within=15, what="the gateway is not ready"
        )
        for service in SERVICES:
            assert world.admin(service, "/livez").status_code == 200

        world.start_database()

        # The provider comes back.
        accepted = [_insist(stripe, event) for event in events]
        for event_id in (*accepted, waiting.event_id):
            tenant.delivery(subscription, event_id, "delivered", within=60)
        assert endpoint.counted().keys() == {*accepted, waiting.event_id}
        assert world.service_pids() == pids, "nobody restarted anything"
        assert all(is_running(pid) for pid in pids.values())
        for service in SERVICES:
            eventually(
                lambda service=service: world.admin(service, "/readyz").status_code == 200,  # type: ignore[misc]
                within=30,
                what=f"{service} is ready again",
            )
        assert len(list(tenant.api.every("/v1/events"))) == len(events) + 1


@pytest.mark.parametrize("how", [KILLED, STOPPED], ids=lambda how: how.verb)
def test_each_service_goes_once_while_events_flow_and_none_is_lost(
    stage: Stage, report: Callable[[str], None], how: Interruption
) -> None:
    world = stage.world
    tenants = stage.tenant(), stage.tenant()
    endpoints = stage.endpoint(), stage.endpoint()
    subscriptions = [
        # A short timeout keeps the leases short, by which a lost message is found.
        tenant.subscribe(endpoint, "invoice.*", timeout_seconds=2, retry_policy=quick_retries(10), max_in_flight=20)
        for tenant, endpoint in zip(tenants, endpoints, strict=True)
    ]
    stripe = stage.stripe(to_everyone())
    stage.wait_until_in_force()
    flow = Flow(stripe, per_second=100)

    with world.disturbed(), flow:
        for name in ("worker", "dispatcher", "gateway"):
            flow.wait_for_more(200)
            pid = world.signal(name, how.signal)
            eventually(lambda pid=pid: not is_running(pid), within=30, what=f"{name} is gone")  # type: ignore[misc]
            world.up()
        flow.wait_for_more(200)
        accepted = flow.finish(at_least=how.events, within=120)

        ids = set(accepted.values())
        assert len(accepted) == len(ids) >= how.events, "one event for each id of the provider's"
        listed = [event["id"] for event in stage.operator.every("/v1/events", source=stripe.address, limit=200)]
        assert sorted(listed) == sorted(ids), "the database holds what was accepted, each once"
        for tenant, subscription, endpoint in zip(tenants, subscriptions, endpoints, strict=True):
            missing = _awaited(endpoint, ids, within=90)
            assert not missing, f"{len(missing)} accepted events did not arrive"
            assert endpoint.counted().keys() == ids, "and nothing else did"
            eventually(
                lambda tenant=tenant, subscription=subscription: (  # type: ignore[misc]
                    len(tenant.deliveries(subscription, state="delivered", limit="200")) == len(ids)
                ),
                within=60,
                what="every delivery is recorded",
            )
        repeats = [sum(count - 1 for count in endpoint.counted().values()) for endpoint in endpoints]
        report(
            f"{len(ids)} events while each service was {how.verb} once: "
            f"{repeats} arrived again at the two endpoints; not accepted at once: {dict(flow.failures)}"
        )
        assert max(repeats) <= how.repeats, "only what was in hand may come again"
        eventually(lambda: _left_behind(stage) == 0, within=30, what="no message and no outbox row is left behind")


def test_a_worker_that_is_asked_to_stop_finishes_what_it_has_in_hand(stage: Stage) -> None:
    world = stage.world
    released = threading.Event()
    tenant, endpoint = stage.tenant(), stage.endpoint(Reply(200, after=released))
    subscription = tenant.subscribe(endpoint, "*", timeout_seconds=30)
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    with world.disturbed():
        try:
            receipt = stripe.send()
            endpoint.expect(1)
            so_far = world.log("worker").stat().st_size
            pid = world.signal("worker", signal.SIGTERM)
            eventually(
                lambda: any("stopping" in line for line in world.messages("worker", so_far)),
                within=10,
                what="the worker says that it stops",
            )
            assert is_running(pid), "it waits for the answer"
        finally:
            released.set()
        eventually(lambda: not is_running(pid), within=15, what="the worker has stopped")
        assert world.messages("worker", so_far)[-1] == "stopped"
        # Recorded by the process that is gone.
        delivery = tenant.delivery(subscription, receipt.event_id, "delivered")
        assert delivery["attempts_made"] == 1
    marker = stripe.send()
    endpoint.expect(1, event_id=marker.event_id, within=30)
    assert endpoint.counted()[receipt.event_id] == 1


def test_a_second_signal_ends_a_worker_at_once_and_the_attempt_is_made_again(stage: Stage) -> None:
    world = stage.world
    released = threading.Event()
    tenant, endpoint = stage.tenant(), stage.endpoint(Reply(200, after=released))
    subscription = tenant.subscribe(endpoint, "*", timeout_seconds=30)
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    with world.disturbed():
        receipt = stripe.send()
        endpoint.expect(1)
        so_far = world.log("worker").stat().st_size
        pid = world.signal("worker", signal.SIGTERM)
        eventually(
            lambda: any("stopping" in line for line in world.messages("worker", so_far)),
            within=10,
            what="the worker says that it stops",
        )
        world.signal("worker", signal.SIGTERM)
        eventually(lambda: not is_running(pid), within=5, what="the worker has stopped at once")
        released.set()

    arrivals = endpoint.expect(2, event_id=receipt.event_id, within=60)
    assert [arrival.event_id for arrival in arrivals] == [receipt.event_id] * 2
    tenant.delivery(subscription, receipt.event_id, "delivered")


def test_idle_services_stop_when_asked(stage: Stage) -> None:
    world = stage.world
    with world.disturbed():
        so_far = {service: world.log(service).stat().st_size for service in SERVICES}
        pids = {service: world.signal(service, signal.SIGTERM) for service in SERVICES}
        for service, pid in pids.items():
            eventually(lambda pid=pid: not is_running(pid), within=10, what=f"{service} has stopped")  # type: ignore[misc]
            assert world.messages(service, so_far[service])[-1] == "stopped"


def test_a_message_that_no_service_can_read_becomes_a_dead_letter(stage: Stage) -> None:
    before = {letter["id"] for letter in stage.operator.every("/v1/dead-letters", reason="undecodable")}

    for exchange, routing_key in (("posthorn.events", "event"), ("posthorn.deliveries", "s0")):
        stage.world.publish(exchange, routing_key, b"\xff\xff\xff\xff" + uuid.uuid4().bytes)

    def found() -> list[Json]:
        letters = list(stage.operator.every("/v1/dead-letters", reason="undecodable"))
        return [letter for letter in letters if letter["id"] not in before]

    eventually(lambda: len(found()) == 2, within=15, what="there are two dead letters more")
    for letter in found():
        assert (letter["delivery_id"], letter["event_id"], letter["tenant_id"]) == (None, None, None)
        stage.operator.refused(409, "conflict", "POST", f"/v1/dead-letters/{letter['id']}/replay", json={})


class Flow:
    """A provider that sends at a steady pace, and again what was not taken, under the same id."""

    SENDERS = 16

    def __init__(self, stripe: Stripe, *, per_second: float) -> None:
        self.accepted: dict[str, str] = {}
        self.failures: Counter[str] = Counter()
        self._stripe = stripe
        self._interval = 1 / per_second
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        # How many are sent at least, once that is known.
        self._enough: int | None = None
        self._abandoned = threading.Event()

    def __enter__(self) -> "Flow":
        self._began = time.monotonic()
        self._pool = futures.ThreadPoolExecutor(self.SENDERS, thread_name_prefix="provider")
        self._senders = [self._pool.submit(self._send) for _ in range(self.SENDERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._abandoned.set()
        self._pool.shutdown()

    def wait_for_more(self, events: int) -> None:
        """Until so many more are accepted than now."""
        goal = len(self.accepted) + events
        eventually(lambda: len(self.accepted) >= goal or self._ended(), within=120, what="events are accepted")

    def finish(self, at_least: int, *, within: float) -> dict[str, str]:
        """Our ids and Posthorn's of all that was sent, when all of it is accepted."""
        self._enough = at_least
        done, _ = futures.wait(self._senders, timeout=within, return_when=futures.FIRST_EXCEPTION)
        for sender in done:
            sender.result()
        assert len(done) == self.SENDERS, f"after {within:g} s some events are not accepted: {self.failures}"
        return dict(self.accepted)

    def _ended(self) -> bool:
        """Raises what ended a sender, so that nobody waits for it."""
        for sender in self._senders:
            if sender.done():
                sender.result()
        return False

    def _send(self) -> None:
        for number in self._numbers:
            if self._enough is not None and number >= self._enough:
                return
            # The pace, and not a wait for anything: event n is due n intervals after the beginning.
            if self._abandoned.wait(self._began + number * self._interval - time.monotonic()):
                return
            self._send_until_taken(stripe_event())

    def _send_until_taken(self, event: dict[str, object]) -> None:
        while not self._abandoned.is_set():
            answer = self._attempt(event)
            if answer == "200":
                return
            with self._lock:
                self.failures[answer] += 1
            # As a provider's pause before the next try.
            self._abandoned.wait(0.2)

    def _attempt(self, event: dict[str, object]) -> str:
        try:
            # Signed anew, as providers do.
            answer = self._stripe.post_event(event)
        except httpx.TransportError as error:
            return type(error).__name__
        # A provider takes these as final, and the event would be lost.
        assert not 400 <= answer.status_code < 500, f"answered {answer.status_code}: {answer.text}"
        if answer.status_code == 200:
            with self._lock:
                self.accepted[str(event["id"])] = answer.json()["event_id"]
        return str(answer.status_code)


def _insist(stripe: Stripe, event: dict[str, object]) -> str:
    """Sends again until the event is taken, as providers do; its id."""

    def taken() -> str | None:
        answer = stripe.post_event(event)
        return answer.json()["event_id"] if answer.status_code == 200 else None

    return str(eventually(taken, within=30, what="the gateway takes events again"))


def _awaited(endpoint: Endpoint, ids: set[str], *, within: float) -> set[str]:
    """Waits for the events to arrive; those that did not."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: endpoint.counted().keys() >= ids, within=within, what="all arrived")
    return ids - endpoint.counted().keys()


def _left_behind(stage: Stage) -> float:
    """Messages in the work queues and rows in the outbox."""
    total = 0.0
    for service, gauge in (("gateway", "posthorn_outbox_rows"), ("dispatcher", "posthorn_work_queue_messages")):
        found = re.search(rf"^{gauge} (\S+)$", stage.world.admin(service, "/metrics").text, re.MULTILINE)
        assert found, f"{service} does not tell {gauge}"
        total += float(found[1])
    return total


def _line(stage: Stage, service: str, dependency: str) -> str:
    """What `/readyz` says of a dependency."""
    lines = stage.world.admin(service, "/readyz").text.splitlines()
    return dict(line.split(": ", 1) for line in lines)[dependency]
