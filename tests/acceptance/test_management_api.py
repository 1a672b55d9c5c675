"""The rules that every operation of the management API keeps."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from .client import Client, Json
from .providers import stripe_event
from .stage import Stage, address_of, new_slug, to_tenant
from .tenants import Tenant, quick_retries
from .waiting import eventually

Creation = Callable[[Stage, Tenant], tuple[Client, str, dict[str, Any]]]

HOOKS = "http://127.0.0.1:9/hooks"


def a_tenant(stage: Stage, tenant: Tenant) -> tuple[Client, str, dict[str, Any]]:
    return stage.operator, "/v1/tenants", {"name": "Twice"}


def a_key(stage: Stage, tenant: Tenant) -> tuple[Client, str, dict[str, Any]]:
    return stage.operator, f"/v1/tenants/{tenant.id}/api-keys", {"name": "Twice", "scopes": ["read"]}


def a_source(stage: Stage, tenant: Tenant) -> tuple[Client, str, dict[str, Any]]:
    body = {"provider": "stripe", "routing": to_tenant(tenant), "config": {"secrets": ["whsec_twice"]}}
    return tenant.api, "/v1/sources", body


def a_subscription(stage: Stage, tenant: Tenant) -> tuple[Client, str, dict[str, Any]]:
    return tenant.api, "/v1/subscriptions", {"url": HOOKS, "event_types": ["*"], "name": "Twice"}


CREATIONS = [a_tenant, a_key, a_source, a_subscription]


# --- idempotency ---


@pytest.mark.parametrize("creation", CREATIONS)
def test_a_creation_with_a_key_is_done_once(stage: Stage, creation: Creation) -> None:
    client, path, body = creation(stage, stage.tenant())
    key = {"idempotency-key": uuid.uuid4().hex}

    first = client.expect(201, "POST", path, json=body, headers=key)
    again = client.expect(201, "POST", path, json=body, headers=key)
    changed = body | ({"rate_limit": {"per_second": 7}} if path == "/v1/sources" else {"name": "Other"})
    client.refused(409, "idempotency-conflict", "POST", path, json=changed, headers=key)
    other = client.create(path, body, {"idempotency-key": uuid.uuid4().hex})

    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json(), "also what is shown once"
    assert other["id"] != first.json()["id"]
    _forget_tenants(stage, path, first.json(), other)


@pytest.mark.parametrize("creation", CREATIONS)
def test_a_creation_sent_twice_at_once_is_done_once(stage: Stage, creation: Creation) -> None:
    client, path, body = creation(stage, stage.tenant())
    key = {"idempotency-key": uuid.uuid4().hex}

    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(lambda _: client.call("POST", path, json=body, headers=key), range(8)))

    assert {answer.status_code for answer in answers} <= {201, 409}
    created = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    assert len(created) == 1
    _forget_tenants(stage, path, {"id": created.pop()})


def test_a_refused_creation_leaves_its_key_unused(stage: Stage) -> None:
    tenant = stage.tenant()
    key = {"idempotency-key": uuid.uuid4().hex}
    body = {"url": HOOKS, "event_types": []}
    tenant.api.refused(422, "validation-failed", "POST", "/v1/subscriptions", json=body, headers=key)

    tenant.api.create("/v1/subscriptions", body | {"event_types": ["*"]}, key)


def test_keys_of_different_callers_never_meet(stage: Stage) -> None:
    key = {"idempotency-key": uuid.uuid4().hex}
    body = {"url": HOOKS, "event_types": ["*"]}

    created = [stage.tenant().api.create("/v1/subscriptions", body, key) for _ in range(2)]

    assert created[0]["id"] != created[1]["id"]
    assert created[0]["secret"] != created[1]["secret"]


def test_a_secret_is_shown_once(stage: Stage) -> None:
    tenant = stage.tenant()
    stripe = stage.stripe(to_tenant(tenant))
    subscription = tenant.subscribe(HOOKS, "*")

    everything = [
        tenant.api.expect(200, "GET", subscription.path),
        tenant.api.expect(200, "GET", "/v1/subscriptions"),
        tenant.api.expect(200, "PATCH", subscription.path, json={"name": "Billing"}),
        stage.operator.expect(200, "GET", f"/v1/sources/{stripe.id}"),
        stage.operator.expect(200, "GET", f"/v1/tenants/{tenant.id}/api-keys"),
    ]

    for answer in everything:
        for secret in (subscription.secret, stripe.secret, '"key"'):
            assert secret not in answer.text


# --- refusals ---


@pytest.mark.parametrize("creation", CREATIONS)
def test_an_unknown_field_is_refused_by_name(stage: Stage, creation: Creation) -> None:
    client, path, body = creation(stage, stage.tenant())

    problem = client.refused(422, "validation-failed", "POST", path, json=body | {"colour": "red"})

    assert "/colour" in pointers(problem)


SUBSCRIPTION_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"url": "ftp://example.com"}, "/url"),
    ({"url": "http://user:password@127.0.0.1:9/"}, "/url"),
    ({"url": "/hooks"}, "/url"),
    ({"event_types": []}, "/event_types"),
    ({"event_types": [".*"]}, "/event_types/0"),
    ({"event_types": ["*", ""]}, "/event_types/1"),
    ({"timeout_seconds": 31}, "/timeout_seconds"),
    ({"timeout_seconds": "ten"}, "/timeout_seconds"),
    ({"rate_limit": {"per_second": 0}}, "/rate_limit/per_second"),
    ({"rate_limit": {"per_hour": 0}}, "/rate_limit/per_hour"),
    ({"rate_limit": {"per_second": 1, "per_minute": 60}}, "/rate_limit"),
    ({"rate_limit": {"per_second": 1, "burst": 2}}, "/rate_limit/burst"),
    ({"max_in_flight": 0}, "/max_in_flight"),
    ({"ordered": "yes"}, "/ordered"),
    ({"ordered_max_block_seconds": 604801}, "/ordered_max_block_seconds"),
    ({"retry_policy": quick_retries(0)}, "/retry_policy/max_attempts"),
    ({"retry_policy": quick_retries(3, tries=4)}, "/retry_policy/tries"),
    ({"retry_policy": {"kind": "never"}}, "/retry_policy/kind"),
    ({"headers": {"webhook-id": "mine"}}, "/headers/webhook-id"),
    ({"payload_format": "xml"}, "/payload_format"),
    ({"signatures": []}, "/signatures"),
    ({"signatures": [{"scheme": "rot13"}]}, "/signatures/0/scheme"),
    ({"secret": "hunter2"}, "/secret"),
    ({"secret": None}, "/secret"),
]


@pytest.mark.parametrize("body", [b"", b"{}"])
@pytest.mark.parametrize("order", ["rotate-secret", "pause", "resume", "test"])
def test_a_post_that_needs_no_body_takes_none_and_an_empty_object(stage: Stage, order: str, body: bytes) -> None:
    subscription = stage.tenant().subscribe(stage.endpoint().url, "*")

    answer = stage.operator.call("POST", f"{subscription.path}/{order}", content=body)

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("fault", "pointer"), SUBSCRIPTION_FAULTS, ids=lambda value: str(value)[:60])
def test_a_wrong_field_of_a_subscription_is_named(stage: Stage, fault: dict[str, Any], pointer: str) -> None:
    tenant = stage.tenant()
    body = {"url": HOOKS, "event_types": ["*"]}

    problem = tenant.api.refused(422, "validation-failed", "POST", "/v1/subscriptions", json=body | fault)

    assert pointer in pointers(problem)
    assert list(tenant.api.every("/v1/subscriptions")) == []


def test_several_wrong_fields_are_named_together(stage: Stage) -> None:
    body = {"url": "ftp://example.com", "event_types": [], "timeout_seconds": 0}

    problem = stage.tenant().api.refused(422, "validation-failed", "POST", "/v1/subscriptions", json=body)

    assert pointers(problem) >= {"/url", "/event_types", "/timeout_seconds"}


def test_a_missing_field_is_named(stage: Stage) -> None:
    problem = stage.operator.refused(422, "validation-failed", "POST", "/v1/tenants", json={})

    assert any("name" in error["detail"] or error["pointer"] == "/name" for error in problem["errors"])


def test_a_subscription_of_the_operators_needs_a_tenant(stage: Stage) -> None:
    body = {"url": HOOKS, "event_types": ["*"]}

    problem = stage.operator.refused(422, "validation-failed", "POST", "/v1/subscriptions", json=body)

    assert "/tenant_id" in pointers(problem)


def test_a_body_that_is_no_json_is_malformed(stage: Stage) -> None:
    for content in (b"", b"name=Acme", b'{"name": '):
        stage.operator.refused(400, "malformed-request", "POST", "/v1/tenants", content=content)


def test_an_unknown_query_parameter_is_refused_by_name(stage: Stage) -> None:
    api = stage.tenant().api

    assert "colour" in pointers(api.refused(422, "validation-failed", "GET", "/v1/events?colour=red"))
    assert "limit" in pointers(api.refused(422, "validation-failed", "GET", "/v1/events?limit=201"))
    assert "state" in pointers(api.refused(422, "validation-failed", "GET", "/v1/deliveries?state=lost"))


def test_a_path_or_a_method_that_does_not_exist_is_told_apart(stage: Stage) -> None:
    stage.operator.refused(404, "not-found", "GET", "/v1/tenant")
    stage.operator.refused(405, "method-not-allowed", "PUT", "/v1/tenants")


def test_an_external_id_and_a_slug_are_unique(stage: Stage) -> None:
    tenant = stage.tenant()
    stripe = stage.stripe(to_tenant(tenant))
    body = {
        "slug": stripe.address,
        "provider": "stripe",
        "routing": to_tenant(tenant),
        "config": {"secrets": ["whsec_x"]},
    }

    taken = {"name": "Again", "external_id": tenant.external_id}
    stage.operator.refused(409, "conflict", "POST", "/v1/tenants", json=taken)
    stage.operator.refused(409, "conflict", "POST", "/v1/sources", json=body)


# --- who may do what ---


@pytest.mark.parametrize("token", [None, "nonsense", "phk_" + "A" * 43])
def test_without_a_valid_token_nobody_is_let_in(stage: Stage, token: str | None) -> None:
    stranger = stage.operator.as_caller(token)

    for method, path in (("GET", "/v1/events"), ("POST", "/v1/tenants"), ("DELETE", "/v1/subscriptions/sub_1")):
        stranger.refused(401, "unauthorized", method, path)


def test_what_belongs_to_another_tenant_does_not_exist(stage: Stage) -> None:
    acme, globex = stage.tenant(), stage.tenant()
    endpoint = stage.endpoint(then=500)
    subscription = acme.subscribe(endpoint, "*", retry_policy=quick_retries(1))
    view = acme.api.create(*_source_of(acme))
    stripe = stage.stripe(to_tenant(acme))
    stage.wait_until_in_force()
    receipt = stripe.send()
    letter = acme.dead_letter(subscription)
    delivery = acme.delivery(subscription, receipt.event_id, "dead")
    paths = {
        subscription.path: ("GET", "PATCH", "DELETE"),
        f"/v1/sources/{view['id']}": ("GET", "PATCH", "DELETE"),
        f"/v1/events/{receipt.event_id}": ("GET",),
        f"/v1/deliveries/{delivery['id']}": ("GET",),
        f"/v1/deliveries/{delivery['id']}/retry": ("POST",),
        f"/v1/dead-letters/{letter['id']}": ("GET",),
        f"/v1/dead-letters/{letter['id']}/replay": ("POST",),
    }
    lists = ("/v1/subscriptions", "/v1/sources", "/v1/events", "/v1/deliveries", "/v1/dead-letters")

    for path, methods in paths.items():
        for method in methods:
            # Both a stranger and the operator who acts within another tenant.
            body: dict[str, Any] = {} if method == "GET" else {"json": {}}
            theirs = globex.api.refused(404, "not-found", method, path, **body)
            stage.operator.refused(404, "not-found", method, path, params={"tenant_id": globex.id}, **body)
            nobodys = globex.api.refused(404, "not-found", method, _of_nobody(path), **body)
            assert _anonymous(theirs) == _anonymous(nobodys), "a tenant cannot tell what exists"
    for path in lists:
        assert list(globex.api.every(path)) == []
        assert list(acme.api.every(path)) != []
        assert list(stage.operator.every(path, tenant_id=globex.id)) == []
        globex.api.refused(404, "not-found", "GET", path, params={"tenant_id": acme.id})
    assert acme.api.get(subscription.path)["name"] is None


def test_what_is_the_operators_alone_is_forbidden_to_tenants(stage: Stage) -> None:
    tenant = stage.tenant()

    for method, path in (
        ("GET", "/v1/tenants"),
        ("GET", f"/v1/tenants/{tenant.id}"),
        ("DELETE", f"/v1/tenants/{tenant.id}"),
        ("GET", f"/v1/tenants/{tenant.id}/api-keys"),
    ):
        tenant.api.refused(403, "forbidden", method, path)
    tenant.api.refused(403, "forbidden", "POST", "/v1/tenants", json={"name": "Mine"})


def test_a_key_may_do_what_its_scopes_say(stage: Stage) -> None:
    tenant = stage.tenant()
    reader = stage.operator.as_caller(stage.key(tenant.id, "read"))
    writer = stage.operator.as_caller(stage.key(tenant.id, "write"))
    body = {"url": HOOKS, "event_types": ["*"]}

    reader.get("/v1/subscriptions")
    reader.refused(403, "forbidden", "POST", "/v1/subscriptions", json=body)
    created = writer.create("/v1/subscriptions", body)
    writer.refused(403, "forbidden", "GET", "/v1/subscriptions")
    reader.refused(403, "forbidden", "DELETE", f"/v1/subscriptions/{created['id']}")
    reader.get(f"/v1/subscriptions/{created['id']}")


def test_a_revoked_key_is_refused_within_five_seconds(stage: Stage) -> None:
    tenant = stage.tenant()
    created = stage.operator.create(f"/v1/tenants/{tenant.id}/api-keys", {"name": "Brief", "scopes": ["read"]})
    caller = stage.operator.as_caller(created["key"])
    caller.get("/v1/events")

    stage.operator.delete(f"/v1/tenants/{tenant.id}/api-keys/{created['id']}")

    eventually(lambda: caller.call("GET", "/v1/events").status_code == 401, within=5, what="the key is refused")


def test_an_expired_key_is_refused(stage: Stage) -> None:
    tenant = stage.tenant()
    path = f"/v1/tenants/{tenant.id}/api-keys"
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    past = (datetime.now(UTC) - timedelta(seconds=2)).isoformat()

    created = stage.operator.create(path, {"name": "Brief", "scopes": ["read"], "expires_at": soon})
    problem = stage.operator.refused(
        422, "validation-failed", "POST", path, json={"name": "Late", "scopes": ["read"], "expires_at": past}
    )

    assert "/expires_at" in pointers(problem)
    caller = stage.operator.as_caller(created["key"])
    eventually(lambda: caller.call("GET", "/v1/events").status_code == 401, within=7, what="the key is refused")


def test_a_tenants_source_has_a_token_and_leads_to_that_tenant(stage: Stage) -> None:
    acme, globex = stage.tenant(), stage.tenant()
    path, body = _source_of(acme)

    view = acme.api.create(path, body)

    assert (view["slug"], view["tenant_id"]) == (None, acme.id)
    assert len(address_of(view)) >= 20
    for fault, pointer in (
        ({"slug": new_slug("mine")}, "/slug"),
        ({"routing": {"kind": "broadcast"}}, "/routing"),
        ({"routing": {"kind": "pointer", "pointer": "/account"}}, "/routing"),
    ):
        problem = acme.api.refused(422, "validation-failed", "POST", path, json=body | fault)
        assert any(named.startswith(pointer) for named in pointers(problem))
    to_other = acme.api.call("POST", path, json=body | {"routing": to_tenant(globex)})
    assert to_other.status_code in (404, 422)


def test_a_deleted_tenant_is_gone_with_all_that_is_its(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    receipt = stripe.send()
    tenant.delivery(subscription, receipt.event_id, "delivered")

    stage.operator.delete(f"/v1/tenants/{tenant.id}")

    for path in (f"/v1/tenants/{tenant.id}", subscription.path):
        stage.operator.refused(404, "not-found", "GET", path)
    eventually(
        lambda: tenant.api.call("GET", "/v1/events").status_code == 401, within=5, what="the tenant's key is refused"
    )
    stage.operator.create("/v1/tenants", {"name": "Heir", "external_id": tenant.external_id})


# --- lists ---


def test_paging_neither_skips_nor_repeats_while_rows_are_added(stage: Stage) -> None:
    tenant = stage.tenant()
    before = [tenant.subscribe(HOOKS, "*").id for _ in range(7)]

    page = tenant.api.get("/v1/subscriptions", limit=3)
    seen = [item["id"] for item in page["data"]]
    while page["next_cursor"] is not None:
        tenant.subscribe(HOOKS, "*")
        page = tenant.api.get("/v1/subscriptions", limit=3, cursor=page["next_cursor"])
        seen += [item["id"] for item in page["data"]]

    assert seen == list(reversed(before)), "newest first"


def test_events_and_deliveries_are_paged_and_narrowed(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    types = ["invoice.paid", "invoice.created", "customer.created", "invoice.paid", "charge.failed"]
    sent = [stripe.send(event_type).event_id for event_type in types]
    endpoint.expect(5)

    assert [event["id"] for event in tenant.api.every("/v1/events", limit=2)] == sent[::-1]
    invoices = tenant.api.every("/v1/events", event_type="invoice.*,customer.created", limit=1)
    assert [event["id"] for event in invoices] == sent[3::-1]
    third = tenant.api.get(f"/v1/events/{sent[2]}")["received_at"]
    since = {event["id"] for event in tenant.api.every("/v1/events", **{"from": third})}
    until = {event["id"] for event in tenant.api.every("/v1/events", to=third)}
    assert since | until == set(sent) and since & until == set(), "what one bound leaves out the other has"
    assert sent[2] in since
    for event_id in sent:
        tenant.delivery(subscription, event_id, "delivered")
    deliveries = list(tenant.api.every("/v1/deliveries", state="delivered", limit=2))
    assert [delivery["event_id"] for delivery in deliveries] == sent[::-1]
    paid = tenant.api.every("/v1/deliveries", event_type="invoice.paid")
    assert [delivery["event_id"] for delivery in paid] == [sent[3], sent[0]]
    assert list(tenant.api.every("/v1/deliveries", state="dead")) == []


def test_a_tenant_sees_broadcast_events_by_id(stage: Stage) -> None:
    tenant = stage.tenant()
    stripe = stage.stripe({"kind": "broadcast"})
    stage.wait_until_in_force()

    receipt = stripe.send_event(stripe_event())

    event = tenant.api.get(f"/v1/events/{receipt.event_id}")
    assert (event["tenant_id"], event["routed"]) == (None, "broadcast")


def test_ids_are_read_in_every_form(stage: Stage) -> None:
    tenant = stage.tenant()
    subscription = tenant.subscribe(HOOKS, "*")
    written = uuid.UUID(subscription.id.removeprefix("sub_"))

    for form in (str(written), str(written).upper(), written.hex.upper()):
        assert tenant.api.get(f"/v1/subscriptions/sub_{form}")["id"] == subscription.id
    assert written.version == 7


# --- what the tests above share ---


def pointers(problem: Json) -> set[str]:
    return {error["pointer"] for error in problem["errors"]}


def _source_of(tenant: Tenant) -> tuple[str, dict[str, Any]]:
    routing = to_tenant(tenant)
    return "/v1/sources", {"provider": "stripe", "routing": routing, "config": {"secrets": ["whsec_tenants"]}}


def _of_nobody(path: str) -> str:
    """The same path with an id that nothing has."""
    parts = path.split("/")
    prefix = parts[3].split("_")[0]
    parts[3] = f"{prefix}_{uuid.uuid4().hex}"
    return "/".join(parts)


def _anonymous(problem: Json) -> Json:
    """A problem without what names this request."""
    detail = " ".join(word for word in problem["detail"].split() if "_" not in word)
    return problem | {"detail": detail, "request_id": ""}


def _forget_tenants(stage: Stage, path: str, *created: Json) -> None:
    if path == "/v1/tenants":
        for tenant in created:
            stage.operator.delete(f"/v1/tenants/{tenant['id']}")
