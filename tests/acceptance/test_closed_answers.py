"""Answers that differ from the contract fail a test, and one with a field more does so as well."""

from typing import Any

import httpx
import pytest

from .contract import Contract, ContractBreach

Body = dict[str, Any]

TENANT: Body = {
    "id": "ten_019f1ccc9f407a1e8c3d5b2f60718293",
    "name": "Acme",
    "external_id": None,
    "created_at": "2026-07-01T08:30:00.000Z",
    "updated_at": "2026-07-01T08:30:00.000Z",
}
KEY: Body = {
    "id": "key_019f1cd01a6073b2a4f10c9d8e7b6a55",
    "tenant_id": TENANT["id"],
    "name": "Backend",
    "scopes": ["read"],
    "prefix": "phk_AbC1",
    "expires_at": None,
    "last_used_at": None,
    "created_at": "2026-07-01T08:33:48.000Z",
    "key": "phk_AbC1dE2fG3hI4jK5lM6nO7pQ8rS9tU0vW1xY2zA3bC4",
}
PROBLEM: Body = {
    "type": "/problems/not-found",
    "title": "Not found",
    "status": 404,
    "detail": "there is no such tenant",
    "request_id": "req_019f1d0a5d417c0e9d6b2f4a8e1c3b57",
}
RECEIPT: Body = {"received": True, "event_id": "evt_019f1d1b6e30745f9a8b7c6d5e4f3a2b", "duplicate": False}
MORE: Body = {"more": 1}


def page(*items: Body) -> Body:
    return {"data": list(items), "next_cursor": None}


def answer(method: str, path: str, status: int, body: Body) -> httpx.Response:
    headers = {"x-request-id": str(PROBLEM["request_id"]), "etag": '"1"', "content-type": "application/json"}
    if status >= 400:
        headers["content-type"] = "application/problem+json"
    request = httpx.Request(method, f"http://posthorn.test{path}")
    return httpx.Response(status, headers=headers, json=body, request=request)


# One for each way in which a schema is used: by name, in a list, taken in by another, beside an alternative.
EXCHANGES: list[tuple[str, str, int, Body, Body]] = [
    ("GET", f"/v1/tenants/{TENANT['id']}", 200, TENANT, TENANT | MORE),
    ("GET", "/v1/tenants", 200, page(TENANT), page(TENANT | MORE)),
    ("GET", "/v1/tenants", 200, page(), page() | MORE),
    ("POST", f"/v1/tenants/{TENANT['id']}/api-keys", 201, KEY, KEY | MORE),
    ("GET", f"/v1/tenants/{TENANT['id']}", 404, PROBLEM, PROBLEM | MORE),
    ("GET", "/v1/nothing", 404, PROBLEM, PROBLEM | MORE),
    ("POST", "/webhooks/stripe", 200, RECEIPT, RECEIPT | MORE),
]


@pytest.mark.parametrize(("method", "path", "status", "body", "more"), EXCHANGES)
def test_a_field_that_the_contract_lacks_is_a_breach(
    contract: Contract, method: str, path: str, status: int, body: Body, more: Body
) -> None:
    contract.check(answer(method, path, status, body))

    with pytest.raises(ContractBreach, match="more"):
        contract.check(answer(method, path, status, more))


@pytest.mark.parametrize("other", [{"type": "/problems/conflict"}, {"status": 409}])
def test_a_problem_of_another_kind_is_a_breach(contract: Contract, other: Body) -> None:
    with pytest.raises(ContractBreach, match="another kind"):
        contract.check(answer("GET", f"/v1/tenants/{TENANT['id']}", 404, PROBLEM | other))


def test_a_handshake_is_answered_with_any_fields(contract: Contract) -> None:
    contract.check(answer("POST", "/webhooks/slack", 200, {"challenge": "3eZbrw1aB10FEMAGAZd4FyFQ"}))
