"""GitHub's own examples of its webhooks, each sent as a delivery of its own."""

import hashlib
import hmac
import json
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import generators
from .providers import Request, Source
from .stage import Stage, address_of, new_slug, to_tenant, wait_for_door
from .waiting import eventually

PINS = Path(__file__).parent / "github"


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Any]]:
    """Each with the name of its event, as the package `@octokit/webhooks-examples` has them."""
    directory = tmp_path_factory.mktemp("github")
    generators.npm_packages(directory, PINS)
    index = directory / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
    events = json.loads(index.read_text(encoding="utf-8"))
    return [(event["name"], example) for event in events for example in event["examples"]]


def test_each_example_is_a_new_event_of_the_right_type_with_an_equal_payload(
    stage: Stage, examples: list[tuple[str, Any]], report: Callable[[str], None]
) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*", max_in_flight=50)
    secret = "a secret of ours"
    view = stage.operator.create(
        "/v1/sources",
        {
            "slug": new_slug("github"),
            "provider": "github",
            "routing": to_tenant(tenant),
            "config": {"secrets": [secret]},
        },
    )
    github = Source(stage.gateway, view["id"], address_of(view), secret)
    wait_for_door(github)
    stage.wait_until_in_force()

    sent: dict[str, tuple[str, Any]] = {}
    bodies: Counter[bytes] = Counter()
    for name, example in examples:
        body = json.dumps(example, ensure_ascii=False).encode()
        bodies[body] += 1
        headers = {
            "content-type": "application/json",
            "x-github-event": name,
            "x-github-delivery": str(uuid.uuid4()),
            "x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        }
        receipt = github.sent(Request(body, headers))
        assert not receipt.duplicate, f"{name} is taken for a repeat"
        action = example.get("action")
        sent[receipt.event_id] = (name if action is None else f"{name}.{action}", example)

    assert len(sent) == len(examples) == 329
    eventually(lambda: len(endpoint.counted()) >= len(sent), within=30, what="all have arrived")
    for arrival in endpoint.arrivals:
        event_type, example = sent[arrival.event_id]
        body = arrival.verified(subscription.secret)
        assert (body["type"], body["data"]) == (event_type, example)
    equal = sum(count - 1 for count in bodies.values())
    report(f"GitHub's examples: {len(sent)} sent, all new; {equal} have the bytes of another")
    stage.operator.delete(f"/v1/sources/{github.id}")
