"""A compliance product's customer, from the first key to the history: the walk that docs/receivers.md describes.

What the page shows is what is done here: its request makes the subscription, and its lines verify what arrives.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from .client import Client, Json
from .receiver import Arrival, Endpoint, Reply
from .stage import Stage
from .tenants import Subscription, Tenant
from .waiting import eventually
from .world import ROOT, World

CATALOGUE = "deploy/catalogues/compliance-saas.yaml"
PAGE = ROOT / "docs/receivers.md"
RUN_SECONDS = 60

# 1 minute, 5, 15, an hour and two; each may come a fifth sooner or later.
SCHEDULE = [60, 300, 900, 3600, 7200]
JITTER = 0.2
# From the start of an attempt, which is what is shown, to its end, from which the delay counts.
ATTEMPT_SECONDS = 5.0

# The lines of the page, and what asks them: whether a signature is that of the body, by the exit code.
ASKING = {
    "python": (
        "genuine.py",
        "import sys\n\nsys.exit(not is_genuine(sys.argv[1], sys.argv[2], sys.stdin.buffer.read()))\n",
        "python3",
    ),
    "js": (
        "genuine.mjs",
        'import { readFileSync } from "node:fs";\n\n'
        "process.exit(isGenuine(process.argv[2], process.argv[3], readFileSync(0)) ? 0 : 1);\n",
        "node",
    ),
}

IsGenuine = Callable[[str, str, bytes], bool]


@pytest.fixture
def catalogue(world: World, operator: Client) -> Iterator[dict[str, Json]]:
    """The entries of the product's catalogue, by name, after the operator loaded it."""
    done = world.posthorn("event-types", "apply", CATALOGUE)
    assert done.returncode == 0, done.stderr
    entries = yaml.safe_load((ROOT / CATALOGUE).read_text(encoding="utf-8"))["event_types"]
    yield {entry["name"]: entry for entry in entries}
    for entry in entries:
        operator.delete(f"/v1/event-types/{entry['name']}")


@pytest.fixture(params=ASKING)
def is_genuine(request: pytest.FixtureRequest, tmp_path: Path) -> IsGenuine:
    """The page's own lines in a language, if that is on this machine."""
    name, asking, tool = ASKING[request.param]
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not on this machine")
    (lines,) = blocks(request.param)
    assert sum(1 for line in lines.splitlines() if line) <= 10, "ten lines are promised"
    program = tmp_path / name
    program.write_text(f"{lines}\n\n{asking}", encoding="utf-8")

    def asked(secret: str, signature: str, body: bytes) -> bool:
        command = [tool, str(program), secret, signature]
        run = subprocess.run(command, input=body, capture_output=True, timeout=RUN_SECONDS, check=False)
        assert run.returncode in (0, 1) and run.stderr == b"", run
        return run.returncode == 0

    return asked


def test_a_compliance_customer_gets_all_that_the_page_promises(
    stage: Stage, catalogue: dict[str, Json], is_genuine: IsGenuine
) -> None:
    began = now()
    # The operator: a tenant that the product calls by its own name, a key for it, and the product's door.
    tenant = stage.tenant()
    product = stage.internal({"kind": "pointer", "pointer": "/organization_id"})
    shown = {entry["name"]: entry for entry in tenant.api.every("/v1/event-types")}
    assert shown.keys() >= catalogue.keys()
    assert shown["api_key.revoked"]["sample"] == catalogue["api_key.revoked"]["sample"]

    endpoint = stage.endpoint()
    subscription = subscribe(tenant, endpoint)
    stage.wait_until_in_force()

    def happens(event_type: str) -> tuple[str, Json]:
        payload = catalogue[event_type]["sample"] | {"organization_id": tenant.external_id}
        return product.send(event_type, payload).event_id, payload

    # Something happens, and the customer can tell that it is true.
    delivered, payload = happens("api_key.revoked")
    (arrival,) = endpoint.expect(1)
    assert said(arrival) == ("api_key.revoked", payload)
    assert_is_genuine(arrival, subscription, is_genuine)
    tenant.delivery(subscription, delivered, "delivered")

    # What was not asked for does not come.
    unwanted, _ = happens("ticket.created")

    # The receiver fails, and the schedule is kept to its end.
    endpoint.answer_from_now_on(Reply(500))
    failed, _ = happens("invoice.overdue")
    assert_the_schedule_is_kept(tenant, subscription, failed)
    letter = tenant.dead_letter(subscription)
    assert (letter["event_id"], letter["reason"]) == (failed, "exhausted")

    # It is mended, and tried before anything happens.
    endpoint.answer_from_now_on(Reply(204))
    before = len(endpoint.arrivals)
    tested = try_it(tenant, subscription)
    (trial,) = endpoint.arrivals[before:]
    assert trial.headers["webhook-test"] == "true"
    assert said(trial) == ("api_key.revoked", catalogue["api_key.revoked"]["sample"])
    assert_is_genuine(trial, subscription, is_genuine)

    # What comes after it is counted, and so it would be, if it were.
    last, _ = happens("invoice.paid")
    endpoint.expect(1, event_id=last)
    tenant.delivery(subscription, last, "delivered")
    sent = [last, failed, delivered]
    attempts = [1, 1 + len(SCHEDULE), 1]
    assert_counted(tenant, subscription, delivered=2, failed=1, attempts=sum(attempts), received=4)
    assert "webhook-test" not in endpoint.arrivals[-1].headers

    # The history of thirty days has what happened and what was sent, and no trial.
    month = {"from": stamp(began - timedelta(days=30)), "to": stamp(now() + timedelta(seconds=1))}
    events = [event["id"] for event in tenant.api.every("/v1/events", **month)]
    assert events == [last, failed, unwanted, delivered]
    deliveries = list(tenant.api.every("/v1/deliveries", subscription_id=subscription.id, **month))
    assert [delivery["event_id"] for delivery in deliveries] == sent
    assert [delivery["attempts_made"] for delivery in deliveries] == attempts
    earlier = month | {"to": stamp(began - timedelta(seconds=1))}
    for path in ("/v1/events", "/v1/deliveries"):
        assert list(tenant.api.every(path, **earlier)) == []
    tenant.api.refused(404, "not-found", "GET", f"/v1/events/{tested['webhook_id']}")


