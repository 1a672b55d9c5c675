"""What one endpoint or one tenant does costs the others nothing that they would notice."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .load import Basin, Sink, pour, scaled, share, trickle
from .memory import MIB, Memory
from .providers import Internal
from .stage import Stage, to_tenant
from .tenants import Subscription

# Subscriptions that get each event; one of them hangs, which is 5 % of the deliveries.
FAN_OUT = 20
DELIVERIES = scaled(2000, 20_000)
HANGS_SECONDS = 15.0

# How much longer the others may take. With few of them, what else the machine does weighs more than what is measured;
# were one kept waiting by an answer that hangs, they would take many times as long.
LONGER = scaled(2.0, 1.3)

FLOOD = scaled(3000, 50_000)
# From the door to the endpoint, for 99 of 100.
WAITS_SECONDS = 1.0
# On a machine that is busy, in parts of the time that the flood takes: behind it, the last would wait for half of it.
WAITS_PART = scaled(1 / 3, 0.0)

# What hundreds of attempts under way, and thousands of messages in hand, may take beside what it takes at rest.
FLAT = 96 * MIB


@pytest.fixture
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.close()


# What a subscription has unless it asks for something else, and the most that it may ask for.
@pytest.mark.parametrize("max_in_flight", [8, 100], ids=lambda number: f"{number}_in_flight")
def test_an_endpoint_that_hangs_does_not_keep_the_others_waiting(
    stage: Stage, sink: Sink, report: Callable[[str], None], max_in_flight: int
) -> None:
    tenant, events = stage.tenant(), DELIVERIES // FAN_OUT
    basins = [sink.basin() for _ in range(FAN_OUT - 1)]
    hanging = sink.basin(HANGS_SECONDS)
    for basin in basins:
        tenant.subscribe(basin.url, "alone", "together", "warm")
    subscription = tenant.subscribe(hanging.url, "together", timeout_seconds=30, max_in_flight=max_in_flight)
    source = stage.internal(to_tenant(tenant))
    stage.wait_until_in_force()
    needed = Needed(sink, source, basins)
    needed.seconds("warm", events // 4)

    with Memory(stage.world, "worker") as alone:
        before = needed.seconds("alone", events)
    with Memory(stage.world, "worker") as together:
        meanwhile = needed.seconds("together", events)
    met = len(hanging.arrivals)
    tenant.api.delete(subscription.path)
    after = needed.seconds("alone", events)

    usual = (before + after) / 2
    report(
        f"{events * (FAN_OUT - 1)} healthy deliveries: {before:.1f} s and {after:.1f} s alone, {meanwhile:.1f} s "
        f"({meanwhile / usual:.2f} times) beside {events} to an endpoint that hangs, which was asked {met} times; "
        f"the worker had {alone.peak / MIB:.0f} MiB and {together.peak / MIB:.0f} MiB"
    )
    assert met > 0, "it was asked"
    assert meanwhile <= usual * LONGER
    assert together.peak - alone.peak < FLAT


def test_a_tenant_that_floods_does_not_keep_another_waiting(
    stage: Stage, sink: Sink, report: Callable[[str], None]
) -> None:
    loud, quiet = stage.tenant(), stage.tenant()
    flooded, served = sink.basin(), sink.basin()
    flooding = loud.subscribe(flooded.url, "flood", max_in_flight=100)
    # In the flood's own queue: seven of eight stand in another, and see nothing of it.
    while _queue(dropping := quiet.subscribe(served.url, "drop")) != _queue(flooding):
        quiet.api.delete(dropping.path)
    flood, drops = stage.internal(to_tenant(loud)), stage.internal(to_tenant(quiet))
    stage.wait_until_in_force()

    is_over = threading.Event()
    with Memory(stage.world, "worker") as memory, ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        sending = pool.submit(sink.run, trickle(drops, "drop", per_second=10, until=is_over.is_set))
        try:
            accepted = sink.run(pour(flood, "flood", FLOOD, connections=64))
            accepted_in = time.monotonic() - began
            flooded.wait(FLOOD, within=FLOOD / 20)
        finally:
            is_over.set()
        arrived_in = flooded.arrivals[-1][1] - began
        dropped = sending.result()
        served.wait(len(dropped), within=30)

    door = {sent.event_id: sent.accepted for sent in dropped}
    # The request may arrive before the answer at the door has been read.
    waits = [max(0.0, at - door[event_id]) for event_id, at in served.arrivals]
    taken = [sent.accepted - sent.began for sent in dropped]
    report(
        f"a flood of {len(accepted)} events, accepted in {accepted_in:.1f} s and delivered in {arrived_in:.1f} s: "
        f"beside it {len(waits)} of another tenant waited p50 {share(waits, 0.5) * 1000:.0f} ms, "
        f"p99 {share(waits, 0.99) * 1000:.0f} ms, at most {max(waits) * 1000:.0f} ms; the door took p99 "
        f"{share(taken, 0.99) * 1000:.0f} ms; the worker grew by {memory.growth / MIB:.0f} MiB"
    )
    assert share(waits, 0.99) < max(WAITS_SECONDS, arrived_in * WAITS_PART)
    assert memory.growth < FLAT


def _queue(subscription: Subscription) -> int:
    """Which of the eight queues its deliveries stand in: by the last byte of its id."""
    return int(subscription.id[-2:], 16) % 8


class Needed:
    """How long it takes until so many events have arrived at each of the healthy endpoints."""

    def __init__(self, sink: Sink, source: Internal, basins: list[Basin]) -> None:
        self._sink, self._source, self._basins = sink, source, basins

    def seconds(self, event_type: str, events: int) -> float:
        so_far = [len(basin.arrivals) for basin in self._basins]
        began = time.monotonic()
        self._sink.run(pour(self._source, event_type, events))
        for basin, before in zip(self._basins, so_far, strict=True):
            basin.wait(before + events, within=60 + events / 10)
        return max(basin.arrivals[-1][1] for basin in self._basins) - began
