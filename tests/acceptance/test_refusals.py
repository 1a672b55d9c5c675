"""What the gateway does not take."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from .providers import Stripe, new_stripe_secret, stripe_event
from .stage import Stage, to_tenant
from .waiting import eventually


@dataclass(frozen=True)
class Refused:
    """A request that is refused, and how."""

    name: str
    status: int
    problem: str
    # From the source and a good body, the request's headers and body.
    request: Callable[[Stripe, str], tuple[dict[str, str], str]]
    # Of the source.
    fields: dict[str, Any] = field(default_factory=dict)


def headers(signature: str) -> dict[str, str]:
    return {"content-type": "application/json", "stripe-signature": signature}


def v0_only(stripe: Stripe, body: str) -> tuple[dict[str, str], str]:
    return headers(stripe.headers(body)["stripe-signature"].replace("v1=", "v0=")), body


SIGNED = "signature-invalid"
CASES = [
    Refused("another secret", 401, SIGNED, lambda s, b: (s.headers(b, secret=new_stripe_secret()), b)),
    Refused("stale", 401, SIGNED, lambda s, b: (s.headers(b, at=int(time.time()) - 310), b)),
    Refused("body changed", 401, SIGNED, lambda s, b: (s.headers(b), b.replace("4200", "4201"))),
    Refused("no signature", 401, SIGNED, lambda s, b: ({"content-type": "application/json"}, b)),
    Refused("empty signature", 401, SIGNED, lambda s, b: (headers(""), b)),
    Refused("garbled signature", 401, SIGNED, lambda s, b: (headers("of course it is me"), b)),
    Refused("garbled time", 401, SIGNED, lambda s, b: (headers("t=today,v1=" + "0" * 64), b)),
    Refused("v0 only", 401, SIGNED, v0_only),
    Refused("not JSON", 400, "malformed-request", lambda s, b: (s.headers(b[:-1]), b[:-1])),
    Refused("too large", 413, "payload-too-large", lambda s, b: (s.headers(b), b), {"max_body_bytes": 100}),
    Refused("address", 403, "address-not-allowed", lambda s, b: (s.headers(b), b), {"allowed_ips": ["10.0.0.0/8"]}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_refused_request_is_named_delivered_to_nobody_and_uses_up_no_key(stage: Stage, case: Refused) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "*")
    strict = stage.stripe(to_tenant(tenant), **case.fields)
    stage.wait_until_in_force()
    event = stripe_event()
    body = json.dumps(event)

    given, content = case.request(strict, body)
    answer = strict.post(content.encode(), given)

    assert (answer.status_code, answer.json()["type"]) == (case.status, f"/problems/{case.problem}")
    # What the source refused for its own settings, it takes without them.
    lift: dict[str, Any] = {"max_body_bytes": None} if "max_body_bytes" in case.fields else {"allowed_ips": []}
    stage.operator.change(f"/v1/sources/{strict.id}", lift)
    accepted = eventually(
        lambda: answer if (answer := strict.post_event(event)).status_code == 200 else None,
        within=5,
        what="the event is taken when nothing is wrong with it",
    )
    assert accepted is not None and accepted.json()["duplicate"] is False
    endpoint.expect(1)
    assert len(list(tenant.api.every("/v1/events"))) == 1
    assert len(list(tenant.api.every("/v1/deliveries"))) == 1


def test_a_wrong_a_stale_and_a_missing_signature_are_told_apart(stage: Stage) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    body = json.dumps(stripe_event())
    wrong = stripe.headers(body, secret=new_stripe_secret())
    stale = stripe.headers(body, at=int(time.time()) - 3600)

    answers = [stripe.post(body.encode(), given) for given in (wrong, stale, {})]

    assert len({answer.json()["detail"] for answer in answers}) == 3


def test_several_signatures_pass_when_one_of_them_is_good(stage: Stage) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    body = json.dumps(stripe_event())
    good = stripe.headers(body)["stripe-signature"]
    time_, signature = good.split(",")

    answer = stripe.post(body.encode(), headers(f"{time_},v1={'0' * 64},{signature},v0={'1' * 64}"))

    assert answer.status_code == 200


def test_a_signature_within_its_tolerance_passes(stage: Stage) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    body = json.dumps(stripe_event())

    answer = stripe.post(body.encode(), stripe.headers(body, at=int(time.time()) - 290))

    assert answer.status_code == 200


def test_while_secrets_change_both_sign(stage: Stage) -> None:
    old, new = new_stripe_secret(), new_stripe_secret()
    stripe = stage.stripe(to_tenant(stage.tenant()), config={"secrets": [new, old]})
    stage.wait_until_in_force()

    for secret in (new, old):
        body = json.dumps(stripe_event())
        assert stripe.post(body.encode(), stripe.headers(body, secret=secret)).status_code == 200


@pytest.mark.parametrize("config", [{}, {"secrets": []}], ids=str)
def test_a_source_that_could_verify_nothing_is_refused(stage: Stage, config: dict[str, Any]) -> None:
    body = {"provider": "stripe", "routing": to_tenant(stage.tenant()), "config": config}

    problem = stage.operator.refused(422, "validation-failed", "POST", "/v1/sources", json=body)

    assert problem["errors"][0]["pointer"] == "/config/secrets"


def test_an_address_without_a_source_is_unknown(stage: Stage) -> None:
    stage.gateway.refused(404, "unknown-source", "POST", "/webhooks/nobody", content=b"{}")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_webhooks_come_by_post(stage: Stage, method: str) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()))
    stage.wait_until_in_force()

    problem = stage.gateway.refused(405, "method-not-allowed", method, f"/webhooks/{stripe.address}")

    assert problem["status"] == 405


def test_a_body_above_the_deployments_limit_is_too_large(stage: Stage) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    body = json.dumps(stripe_event(data={"object": {"filler": "x" * (1 << 20)}}))

    answer = stripe.post(body.encode(), stripe.headers(body))

    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/payload-too-large")


def test_a_body_of_unknown_length_is_counted_as_it_comes(stage: Stage) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()), max_body_bytes=1000)
    stage.wait_until_in_force()

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    problem = stage.gateway.refused(413, "payload-too-large", "POST", f"/webhooks/{stripe.address}", content=chunks())

    assert problem["status"] == 413


def test_a_source_takes_no_more_a_second_than_its_rate(stage: Stage) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()), rate_limit={"per_second": 2})
    stage.wait_until_in_force()

    answers = [stripe.post_event(stripe_event()) for _ in range(10)]

    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused, [answer.status_code for answer in answers]
    assert {answer.json()["type"] for answer in refused} == {"/problems/rate-limited"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)


def test_a_source_answers_what_its_provider_wants(stage: Stage) -> None:
    response = {"status": 202, "content_type": "text/xml", "body": "<Response/>"}
    stripe = stage.stripe(to_tenant(stage.tenant()), response=response)
    stage.wait_until_in_force()

    answer = stripe.post_event(stripe_event())

    assert (answer.status_code, answer.text) == (202, "<Response/>")
    assert answer.headers["content-type"].startswith("text/xml")


def test_a_deleted_source_is_unknown_and_its_events_stay(stage: Stage) -> None:
    tenant = stage.tenant()
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()

    stage.operator.delete(f"/v1/sources/{stripe.id}")

    eventually(lambda: stripe.post_event(stripe_event()).status_code == 404, within=5, what="the source is unknown")
    assert tenant.api.get(f"/v1/events/{receipt.event_id}")["source_id"] == stripe.id
