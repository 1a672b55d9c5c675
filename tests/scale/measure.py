#!/usr/bin/env python3
"""How long lists and stats take with a million deliveries in the database.

    source .local/env                                   # of a deployment that `deploy/local/up` started
    psql "$POSTHORN_DATABASE_URL" -f tests/scale/fill.sql   # once: 500,000 events, 1,000,000 deliveries of 30 days
    tests/scale/measure.py [SECONDS FOR EACH CALL]

The janitor adds up the days first: wait until `SELECT through FROM stats_days` says yesterday. It also reads refused
requests and dead letters whole, which would count here, so start the dispatcher anew without it:
`DISPATCHER_JANITOR__EVERY_SECONDS=86400 deploy/local/up`.

Asks 20 times a second, whether or not the answers keep up, and prints percentiles. Exits with 1 when a
call's p99 is over 50 ms, or when a large table was read from end to end meanwhile. Needs httpx and psql.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

PER_SECOND = 20
LIMIT_MS = 50.0
# Tables of which a whole read is a fault, with their partitions.
LARGE = "^(events|deliveries|attempts|dead_letters|rejected_requests|audit_log|delivery_stats|attempt_stats|event_stats)"


def whole_reads() -> dict[str, int]:
    """How often each large table was read from end to end, among those that have more than a few pages."""
    sql = (
        "SELECT relname, seq_scan FROM pg_stat_user_tables"
        f" WHERE relname ~ '{LARGE}' AND pg_relation_size(relid) > 10 * 8192"
    )
    psql = ["psql", os.environ["POSTHORN_DATABASE_URL"], "-XAtc", sql]
    rows = subprocess.run(psql, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: int(count) for name, count in (row.split("|") for row in rows)}


def calls(tenants: list[str], api: httpx.Client) -> list[tuple[str, str]]:
    """Names and paths. The first tenant has six tenths of everything, the third has hardly any dead ones."""
    big, other, few = tenants
    subscription = api.get("/v1/subscriptions", params={"tenant_id": big}).json()["data"][0]["id"]
    sources = [source["id"] for source in api.get("/v1/sources").json()["data"]]
    page = api.get("/v1/deliveries", params={"tenant_id": big, "limit": 1}).json()
    delivery, cursor = page["data"][0]["id"], page["next_cursor"]
    event = page["data"][0]["event_id"]
    old = (datetime.now(UTC) - timedelta(days=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    newer = (datetime.now(UTC) - timedelta(days=19)).strftime("%Y-%m-%dT%H:%M:%SZ")
    listed = []
    for scope in ["", f"tenant_id={big}", f"tenant_id={other}"]:
        listed += [f"/v1/deliveries?{scope}", f"/v1/events?{scope}", f"/v1/dead-letters?{scope}"]
        for state in ["held", "queued", "delivered", "dead", "cancelled"]:
            listed.append(f"/v1/deliveries?{scope}&state={state}")
        for pattern in ["kind0.act1", "kind0.*", "rare.type", "rare.*", "none.*"]:
            listed += [f"/v1/deliveries?{scope}&event_type={pattern}", f"/v1/events?{scope}&event_type={pattern}"]
        listed += [f"/v1/events?{scope}&source={source}" for source in sources[:2]]
        listed += [f"/v1/stats?{scope}", f"/v1/stats?{scope}&window_seconds=2419200"]
        listed += [f"/v1/audit-log?{scope}", f"/v1/rejected-requests?{scope}"]
    listed += [
        f"/v1/deliveries?tenant_id={few}&state=dead",
        f"/v1/deliveries?subscription_id={subscription}",
        f"/v1/deliveries?subscription_id={subscription}&state=dead",
        f"/v1/deliveries?subscription_id={subscription}&state=held",
        f"/v1/deliveries?subscription_id={subscription}&state=cancelled",
        f"/v1/deliveries?subscription_id={subscription}&event_type=rare.type",
        f"/v1/deliveries?tenant_id={big}&cursor={cursor}&limit=200",
        f"/v1/deliveries?tenant_id={big}&from={old}&to={newer}&state=dead",
        f"/v1/dead-letters?tenant_id={big}&reason=gone",
        f"/v1/dead-letters?subscription_id={subscription}",
        f"/v1/rejected-requests?source_id={sources[0]}&reason=stale",
        "/v1/events?routed=unrouted",
        f"/v1/deliveries/{delivery}",
        f"/v1/events/{event}",
        f"/v1/events/{event}/explain",
        f"/v1/subscriptions?tenant_id={big}",
        f"/v1/subscriptions/{subscription}/stats",
        f"/v1/subscriptions/{subscription}/stats?window_seconds=2419200",
        f"/v1/sources/{sources[0]}/stats?window_seconds=2419200",
        f"/v1/sources/{sources[0]}/health",
        "/v1/tenants",
    ]
    shown = {big: "BIG", other: "OTHER", few: "FEW", subscription: "SUB", event: "EVENT", delivery: "DELIVERY"}
    shown |= {source: f"SOURCE{number}" for number, source in enumerate(sources)}

    def name(path: str) -> str:
        for id, short in shown.items():
            path = path.replace(id, short)
        return path.split("&cursor")[0]

    return [(name(path), path.replace("?&", "?").rstrip("?")) for path in listed]


async def ask(client: httpx.AsyncClient, path: str, seconds: float) -> list[float]:
    """Milliseconds to the whole answer, of each request."""
    taken: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        response = await client.get(path)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
        taken.append((time.perf_counter() - began) * 1000)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(int(seconds * PER_SECOND)):
            tasks.create_task(one())
            await asyncio.sleep(1 / PER_SECOND)
    return taken


async def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    options: dict[str, Any] = {
        "base_url": os.environ["POSTHORN_API_URL"],
        "headers": {"authorization": f"Bearer {os.environ['POSTHORN_OPERATOR_TOKEN']}"},
        "trust_env": False,
        "timeout": 30,
    }
    with httpx.Client(**options) as api:
        tenants = [api.get("/v1/tenants", params={"external_id": f"scale-{n}"}).json()["data"][0]["id"] for n in (1, 2, 3)]
        wanted = calls(tenants, api)
    before = whole_reads()
    slow = 0
    everything: list[float] = []
    async with httpx.AsyncClient(**options) as client:
        for name, path in wanted:
            taken = await ask(client, path, seconds)
            everything += taken
            p50, p99 = statistics.median(taken), sorted(taken)[int(len(taken) * 0.99) - 1]
            slow += p99 > LIMIT_MS
            print(f"{p50:8.1f} {p99:8.1f} {max(taken):8.1f} ms  {name}{'   SLOW' if p99 > LIMIT_MS else ''}", flush=True)
    # Statistics of the tables come a moment late.
    await asyncio.sleep(2)
    read = {name: count - before.get(name, 0) for name, count in whole_reads().items() if count > before.get(name, 0)}
    p99 = sorted(everything)[int(len(everything) * 0.99) - 1]
    print(f"{len(wanted)} calls, {len(everything)} requests, p50 {statistics.median(everything):.1f} ms, p99 {p99:.1f} ms")
    print(f"{slow} calls over {LIMIT_MS:.0f} ms at p99; tables read from end to end: {read or 'none'}")
    return 1 if slow or read else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
