"""Endpoints that are broken or mean harm: each costs one attempt, and nobody else notices."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .client import Json
from .hostile import (
    Conduct,
    HostileEndpoint,
    claims_ten_gigabytes,
    closes_in_its_body,
    closes_in_its_head,
    drips_its_body,
    drips_its_head,
    never_ends_its_head,
    redirects_to_itself,
    says_nothing,
    sends_a_bomb,
    speaks_garbage,
    streams_ten_gigabytes,
)
from .memory import MIB, Memory
from .stage import Stage, to_tenant
from .tenants import Subscription, Tenant, quick_retries

# Of each attempt, in seconds, and how much later it may be recorded that it took too long.
TIMEOUT = 2
GRACE = 2.0

# What a handful of answers of 64 KiB and the allocator may take: the answers themselves are gigabytes.
FLAT = 48 * MIB

# A healthy endpoint is served at once; this allows for a machine that is busy with hostile ones, and is less than
# it would take to wait for two of them to be given up.
PROMPTLY = 1.5 * TIMEOUT


@dataclass(frozen=True)
class Verdict:
    """What an attempt comes to: the status that it was answered with, and the codes of its error."""

    status: int | None
    codes: tuple[str, ...] = ()


TIMED_OUT = Verdict(None, ("timeout",))
NO_HTTP = Verdict(None, ("protocol_error",))
ACCEPTED = Verdict(200)

# An answer counts by its status as soon as 64 KiB of it are read; one that breaks off before is none.
HOSTILE: dict[Conduct, Verdict] = {
    says_nothing: TIMED_OUT,
    drips_its_head: TIMED_OUT,
    drips_its_body: TIMED_OUT,
    never_ends_its_head: Verdict(None, ("protocol_error", "timeout")),
    claims_ten_gigabytes: ACCEPTED,
    streams_ten_gigabytes: ACCEPTED,
    # It is not unpacked, and nobody asked for it to be packed.
    sends_a_bomb: ACCEPTED,
    closes_in_its_head: NO_HTTP,
    closes_in_its_body: NO_HTTP,
    speaks_garbage: NO_HTTP,
    redirects_to_itself: Verdict(307, ("redirect",)),
}


@contextmanager
def besieged(tenant: Tenant, event_type: str) -> Iterator[dict[Conduct, tuple[HostileEndpoint, Subscription]]]:
    """A tenant with one of each of them, and no second try for any."""
    endpoints = {conduct: HostileEndpoint(conduct) for conduct in HOSTILE}
    try:
        yield {
            conduct: (
                endpoint,
                tenant.subscribe(
                    endpoint.url, event_type, timeout_seconds=TIMEOUT, retry_policy=quick_retries(1), max_in_flight=4
                ),
            )
            for conduct, endpoint in endpoints.items()
        }
    finally:
        for endpoint in endpoints.values():
            endpoint.close()


def test_a_hostile_endpoint_costs_one_attempt_and_no_more_than_its_timeout(
    stage: Stage, report: Callable[[str], None]
) -> None:
    tenant = stage.tenant()
    internal = stage.internal(to_tenant(tenant))
    with besieged(tenant, "hostile") as hostile:
        stage.wait_until_in_force()

        with Memory(stage.world, "worker") as memory:
            event_id = internal.send("hostile").event_id
            ended = {
                conduct: tenant.delivery(
                    subscription, event_id, "delivered" if HOSTILE[conduct] is ACCEPTED else "dead", within=20
                )
                for conduct, (_, subscription) in hostile.items()
            }

        for conduct, delivery in ended.items():
            name, verdict = conduct.__name__, HOSTILE[conduct]
            (attempt,) = delivery["attempts"]
            assert hostile[conduct][0].requests == 1, f"{name}: one request, and no other on the quiet"
            assert attempt["status_code"] == verdict.status, f"{name}: {attempt}"
            assert code(attempt) in (verdict.codes or (None,)), f"{name}: {attempt}"
            assert attempt["response_time_ms"] <= (TIMEOUT + GRACE) * 1000, f"{name}: {attempt}"
            assert len(attempt["response"] or "") <= 1000, name
        report(f"{len(ended)} hostile endpoints, one event: the worker grew by {memory.growth / MIB:.1f} MiB")
        assert memory.growth < FLAT


def test_while_hostile_endpoints_are_served_another_tenants_is_served_promptly(
    stage: Stage, report: Callable[[str], None]
) -> None:
    tenant, other = stage.tenant(), stage.tenant()
    endpoint = stage.endpoint()
    other.subscribe(endpoint, "healthy")
    hostile_source, source = stage.internal(to_tenant(tenant)), stage.internal(to_tenant(other))
    with besieged(tenant, "hostile") as hostile:
        stage.wait_until_in_force()
        flood = threading.Thread(target=lambda: [hostile_source.send("hostile") for _ in range(40)])

        accepted: dict[str, float] = {}
        with Memory(stage.world, "worker") as memory:
            flood.start()
            began = time.monotonic()
            for number in itertools.count():
                # The pace, ten a second, for three timeouts.
                due = began + number * 0.1
                if due > began + 3 * TIMEOUT:
                    break
                time.sleep(max(0.0, due - time.monotonic()))
                accepted[source.send("healthy").event_id] = time.monotonic()
            flood.join()
            arrivals = endpoint.expect(len(accepted), within=30)

        # What one waited for: from the answer at the door to the request at the endpoint, which may be the earlier.
        waits = sorted(arrival.at - accepted[arrival.event_id] for arrival in arrivals)
        met = sum(endpoint.requests for endpoint, _ in hostile.values())
        report(
            f"{met} requests to hostile endpoints meanwhile: {len(waits)} healthy ones waited "
            f"{waits[len(waits) // 2] * 1000:.0f} ms in the middle, {waits[-1] * 1000:.0f} ms at most; "
            f"the worker grew by {memory.growth / MIB:.1f} MiB"
        )
        assert met >= 2 * len(hostile), "they were busy"
        assert waits[-1] < PROMPTLY
        assert memory.growth < FLAT


def code(attempt: Json) -> str | None:
    """The code with which its error begins."""
    return None if attempt["error"] is None else str(attempt["error"]).partition(":")[0]
