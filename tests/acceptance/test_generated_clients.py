"""Clients that generators make of the contract: they are made without a complaint, and they work."""

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from . import generators
from .closed_answers import resolved
from .generated import Furnished, Generated, furnished, imported
from .stage import Stage
from .waiting import eventually

DOCUMENT: dict[str, Any] = yaml.safe_load(generators.CONTRACT.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Listing:
    """An operation that answers with a page of a list."""

    operation: str
    tag: str
    path: str
    # The name of the page's schema.
    schema: str


def listings() -> Iterator[Listing]:
    for path, item in DOCUMENT["paths"].items():
        operation = item.get("get", {"responses": {}})
        content = operation["responses"].get("200", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        if "next_cursor" in resolved(DOCUMENT, schema).get("properties", {}):
            yield Listing(operation["operationId"], operation["tags"][0], path, schema["$ref"].rpartition("/")[2])


LISTINGS = list(listings())


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package that openapi-python-client makes."""
    directory = tmp_path_factory.mktemp("openapi-python-client")
    generators.python_client(directory, "posthorn_client")
    with imported(directory, "posthorn_client") as package:
        yield package


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the npm packages."""
    directory = tmp_path_factory.mktemp("node")
    generators.npm_packages(directory)
    return directory


@pytest.fixture
def made(stage: Stage, package: ModuleType) -> Iterator[Furnished]:
    with furnished(stage, package) as made:
        yield made


def path_values(listing: Listing, made: Furnished) -> dict[str, str]:
    known = {"tenant_id": made.tenant_id, "event_id": made.event_id}
    return {name: value for name, value in known.items() if f"{{{name}}}" in listing.path}


def test_the_contract_has_lists() -> None:
    assert len(LISTINGS) >= 13


def test_openapi_python_client_parses_every_list(made: Furnished) -> None:
    for listing in LISTINGS:

        def page(listing: Listing = listing) -> Generated:
            page = made.operator.call(listing.tag, listing.operation, *path_values(listing, made).values())
            return page if page.data else None

        # Requests that were refused are written in batches.
        found = eventually(page, within=15, what=f"{listing.operation} has an item")
        assert type(found) is getattr(made.operator.models, listing.schema)
        assert all(not item.additional_properties for item in (found, *found.data)), "a field that the contract lacks"


def test_what_openapi_python_client_parses_has_types(made: Furnished) -> None:
    models = made.caller.models
    delivery = made.caller.call("deliveries", "getDelivery", made.delivery_id)
    attempt = delivery.attempts[0]

    assert (delivery.state, delivery.held_reason) == (models.DeliveryState.DEAD, None)
    assert (delivery.event_type, delivery.generation) == (made.event_type, 1)
    assert isinstance(delivery.created_at, datetime) and delivery.updated_at >= delivery.created_at
    assert (attempt.status_code, attempt.trigger) == (500, models.AttemptTrigger.DISPATCH)
    assert attempt.response_headers.additional_properties, "headers of the endpoint"
    paused = made.caller.call("subscriptions", "pauseSubscription", made.subscription_id)
    assert paused.state == models.SubscriptionState.PAUSED


def test_openapi_python_client_parses_problems(made: Furnished) -> None:
    models = made.caller.models

    missing = made.caller.answer("subscriptions", "getSubscription", f"sub_{uuid.uuid4().hex}").parsed
    assert type(missing) is models.Problem
    assert (missing.type_, missing.status) == ("/problems/not-found", 404)
    wrong = models.SubscriptionCreate("ftp://example.com/", ["invoice.*"])
    refused = made.caller.answer("subscriptions", "createSubscription", body=wrong).parsed
    assert type(refused) is models.ValidationProblem
    assert [error.pointer for error in refused.errors] == ["/url"]


# A source has a field with the name of a method of theirs, which changes nothing.
@pytest.mark.filterwarnings("ignore:Field name .* shadows")
def test_the_models_of_openapi_generator_parse_every_list(made: Furnished, stage: Stage, tmp_path: Path) -> None:
    directory = tmp_path / "python"
    generators.openapi_generator("python", directory, packageName="posthorn_models")

    with imported(directory, "posthorn_models.models") as models:
        for listing in LISTINGS:
            page = stage.operator.get(listing.path.format(**path_values(listing, made)))
            parsed = getattr(models, listing.schema).from_dict(page)
            assert len(parsed.data) == len(page["data"]), listing


def test_the_types_of_openapi_typescript_are_exact(node: Path) -> None:
    generators.typescript_types(node, "contract.ts")
    shutil.copy(generators.TYPESCRIPT / "client.ts", node)

    generators.check_typescript(node, "client.ts")


def test_the_typescript_client_of_openapi_generator_compiles(node: Path) -> None:
    generators.openapi_generator("typescript-fetch", node / "typescript-fetch")

    generators.check_typescript(node, "typescript-fetch/index.ts")


def test_openapi_generator_makes_a_client_in_go(tmp_path: Path) -> None:
    generators.openapi_generator("go", tmp_path / "go")

    assert list((tmp_path / "go").glob("api_*.go"))
