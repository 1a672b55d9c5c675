"""Who may do what: every operation of the contract, tried by everybody who might call it.

What is expected is read from `proto/openapi.yaml`: its `security` says which operations are the operator's
alone, and which scope a tenant's key needs for the others. An operation that comes new is called by everybody
as well, or the first test here says what is missing for that.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from .client import Client, Json
from .contract import Contract, Operation
from .providers import Source
from .receiver import Endpoint, Receiver
from .stage import Beacon, Stage, address_of, to_account, to_tenant, wait_for_door
from .tenants import Subscription, quick_retries
from .waiting import eventually
from .world import ROOT, World

OPERATIONS = Contract(ROOT / "proto/openapi.yaml").operations("/v1/")

each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)

# Everybody, by what they have in hand.
UNKNOWN = ("no key", "garbage", "a revoked key", "an expired key")
CALLERS = (*UNKNOWN, "a key that may read", "another tenant's key", "the tenant's key", "the operator's token")


def refusal(operation: Operation, caller: str) -> str | None:
    """The problem with which the contract has `caller` refused, who calls for what is Acme's."""
    if caller in UNKNOWN:
        return "unauthorized"
    if caller == "the operator's token":
        return None
    if operation.scope is None:
        return "forbidden"
    if caller == "a key that may read" and operation.scope != "read":
        return "forbidden"
    if caller == "another tenant's key" and is_a_tenants(operation):
        return "not-found"
    return None


def is_a_tenants(operation: Operation) -> bool:
    """Whether it is about things that belong to a tenant; the catalogue of event types is everybody's."""
    return "tenant_id" in operation.path_parameters + operation.query_parameters


