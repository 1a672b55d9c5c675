"""Input that nobody writes by mistake: answered as what it is, and harmful to nobody else."""

import json
from typing import Any

import pytest

from .client import Json
from .providers import stripe_event
from .receiver import Reply
from .stage import Stage, to_account, to_tenant
from .tenants import quick_retries

HOOKS = "http://127.0.0.1:9/hooks"

NESTED = json.loads("[" * 500 + "]" * 500)

EVENTS: dict[str, dict[str, Any]] = {
    "NUL in the id": {"id": "evt_\0"},
    "an id without end": {"id": "evt_" + "x" * 100_000},
    "an id that is no text": {"id": {"evt": 1}},
    "no id": {"id": None},
    "NUL in the type": {"type": "invoice.\0paid"},
    "a type without end": {"type": "invoice." + "x" * 10_000},
    "a type that is no type": {"type": "../../ invoice paid; DROP TABLE events"},
    "the type of an operational event": {"type": "posthorn.delivery.exhausted"},
    "no type": {"type": None},
    "NUL in the account": {"account": "acct_\0"},
    "an account that is no text": {"account": ["acct"]},
    "a time that never was": {"created": 10**30},
    "a negative time": {"created": -1},
    "a time that is no time": {"created": "yesterday"},
    "a lone surrogate": {"data": {"object": "\ud800"}},
    "NUL in the data": {"data": {"object": "\0"}},
    "deep nesting": {"data": NESTED},
    "a number without end": {"data": {"object": 10**4000}},
}


@pytest.mark.parametrize("fields", EVENTS.values(), ids=EVENTS.keys())
def test_no_event_makes_the_gateway_fail_or_stops_the_next(stage: Stage, fields: dict[str, Any]) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "invoice.paid")
    stripe = stage.stripe(to_account())
    stage.wait_until_in_force()

    answer = stripe.post_event(stripe_event() | {"account": tenant.external_id} | fields)

    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        stage.operator.get(f"/v1/events/{answer.json()['event_id']}")
    stage.operator.get("/v1/events", source=stripe.address)
    receipt = stripe.send("invoice.paid", account=tenant.external_id)
    endpoint.expect(1, event_id=receipt.event_id)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"evt_1"', b"\xff\xfe", b"{}", b'{"id": "evt_1"} {}', b"\0"])
def test_a_signed_body_that_is_no_event_is_taken_or_refused(stage: Stage, body: bytes) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    # As text, since Stripe's library signs text. What is no UTF-8 cannot be signed by it, and is 401.
    headers = stripe.headers(body.decode("utf-8", "replace"))

    answer = stripe.post(body, headers)

    assert answer.status_code in (200, 400, 401), answer.text


FIELDS: list[tuple[str, Json]] = [
    ("name", "a\0b"),
    ("name", "two\nlines"),
    ("name", "x" * 201),
    ("description", "\0"),
    ("url", "http://127.0.0.1:9/\0"),
    ("url", "http://127.0.0.1:99999/"),
    ("url", "http://127.0.0.1:9/" + "x" * 3000),
    # What browsers take for a URL, by leaving some of it out or writing it anew.
    ("url", "http:///127.0.0.1/hooks"),
    ("url", "http:127.0.0.1/hooks"),
    ("url", "http:\\\\127.0.0.1\\hooks"),
    ("url", " http://127.0.0.1:9/hooks"),
    ("url", "http://127.0.0.1:9/ho\noks"),
    ("url", "http://127.0.0.1:9/two words"),
    ("url", "http://ex\u00e4mple.com/"),
    ("url", "javascript:alert(1)"),
    ("event_types", ["*"] * 101),
    ("event_types", ["\0"]),
    ("event_types", "*"),
    ("sources", ["a b"]),
    ("timeout_seconds", 10**30),
    ("timeout_seconds", 1.5),
    ("timeout_seconds", None),
    ("max_in_flight", -1),
    ("rate_limit", {"per_second": 10**9}),
    ("rate_limit", {}),
    ("headers", {"X-Evil": "a\r\nX-Injected: b"}),
    ("headers", {"X Evil": "a"}),
    ("headers", {"Host": "example.com"}),
    ("headers", {"X-Same": "a", "x-same": "b"}),
    ("headers", {f"X-{number}": "a" for number in range(21)}),
    ("signatures", [{"scheme": "standard"}, {"scheme": "standard"}]),
    ("signatures", [{"scheme": "hmac_sha256", "header": "Content-Length"}]),
    ("secret", "whsec_" + "A" * 4),
]


