"""Wrong requests of every resource, wrong commands, and the words in which they are refused.

The words are kept in `snapshots`, to be read as a caller reads them. With `POSTHORN_WRITE_SNAPSHOTS=1` the tests
write the files again, for `git diff` to show.
"""

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from .client import Client, Json
from .stage import Stage, new_slug, to_tenant
from .world import World

SNAPSHOTS = Path(__file__).parent / "snapshots"
HOOKS = "http://127.0.0.1:9/hooks"
UNKNOWN = "019f1d0a5d407a318c52e0d1b6f7a890"

# The method, the path, and what is httpx's: `json`, `content`, `headers`.
Request = tuple[str, str, dict[str, Any]]

# Words of Rust and of its libraries, which mean nothing to a caller.
RIDDLES = re.compile(
    r"\b(struct|i32|i64|u16|u32|u64|f64|usize|enum|variant|serde|invalid type|invalid value|invalid length"
    r"|missing field|unknown field|data did not match|trailing input)\b"
)


def body(method: str, path: str, json: Json) -> Request:
    return method, path, {"json": json}


def raw(method: str, path: str, content: bytes) -> Request:
    return method, path, {"content": content, "headers": {"content-type": "application/json"}}


def bare(method: str, path: str, **headers: str) -> Request:
    return method, path, {"headers": headers}


def tenants(tenant: str) -> list[Request]:
    one = f"/v1/tenants/{tenant}"
    return [
        raw("POST", "/v1/tenants", b""),
        raw("POST", "/v1/tenants", b"{"),
        raw("POST", "/v1/tenants", b"{'name': 'Acme'}"),
        raw("POST", "/v1/tenants", b'{"name": "Acme"} {}'),
        body("POST", "/v1/tenants", ["name", None]),
        body("POST", "/v1/tenants", "Acme"),
        body("POST", "/v1/tenants", {}),
        body("POST", "/v1/tenants", {"nmae": "Acme", "externalId": 7}),
        body("POST", "/v1/tenants", {"name": "two\nlines", "external_id": ""}),
        body("POST", "/v1/tenants", {"name": "NUL\0"}),
        body("PATCH", one, {"name": None, "colour": "red"}),
        body("PATCH", one, []),
        ("PATCH", one, {"json": {"name": "Acme"}, "headers": {"if-match": "5f3a"}}),
        ("PATCH", one, {"json": {"name": "Acme"}, "headers": {"if-match": '"5f3a"'}}),
        ("POST", "/v1/tenants", {"json": {"name": "Acme"}, "headers": {"idempotency-key": "two words"}}),
        bare("GET", f"/v1/tenants/ten_{UNKNOWN}"),
        bare("GET", "/v1/tenants?limt=5&colour=red"),
        bare("GET", "/v1/tenants?limit=0&cursor=abc"),
        bare("PUT", "/v1/tenants"),
        bare("GET", "/v1/tenant"),
    ]


def api_keys(tenant: str) -> list[Request]:
    path = f"/v1/tenants/{tenant}/api-keys"
    return [
        body("POST", path, {"name": "Backend", "scopes": ["raed"]}),
        body("POST", path, {"scopes": [], "expires_at": "tomorrow"}),
        body("POST", path, {"name": "Backend", "scopes": "read"}),
        body("POST", path, {"name": "Backend", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}),
    ]