class Cast:
    """The callers, and something of everything that belongs to Acme for them to lay hands on."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.mark = f"permissions-{uuid.uuid4().hex}"
        self.acme, self.globex = stage.tenant(), stage.tenant()
        self.failing, self.asking, self.well = stage.endpoint(then=500), stage.endpoint(then=503), stage.endpoint()
        self.acme.subscribe(self.well, "invoice.*")
        self.stripe, self.by_account = stage.stripe(to_tenant(self.acme)), stage.stripe(to_account())
        # A source of its own: what is refused at the operator's is not for tenants to see.
        own = self.acme.api.create("/v1/sources", SOURCE | {"routing": to_tenant(self.acme)})
        self.own = Source(stage.gateway, own["id"], address_of(own), "")
        wait_for_door(self.own)
        stage.wait_until_in_force()
        self._callers = self._make_callers()
        self.known = self.make(*MAKERS)

    # --- those who call ---

    def _make_callers(self) -> dict[str, Client]:
        operator, acme = self.stage.operator, self.acme
        keys = f"/v1/tenants/{acme.id}/api-keys"
        both = {"name": "Brief", "scopes": ["read", "write"]}
        revoked = operator.create(keys, both)
        soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        expired = operator.create(keys, both | {"expires_at": soon})
        tokens = {
            "no key": None,
            "garbage": "phk_" + "A" * 43,
            "a revoked key": revoked["key"],
            "an expired key": expired["key"],
            "a key that may read": self.stage.key(acme.id, "read"),
        }
        callers = {name: operator.as_caller(token) for name, token in tokens.items()}
        # It was good, so that its being refused is its being revoked.
        callers["a revoked key"].get("/v1/events")
        operator.delete(f"{keys}/{revoked['id']}")
        # Revocation holds within five seconds. The other key lives for one, and is believed for as long as that.
        for name, within in (("a revoked key", 5), ("an expired key", 6)):
            eventually(lambda: is_ended(callers[name]), within=within, what=f"{name} is refused")
        return callers | {
            "another tenant's key": self.globex.api,
            "the tenant's key": acme.api,
            "the operator's token": operator,
        }

    def call(
        self, caller: str, operation: Operation, values: dict[str, str], within: str | None = None
    ) -> httpx.Response:
        """What `caller` is answered who asks for `values`, in Acme if the operation is about a tenant.

        `within` is the tenant that is named instead, also beside an id.
        """
        request: dict[str, Any] = {"params": QUERIES.get(operation.id, {})}
        if "tenant_id" in operation.query_parameters and (within or not operation.path_parameters):
            request["params"] = request["params"] | {"tenant_id": within or self.acme.id}
        if operation.takes_body:
            request["json"] = BODIES.get(operation.id, lambda _: {})(self)
        return self._callers[caller].call(operation.method, operation.path(values), **request)

    # --- what they lay hands on ---

    def make(self, *parameters: str, operation: str | None = None) -> dict[str, str]:
        """Something new for each of these parameters of a path."""
        values: dict[str, str] = {}
        for parameter in parameters:
            maker = SPECIAL_MAKERS.get((operation, parameter)) or MAKERS[parameter]
            values[parameter] = maker(self, values)
        return values

    def event(self) -> str:
        return self.stripe.send().event_id

    def held_delivery(self) -> str:
        hourly = {"kind": "schedule", "delays_seconds": [3600]}
        waiting, event_id = self.spare(self.asking, hourly)

        def tried() -> Json:
            # Before its first attempt it is held as well, for a moment.
            delivery = self.acme.delivery(waiting, event_id, "held")
            return delivery if delivery["held_reason"] == "retry" else None

        return str(eventually(tried, within=15, what="the delivery waits for its retry")["id"])

    def dead_letter(self) -> str:
        dying, _ = self.spare(self.failing, quick_retries(1))
        return str(self.acme.dead_letter(dying)["id"])

    def spare(self, endpoint: Endpoint, policy: dict[str, Any]) -> tuple[Subscription, str]:
        """A subscription with one event, which is its alone.

        If there were one subscription for all that fails, its breaker would open, and nothing would fail any more.
        """
        event_type = f"spare.{uuid.uuid4().hex}"
        event_id = self.stripe.send(event_type).event_id
        subscription = self.acme.subscribe(endpoint, event_type, retry_policy=policy)
        # Nobody has to wait until the subscription is in force everywhere.
        path = f"/v1/events/{event_id}/replay"
        self.acme.api.expect(202, "POST", path, json={"subscription_id": subscription.id})
        return subscription, event_id

    def replay(self, *, cancelled: bool) -> str:
        """A job that sets one delivery going at once, and would wait ten seconds before the next."""
        asked = {"filter": {"ids": [self.dead_letter(), self.dead_letter()]}, "rate_per_second": 0.1}
        job = self.acme.api.expect(202, "POST", "/v1/dead-letters/replay", json=asked).json()
        if cancelled:
            self.acme.api.expect(200, "POST", f"/v1/replays/{job['id']}/cancel", json={})
        return str(job["id"])

    def rejected_request(self) -> str:
        def all_of_them() -> list[str]:
            return [one["id"] for one in self.acme.api.every("/v1/rejected-requests", source_id=self.own.id)]

        before = all_of_them()
        self.own.post(b"{}", {})
        new = eventually(
            lambda: [one for one in all_of_them() if one not in before], within=15, what="there is a refused request"
        )
        return new[0]

    # --- what there is ---

    def settle(self) -> None:
        """Waits until nothing happens any more by itself."""

        def at_rest() -> bool:
            deliveries = list(self.stage.operator.every("/v1/deliveries", tenant_id=self.acme.id))
            states = {(delivery["state"], delivery["held_reason"]) for delivery in deliveries}
            return states <= {("held", "retry"), ("dead", None), ("delivered", None), ("cancelled", None)}

        eventually(at_rest, within=15, what="every delivery is held or has ended")

    def state(self) -> dict[str, Json]:
        """All that a call could have changed, as the operator sees it, with what was written into the audit log."""
        operator, acme = self.stage.operator, {"tenant_id": self.acme.id}
        keys = operator.get(f"/v1/tenants/{self.acme.id}/api-keys")
        return {
            "tenants": operator.get("/v1/tenants"),
            # That a key was used is no change.
            "api-keys": [key | {"last_used_at": None} for key in keys["data"]],
            "audit-log": operator.get("/v1/audit-log", limit=5),
            "event-types": operator.get("/v1/event-types", archived="true"),
            "sent": sum(len(endpoint.arrivals) for endpoint in (self.failing, self.asking, self.well)),
        } | {
            name: operator.get(f"/v1/{name}", limit=200, **acme)
            for name in (
                "sources",
                "subscriptions",
                "events",
                "deliveries",
                "dead-letters",
                "replays",
                "rejected-requests",
            )
        }

    def clear(self) -> None:
        operator = self.stage.operator
        for tenant in operator.every("/v1/tenants", external_id=self.mark):
            operator.delete(f"/v1/tenants/{tenant['id']}")
        for entry in operator.every("/v1/event-types", archived="true"):
            if entry["name"].startswith(self.mark):
                operator.delete(f"/v1/event-types/{entry['name']}")


def a_tenant(cast: Cast, _: dict[str, str]) -> str:
    return cast.stage.tenant().id


def a_key(cast: Cast, values: dict[str, str]) -> str:
    path = f"/v1/tenants/{values['tenant_id']}/api-keys"
    return str(cast.stage.operator.create(path, {"name": "Spare", "scopes": ["read"]})["id"])


def a_source(cast: Cast, _: dict[str, str]) -> str:
    return str(cast.acme.api.create("/v1/sources", SOURCE | {"routing": to_tenant(cast.acme)})["id"])


def an_event_type(cast: Cast, _: dict[str, str]) -> str:
    name = f"{cast.mark}.{uuid.uuid4().hex}"
    cast.stage.operator.expect(201, "PUT", f"/v1/event-types/{name}", json={})
    return name


def a_subscription(cast: Cast, _: dict[str, str]) -> str:
    # With a key pair, so that there is a public key to show.
    signatures = [{"scheme": "standard"}, {"scheme": "standard_ed25519"}]
    return cast.acme.subscribe(cast.asking, "nothing.at_all", signatures=signatures).id


def an_unrouted_event(cast: Cast, _: dict[str, str]) -> str:
    return cast.by_account.send(account=f"acct_{uuid.uuid4().hex}").event_id


# For each parameter of a path: how to make something new that it names. A later one may build on those
# before it.
MAKERS: dict[str, Callable[[Cast, dict[str, str]], str]] = {
    "tenant_id": a_tenant,
    "key_id": a_key,
    "source_id": a_source,
    "rejected_request_id": lambda cast, _: cast.rejected_request(),
    "name": an_event_type,
    "subscription_id": a_subscription,
    "event_id": lambda cast, _: cast.event(),
    "delivery_id": lambda cast, _: cast.held_delivery(),
    "dead_letter_id": lambda cast, _: cast.dead_letter(),
    # One that has ended: it does nothing by itself while something else is looked at.
    "replay_id": lambda cast, _: cast.replay(cancelled=True),
}

# Where an operation wants it in a state of its own.
SPECIAL_MAKERS: dict[tuple[str | None, str], Callable[[Cast, dict[str, str]], str]] = {
    ("routeEvent", "event_id"): an_unrouted_event,
    ("cancelReplay", "replay_id"): lambda cast, _: cast.replay(cancelled=False),
}

SOURCE: dict[str, Any] = {"provider": "stripe", "config": {"secrets": ["whsec_permissions"]}}

# The bodies that operations need. Each is good, so that it is never the body that is refused; an operation
# that can do without is sent `{}`.
BODIES: dict[str, Callable[[Cast], Json]] = {
    "createTenant": lambda cast: {"name": "Permitted", "external_id": cast.mark},
    "updateTenant": lambda _: {"name": "Permitted"},
    "createApiKey": lambda _: {"name": "Permitted", "scopes": ["read"]},
    "createSource": lambda cast: SOURCE | {"routing": to_tenant(cast.acme)},
    "updateSource": lambda _: {"rate_limit": {"per_second": 7}},
    "rotateSourceSecret": lambda _: {"secret": "whsec_rotated"},
    "putEventType": lambda _: {"description": "Permitted"},
    "createSubscription": lambda cast: {"url": cast.asking.url, "event_types": ["nothing.at_all"]},
    "updateSubscription": lambda _: {"name": "Permitted"},
    "rotateSubscriptionSecret": lambda _: {},
    "routeEvent": lambda cast: {"tenant_id": cast.acme.id},
    "recoverSubscription": lambda _: {"since": "2026-01-01T00:00:00Z", "dry_run": True},
    "replayDeadLetters": lambda _: {"filter": {}, "dry_run": True},
}

# What has to stand in the query besides the tenant. Each names nothing that is there, and is let in all the same.
QUERIES: dict[str, dict[str, str]] = {
    "purgeDeadLetters": {"older_than_seconds": "34560000"},
}

# Refusals of those who may that end by themselves: an event can be routed as soon as it has left the outbox.
PASSING = {("routeEvent", 409)}


@pytest.fixture(scope="module")
def cast(world: World, operator: Client, gateway: Client, receiver: Receiver, beacon: Beacon) -> Iterator[Cast]:
    stage = Stage(world, operator, gateway, receiver, beacon)
    cast: Cast | None = None
    try:
        cast = Cast(stage)
        yield cast
    finally:
        if cast is not None:
            cast.clear()
        stage.clear()


def test_the_matrix_can_call_every_operation_of_the_contract() -> None:
    parameters = {parameter for operation in OPERATIONS for parameter in operation.path_parameters}
    needing_bodies = {operation.id for operation in OPERATIONS if operation.needs_body}
    taking_bodies = {operation.id for operation in OPERATIONS if operation.takes_body}

    assert parameters == MAKERS.keys(), "something to name in each path, and nothing for paths that are gone"
    assert needing_bodies - BODIES.keys() == set(), "a body for each operation that needs one"
    assert {operation.id for operation in OPERATIONS if operation.needs_query} == QUERIES.keys()
    assert BODIES.keys() - taking_bodies == set(), "no body for operations that take none, or are gone"
    assert {operation for operation, _ in SPECIAL_MAKERS} <= {operation.id for operation in OPERATIONS}


@each_operation
def test_whoever_may_not_is_refused_and_changes_nothing(cast: Cast, operation: Operation) -> None:
    expected = {caller: problem for caller in CALLERS if (problem := refusal(operation, caller))}
    cast.settle()
    before = cast.state()

    answers = {caller: cast.call(caller, operation, cast.known) for caller in expected}

    assert {caller: shown(answer) for caller, answer in answers.items()} == {
        caller: f"/problems/{problem}" for caller, problem in expected.items()
    }
    assert cast.state() == before


@each_operation
def test_whoever_may_is_let_in(cast: Cast, operation: Operation) -> None:
    for caller in CALLERS:
        if refusal(operation, caller) is None:
            # Each gets something new, in a state that allows it: there is no conflict to be excused with.
            values = cast.make(*operation.path_parameters, operation=operation.id)

            def answered() -> httpx.Response:
                answer = cast.call(caller, operation, values)
                assert (operation.id, answer.status_code) not in PASSING, answer.text
                return answer

            answer = eventually(answered, within=10, what="a conflict passes that is no lasting one")
            assert answer.is_success, f"{caller}: {answer.status_code} {answer.text}"


@pytest.mark.parametrize(
    "operation",
    [operation for operation in OPERATIONS if operation.scope and is_a_tenants(operation)],
    ids=lambda operation: operation.id,
)
def test_what_is_anothers_is_refused_as_if_it_did_not_exist(cast: Cast, operation: Operation) -> None:
    nobodys = {parameter: f"{value.split('_')[0]}_{uuid.uuid4().hex}" for parameter, value in cast.known.items()}
    nowhere = f"ten_{uuid.uuid4().hex}"
    pairs = []
    if operation.path_parameters:
        stranger, operator = "another tenant's key", "the operator's token"
        pairs.append((cast.call(stranger, operation, cast.known), cast.call(stranger, operation, nobodys)))
        # And the operator who acts within another tenant.
        pairs.append(
            (
                cast.call(operator, operation, cast.known, within=cast.globex.id),
                cast.call(operator, operation, nobodys, within=cast.globex.id),
            )
        )
    # Who names Acme in the query gets no further than who names a tenant that there is not.
    theirs = cast.call("another tenant's key", operation, cast.known, within=cast.acme.id)
    pairs.append((theirs, cast.call("another tenant's key", operation, cast.known, within=nowhere)))

    names = list(cast.known.values()) + list(nobodys.values()) + [cast.acme.id, nowhere]
    for existing, missing in pairs:
        assert shown(existing) == "/problems/not-found"
        assert without(names, existing) == without(names, missing)
        assert existing.headers.keys() == missing.headers.keys()


def is_ended(caller: Client) -> bool:
    return caller.call("GET", "/v1/events").status_code == 401


def shown(answer: httpx.Response) -> str:
    """The type of a problem; of anything else, what it is."""
    return str(answer.json()["type"]) if answer.is_client_error else f"{answer.status_code} {answer.text}"


def without(names: list[str], problem: httpx.Response) -> Json:
    """A problem, less what names this request and what it asked for."""
    text = problem.text
    for name in names:
        text = text.replace(name, "…")
    return json.loads(text) | {"request_id": None}