@pytest.mark.parametrize(("field", "value"), FIELDS, ids=lambda value: str(value)[:40])
def test_no_field_of_a_subscription_makes_the_api_fail(stage: Stage, field: str, value: Json) -> None:
    tenant = stage.tenant()
    body = {"url": HOOKS, "event_types": ["*"]}

    for method, path in (("POST", "/v1/subscriptions"), ("PATCH", tenant.subscribe(HOOKS, "*").path)):
        if field == "secret" and method == "PATCH":
            continue
        wrong = ({} if method == "PATCH" else body) | {field: value}
        problem = tenant.api.refused(422, "validation-failed", method, path, json=wrong)
        assert any(error["pointer"].startswith(f"/{field}") for error in problem["errors"]), problem


@pytest.mark.parametrize(
    "query",
    [
        "cursor=%00",
        "cursor=1",
        "cursor=" + "f" * 33,
        "limit=0",
        "limit=-1",
        "limit=many",
        "from=yesterday",
        "to=2026-13-01T00:00:00Z",
        "event_type=a,,b",
        "event_type=%00",
        "event_type=" + ",".join(["a"] * 21),
        "source=",
        "source=%00",
        "limit=1&limit=2",
        "tenant_id=%00",
    ],
)
def test_no_query_makes_the_api_fail(stage: Stage, query: str) -> None:
    answer = stage.operator.call("GET", f"/v1/events?{query}")

    # A tenant that cannot be is as unknown as any other.
    expected = (404, 422) if query.startswith("tenant_id") else (422,)
    assert answer.status_code in expected, answer.text


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "schlüssel"])
def test_an_idempotency_key_that_is_none_is_refused(stage: Stage, key: str) -> None:
    headers = {"idempotency-key": key.encode()}

    problem = stage.operator.refused(
        422, "validation-failed", "POST", "/v1/tenants", json={"name": "A"}, headers=headers
    )

    assert {error["pointer"] for error in problem["errors"]} == {"Idempotency-Key"}


def test_a_large_request_is_refused(stage: Stage) -> None:
    content = b'{"name": "' + b"x" * (2 << 20) + b'"}'

    stage.operator.refused(413, "payload-too-large", "POST", "/v1/tenants", content=content)


ANSWERS: dict[str, tuple[Reply, str]] = {
    "NUL": (Reply(200, body=b"a\0b"), "ab"),
    "no UTF-8": (Reply(200, body=b"\xff\xfe"), "\ufffd\ufffd"),
    "without end": (Reply(200, body=b"x" * (20 << 20)), "x" * 1000),
    "markup": (Reply(200, {"content-type": "text/html"}, b"<script>"), "<script>"),
    "a long header": (Reply(200, {"x-long": "x" * 5000}), ""),
    "a strange status": (Reply(299), ""),
    "compressed": (Reply(200, {"content-encoding": "gzip"}, b"not gzip at all"), "not gzip at all"),
}


@pytest.mark.parametrize(("reply", "kept"), ANSWERS.values(), ids=ANSWERS.keys())
def test_no_answer_of_an_endpoint_hinders_the_record_of_its_attempt(stage: Stage, reply: Reply, kept: str) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint(reply)
    subscription = tenant.subscribe(endpoint, "*", retry_policy=quick_retries(1))
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = stripe.send()

    (attempt,) = tenant.delivery(subscription, receipt.event_id, "delivered")["attempts"]
    assert (attempt["status_code"], attempt["response"]) == (reply.status, kept)