def sources(tenant: str, source: str) -> list[Request]:
    one = f"/v1/sources/{source}"
    routing = {"kind": "tenant", "tenant_id": tenant}
    stripe = {"provider": "stripe", "routing": routing, "config": {"secrets": ["whsec_1"]}}
    generic = stripe | {"provider": "generic"}
    return [
        body("POST", "/v1/sources", {}),
        body("POST", "/v1/sources", {"provider": "Stripe", "routing": ["broadcast"], "config": []}),
        body("POST", "/v1/sources", stripe | {"provider": "paypal"}),
        body("POST", "/v1/sources", stripe | {"slug": "My Shop", "allowed_ips": ["10.0.0.0/99"]}),
        body("POST", "/v1/sources", stripe | {"routing": {"kind": "tenants"}}),
        body("POST", "/v1/sources", stripe | {"routing": {"kind": "tenant"}}),
        body("POST", "/v1/sources", stripe | {"routing": {"kind": "header", "name": "X-Tenant-Id"}}),
        body("POST", "/v1/sources", stripe | {"rate_limit": {}, "max_body_bytes": "1 MB", "validate": "maybe"}),
        body("POST", "/v1/sources", stripe | {"response": {"status": 302, "content_type": "xml"}}),
        body("POST", "/v1/sources", stripe | {"config": {}}),
        body("POST", "/v1/sources", stripe | {"config": {"secrets": ["whsec_1 ", "\u00a0whsec_2"]}}),
        body("POST", "/v1/sources", stripe | {"config": {"secrets": ["whsec_1"], "tolerance": 60}}),
        body("POST", "/v1/sources", stripe | {"config": {"secrets": "whsec_1", "tolerance_seconds": "1 min"}}),
        body("POST", "/v1/sources", generic),
        body("POST", "/v1/sources", generic | {"config": {"secrets": ["s"], "preset": "sqaure"}}),
        body("POST", "/v1/sources", generic | {"config": {"secrets": ["s"], "scheme": {"algorithm": "md5"}}}),
        body(
            "POST",
            "/v1/sources",
            generic | {"config": {"secrets": ["s"], "scheme": {"algorithm": "hmac_sha256", "signature": ["X-Sig"]}}},
        ),
        body("PATCH", one, {"provider": "github"}),
        body("PATCH", one, {"config": {"secrets": [" whsec_1"]}}),
        body("POST", f"{one}/rotate-secret", {"secret": "whsec_1\n", "overlap_seconds": -1}),
        body("POST", f"{one}/rotate-secret", {"overlap": 60}),
        body("POST", f"{one}/test", {"event_types": "invoice.paid"}),
        bare("GET", f"{one}/stats?window_seconds=1d"),
    ]


def event_types() -> list[Request]:
    path = "/v1/event-types/wrong.request"
    return [
        body("PUT", path, {"schema": [], "archived": "no"}),
        body("PUT", path, {"schema": {"type": "objekt"}}),
        body("PUT", path, {"schema": {"type": "object"}, "sample": "text"}),
        body("PUT", "/v1/event-types/posthorn.mine", {}),
        bare("GET", "/v1/event-types?archived=yes"),
    ]