# --- the steps ---


def subscribe(tenant: Tenant, endpoint: Endpoint) -> Subscription:
    """With the page's own request, but for where to."""
    asked = request_on_the_page("/v1/subscriptions") | {"url": endpoint.url}
    created = tenant.api.create("/v1/subscriptions", asked)
    subscription = Subscription(created["id"], created["secret"], created)

    plain = {"scheme": "hmac_sha256", "header": "X-SecureBase-Signature", "encoding": "hex", "prefix": ""}
    assert plain in created["signatures"]
    assert (created["payload_format"], created["event_types"]) == ("event", asked["event_types"])
    assert created["retry_policy"]["kind"] == "schedule"
    assert created["retry_policy"]["delays_seconds"] == SCHEDULE
    assert created["timeout_seconds"] == 10
    # Once, and never again.
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{32}", subscription.secret)
    for path in (subscription.path, "/v1/subscriptions"):
        answer = tenant.api.expect(200, "GET", path)
        assert subscription.id in answer.text
        assert subscription.secret not in answer.text and '"secret"' not in answer.text
    assert tenant.api.get(subscription.path)["retry_policy"] == created["retry_policy"]
    return subscription


def assert_is_genuine(arrival: Arrival, subscription: Subscription, is_genuine: IsGenuine) -> None:
    signature = arrival.headers["x-securebase-signature"]
    assert re.fullmatch("[0-9a-f]{64}", signature)
    assert is_genuine(subscription.secret, signature, arrival.body)
    assert not is_genuine(subscription.secret, signature, arrival.body + b" "), "not one byte more"
    assert not is_genuine(subscription.secret + "A", signature, arrival.body)
    assert not is_genuine(subscription.secret, "", arrival.body)
    assert not is_genuine("", signature, arrival.body)
    arrival.verified(subscription.secret)


def assert_the_schedule_is_kept(tenant: Tenant, subscription: Subscription, event_id: str) -> None:
    """A minute is planned after the first failure; and so on, with an attempt by hand in place of each wait."""
    for number, planned in enumerate(SCHEDULE, start=1):
        delivery = eventually(
            lambda: held_after(number, tenant, subscription, event_id),
            within=15,
            what=f"attempt {number} failed and another is planned",
        )
        last = delivery["attempts"][-1]
        assert (last["status_code"], last["error"].split(":")[0]) == (500, "status")
        waits = (moment(delivery["due_at"]) - moment(last["started_at"])).total_seconds()
        assert planned * (1 - JITTER) <= waits <= planned * (1 + JITTER) + ATTEMPT_SECONDS, f"after attempt {number}"
        tenant.api.order(f"/v1/deliveries/{delivery['id']}/retry")
    dead = tenant.delivery(subscription, event_id, "dead")
    assert [attempt["status_code"] for attempt in dead["attempts"]] == [500] * (1 + len(SCHEDULE))


def held_after(number: int, tenant: Tenant, subscription: Subscription, event_id: str) -> Json:
    delivery = tenant.delivery(subscription, event_id, "held")
    assert (delivery["held_reason"], delivery["attempts_made"]) == ("retry", number), delivery
    return delivery


def try_it(tenant: Tenant, subscription: Subscription) -> Json:
    asked = request_on_the_page("/v1/subscriptions/sub_…/test")
    tested = tenant.api.expect(200, "POST", f"{subscription.path}/test", json=asked).json()
    assert (tested["success"], tested["status_code"]) == (True, 204), tested
    return tested


def assert_counted(tenant: Tenant, subscription: Subscription, **expected: int) -> None:
    """Every statistic there is says so, when those that may be a little late are true."""

    def counted() -> bool:
        whole = tenant.api.get(subscription.path)["stats"]
        of_it = tenant.api.get(f"{subscription.path}/stats")
        overall = tenant.api.get("/v1/stats")
        ends = {"delivered": expected["delivered"], "failed": expected["failed"]}
        assert {name: whole[name] for name in ends} == ends, whole
        for stats in (of_it, overall["deliveries"]):
            assert {name: stats[name] for name in ends} == ends, stats
            assert stats["attempts"] == expected["attempts"], stats
        assert overall["received"]["total"] == expected["received"], overall
        return True

    eventually(counted, within=15, what="the statistics are true")


# --- the page ---


def section() -> str:
    page = PAGE.read_text(encoding="utf-8")
    return page.split("\n## A compliance SaaS, step by step\n")[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", section(), re.DOTALL | re.MULTILINE)


def request_on_the_page(path: str) -> dict[str, Any]:
    """The body of the request that the section shows to this path."""
    found = re.search(rf"\$POSTHORN_API_URL{re.escape(path)} (?:\\\n *)?-d '(.*?)'", section(), re.DOTALL)
    assert found is not None, f"the page shows no request to {path}"
    body: dict[str, Any] = json.loads(found[1])
    return body


def said(arrival: Arrival) -> tuple[str, Json]:
    body = json.loads(arrival.body)
    assert body.keys() == {"event", "timestamp", "data"}
    return body["event"], body["data"]


def now() -> datetime:
    return datetime.now(UTC)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
