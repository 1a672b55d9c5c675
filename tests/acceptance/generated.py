"""A client that openapi-python-client made of the contract, and the steps of a test with it."""

import importlib
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .stage import Stage, new_slug
from .waiting import eventually

# Something of a generated package: its types are known at run time only.
Generated = Any

PROBLEM_STATUS = 400


@contextmanager
def imported(directory: Path, name: str) -> Iterator[ModuleType]:
    """The package `name` of `directory`, which is forgotten afterwards."""
    sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(directory))
        for known in [known for known in sys.modules if known.partition(".")[0] == name]:
            del sys.modules[known]


class PythonClient:
    """One caller of one service."""

    def __init__(self, package: ModuleType, url: str, token: str, headers: dict[str, str] | None = None) -> None:
        client: Generated = package
        self.models: Generated = importlib.import_module(f"{package.__name__}.models")
        self._package = package
        # Nothing of the machine's environment decides where requests go.
        http = {"trust_env": False}
        self._client = client.AuthenticatedClient(url, token, headers=headers or {}, timeout=30, httpx_args=http)

    def answer(self, tag: str, operation: str, *path: str, **given: Any) -> Generated:
        """An operation's answer as the client parsed it; `path` are the values of the path's parameters."""
        module: Generated = importlib.import_module(f"{self._package.__name__}.api.{_snake(tag)}.{_snake(operation)}")
        return module.sync_detailed(*path, client=self._client, **given)

    def call(self, tag: str, operation: str, *path: str, **given: Any) -> Generated:
        """The same, and it is no problem."""
        answer = self.answer(tag, operation, *path, **given)
        assert answer.status_code < PROBLEM_STATUS, answer.content
        return answer.parsed


@dataclass(frozen=True)
class Furnished:
    """A tenant with something in each list, made with a generated client."""

    operator: PythonClient
    # The tenant's key.
    caller: PythonClient
    tenant_id: str
    subscription_id: str
    event_type: str
    event_id: str
    delivery_id: str


@contextmanager
def furnished(stage: Stage, package: ModuleType) -> Iterator[Furnished]:
    environment = stage.world.environment
    url = environment["POSTHORN_API_URL"]
    operator = PythonClient(package, url, environment["POSTHORN_OPERATOR_TOKEN"])
    models = operator.models
    tenant = operator.call("tenants", "createTenant", body=models.TenantCreate(name="Acme"))
    event_type = f"invoice.{new_slug('generated')}"
    try:
        operator.call("event-types", "putEventType", event_type, body=models.EventTypePut(description="An invoice."))
        scopes = [models.ScopesItem.READ, models.ScopesItem.WRITE]
        key = operator.call("api-keys", "createApiKey", tenant.id, body=models.ApiKeyCreate("Backend", scopes))
        caller = PythonClient(package, url, key.key)
        token = uuid.uuid4().hex
        source = caller.call("sources", "createSource", body=_source(models, tenant.id, token))
        endpoint = stage.endpoint(then=500)
        once = models.ScheduleRetryPolicy("schedule", delays_seconds=[])
        wanted = models.SubscriptionCreate(endpoint.url, ["invoice.*"], retry_policy=once)
        subscription = caller.call("subscriptions", "createSubscription", body=wanted)

        gateway = PythonClient(package, environment["POSTHORN_GATEWAY_URL"], "unused", {"x-service-token": token})
        stranger = PythonClient(package, environment["POSTHORN_GATEWAY_URL"], "unused")
        address = source.url.rpartition("/")[2]
        sent = models.WebhookBody.from_dict({"total": 42})
        post = ("ingress", "receiveNamedWebhook", address, event_type)
        # The gateway knows the source within a second.
        eventually(lambda: gateway.answer(*post, body=sent).status_code == 200, within=10, what="the source is known")
        refused = stranger.answer(*post, body=sent)
        assert type(refused.parsed) is models.Problem, refused

        def dead() -> Generated:
            deliveries = caller.call("deliveries", "listDeliveries", subscription_id=subscription.id).data
            return [one for one in deliveries if one.state == models.DeliveryState.DEAD]

        delivery = eventually(dead, within=15, what="a delivery is dead")[0]
        asked = models.DeadLetterReplay(models.DeadLetterFilter(event_type="invoice.*"), dry_run=True)
        caller.call("dead-letters", "replayDeadLetters", body=asked)
        known = (tenant.id, subscription.id, event_type, delivery.event_id, delivery.id)
        yield Furnished(operator, caller, *known)
    finally:
        operator.call("event-types", "deleteEventType", event_type)
        operator.call("tenants", "deleteTenant", tenant.id)


def _source(models: Generated, tenant_id: str, token: str) -> Generated:
    return models.SourceCreate(
        provider=models.Provider.INTERNAL,
        routing=models.TenantRouting("tenant", tenant_id),
        config=models.SourceConfigIn(tokens=[token]),
    )


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).replace("-", "_")