def subscriptions(tenant: str, subscription: str) -> list[Request]:
    one = f"/v1/subscriptions/{subscription}"
    good = {"tenant_id": tenant, "url": HOOKS, "event_types": ["*"]}
    return [
        body("POST", "/v1/subscriptions", {}),
        body("POST", "/v1/subscriptions", {"url": HOOKS, "event_types": ["*"]}),
        body("POST", "/v1/subscriptions", {"tenant_id": "acme", "url": "/hooks", "eventTypes": ["*"]}),
        body("POST", "/v1/subscriptions", good | {"url": "ftp://example.com", "timeout_seconds": 31}),
        body("POST", "/v1/subscriptions", good | {"url": "http://user:password@127.0.0.1:9/", "ordered": "yes"}),
        body("POST", "/v1/subscriptions", good | {"event_types": [], "sources": ["no such name"]}),
        body("POST", "/v1/subscriptions", good | {"event_types": "invoice.paid"}),
        body("POST", "/v1/subscriptions", good | {"event_types": ["*", ""], "name": "two\nlines"}),
        body("POST", "/v1/subscriptions", good | {"retry_policy": ["schedule", []], "rate_limit": [1]}),
        body("POST", "/v1/subscriptions", good | {"retry_policy": {"kind": "linear"}}),
        body("POST", "/v1/subscriptions", good | {"retry_policy": {"kind": "schedule", "delays": [60]}}),
        body("POST", "/v1/subscriptions", good | {"retry_policy": {"kind": "exponential", "factor": 0.5}}),
        body("POST", "/v1/subscriptions", good | {"rate_limit": {"per_second": 1, "per_minute": 60}}),
        body("POST", "/v1/subscriptions", good | {"rate_limit": {"per_secnd": 1}}),
        body("POST", "/v1/subscriptions", good | {"payload_format": "xml", "max_in_flight": 1.5}),
        body("POST", "/v1/subscriptions", good | {"signatures": [{"scheme": "standrad"}, {"scheme": "hmac_sha256"}]}),
        body("POST", "/v1/subscriptions", good | {"headers": {"X Team": "billing", "webhook-id": "mine"}}),
        body("POST", "/v1/subscriptions", good | {"headers": {"webhook-id": "mine"}, "secret": None}),
        body("POST", "/v1/subscriptions", good | {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw "}),
        body("POST", "/v1/subscriptions", good | {"tls": {"client_certificate": "-----BEGIN"}}),
        body("POST", "/v1/subscriptions", good | {"tls": {"ca_bundle": "no PEM"}}),
        body("PATCH", one, {"state": "disabled", "secret": "x"}),
        body("POST", f"{one}/pause", {"now": True}),
        body("POST", f"{one}/pause", []),
        body("POST", f"{one}/rotate-secret", {"secret": "hunter2", "overlap_seconds": 9_999_999}),
        body("POST", f"{one}/test", {"event_type": "", "playload": {}}),
        body("POST", f"{one}/recover", {"since": "yesterday", "include": ["all"]}),
        body("POST", f"{one}/recover", {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
        bare("GET", f"{one}/public-key"),
    ]


def events_and_deliveries() -> list[Request]:
    return [
        bare("GET", "/v1/events?from=yesterday&to=2026-12-01&routed=yes&source=a+b"),
        bare("GET", "/v1/events?limit=1000&limit=5"),
        bare("GET", f"/v1/events/evt_{UNKNOWN}"),
        body("POST", f"/v1/events/evt_{UNKNOWN}/replay", {"subscription": "x"}),
        body("POST", f"/v1/events/evt_{UNKNOWN}/route", {"tenant_id": "acme"}),
        bare("GET", "/v1/deliveries?state=quued&event_id=evt_1&subscription_id=all"),
        bare("POST", f"/v1/deliveries/dlv_{UNKNOWN}/retry"),
        body("POST", f"/v1/deliveries/dlv_{UNKNOWN}/cancel", {"why": "late"}),
        bare("GET", "/v1/rejected-requests?source_id=stripe"),
        bare("POST", f"/v1/rejected-requests/rej_{UNKNOWN}/reverify"),
    ]


def dead_letters_and_replays() -> list[Request]:
    return [
        bare("GET", "/v1/dead-letters?reason=timeout&from=now"),
        bare("DELETE", "/v1/dead-letters"),
        bare("DELETE", "/v1/dead-letters?older_than_seconds=a+week"),
        body("POST", "/v1/dead-letters/replay", {}),
        body("POST", "/v1/dead-letters/replay", {"filter": [], "rate_per_second": 0}),
        body("POST", "/v1/dead-letters/replay", {"filter": {"reason": "permanant", "ids": []}, "dry_run": "yes"}),
        bare("POST", f"/v1/replays/rpl_{UNKNOWN}/cancel"),
        bare("GET", "/v1/replays?state=running"),
        bare("GET", "/v1/audit-log?resource_id="),
        bare("GET", "/v1/stats?window=60"),
    ]


def test_wrong_requests_are_refused_in_words(stage: Stage) -> None:
    tenant = stage.tenant()
    source = stage.operator.create(
        "/v1/sources",
        {"slug": new_slug("wrong"), "provider": "stripe", "routing": to_tenant(tenant), "config": {"secrets": ["s"]}},
    )
    subscription = tenant.subscribe(HOOKS, "*")
    requests = [
        *tenants(tenant.id),
        *api_keys(tenant.id),
        *sources(tenant.id, source["id"]),
        *event_types(),
        *subscriptions(tenant.id, subscription.id),
        *events_and_deliveries(),
        *dead_letters_and_replays(),
    ]
    asked = [(request, stage.operator) for request in requests]
    asked += [
        (bare("GET", "/v1/tenants"), stage.operator.as_caller(None)),
        (bare("GET", "/v1/tenants"), stage.operator.as_caller("phk_wrong")),
        (bare("GET", "/v1/tenants"), tenant.api),
    ]

    told = [answered(client, request) for request, client in asked]
    stage.operator.call("DELETE", f"/v1/sources/{source['id']}")

    assert len(told) >= 60
    riddles = [answer for answer in told if RIDDLES.search(answer.partition("\n")[2])]
    assert riddles == [], "words of Rust in an error"
    text = "\n\n".join(told) + "\n"
    for thing in (tenant.id, source["id"], subscription.id):
        text = text.replace(thing, thing[:4] + "…")
    compare("wrong-requests.txt", text)


@pytest.mark.parametrize("offset", ["+02:00", "%2B02:00", "Z"])
def test_a_time_in_a_query_takes_an_offset_however_its_plus_is_written(stage: Stage, offset: str) -> None:
    stage.operator.expect(200, "GET", f"/v1/events?from=2026-12-01T10:00:00{offset}")


# What a file of `posthorn apply` holds.
FILES = [
    "tenants: [[acme, Acme]]",
    "tenants:\n- {name: Acme}",
    "tennants: []",
    "event_types: [{name: wrong.command, archived: 'no'}]",
    "event_types: [{name: wrong.command, schema: [1]}]",
    "sources:\n- {slug: wrong-command, provider: stripe, routing: [broadcast], config: {secrets: ['s ']}, colour: red}",
    "sources: [{slug: wrong-command, provider: stripe, config: {secrets: ['${NOT_SET_ANYWHERE}']}}]",
    "sources: [",
]


def test_wrong_commands_are_refused_in_words(world: World, tmp_path: Path) -> None:
    file = tmp_path / "deployment.yaml"
    told = []
    for text in FILES:
        file.write_text(text, encoding="utf-8")
        told.append(f"{text}\n{complaint(world, 'apply', str(file))}".replace(str(tmp_path), "…"))
    for arguments in (
        ["apply", "missing.yaml"],
        ["--token", "phk_wrong"],
        ["--api-url", "http://127.0.0.1:9"],
        ["--api-url", "not a URL"],
    ):
        command = arguments if arguments[0] == "apply" else ["event-types", "list", *arguments]
        told.append(f"$ posthorn {' '.join(command)}\n{complaint(world, *command)}")

    riddles = [text for text in told if RIDDLES.search(text)]
    assert riddles == [], "words of Rust in an error"
    compare("wrong-commands.txt", "\n\n".join(told) + "\n")


def complaint(world: World, *arguments: str) -> str:
    ran = world.posthorn(*arguments)
    assert ran.returncode != 0, ran.stdout
    return re.sub(r"\breq_[0-9a-f]{32}\b", "req_…", ran.stderr.strip())


def answered(client: Client, request: Request) -> str:
    """The request as a person would write it down, and its answer."""
    method, path, rest = request
    answer = client.call(method, path, **rest)
    assert answer.status_code >= 400, f"{request} was answered {answer.status_code}"
    return "\n".join([f"{method} {path}{sent(rest)}", *refusal(answer)])


def sent(rest: dict[str, Any]) -> str:
    headers = {name: value for name, value in rest.get("headers", {}).items() if name != "content-type"}
    lines = [f"{name}: {value}" for name, value in headers.items()]
    if "json" in rest:
        lines.append(json.dumps(rest["json"]))
    if "content" in rest:
        lines.append(rest["content"].decode() or "(no body)")
    return "".join(f"\n    {line}" for line in lines)


def refusal(answer: httpx.Response) -> list[str]:
    problem = answer.json()
    errors = [f"  {error['pointer'] or '(the body)'}: {error['detail']}" for error in problem.get("errors", [])]
    head = f"{problem['status']} {problem['title']}"
    # Of one field, the detail says the same.
    return [head if len(errors) == 1 else f"{head}: {problem['detail']}", *errors]


def compare(name: str, told: str) -> None:
    snapshot = SNAPSHOTS / name
    if os.environ.get("POSTHORN_WRITE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(exist_ok=True)
        snapshot.write_text(told, encoding="utf-8")
    kept = snapshot.read_text(encoding="utf-8")
    differences = difflib.unified_diff(kept.splitlines(), told.splitlines(), "kept", "told", lineterm="")
    assert told == kept, "\n".join(["the answers read differently:", *differences])
