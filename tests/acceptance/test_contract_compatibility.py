"""The contract breaks no client of the newest release, but for the changes that are listed with a reason."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .contract_compatibility import Document, breaks
from .world import ROOT

RELEASED = ROOT / "proto/released"


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def newest() -> Path:
    def version(file: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", file.stem)]

    return max(RELEASED.glob("openapi-*.yaml"), key=version)


def test_only_deliberate_changes_break_clients() -> None:
    deliberate = read(RELEASED / "deliberate-breaks.yaml") or []
    assert all(entry["reason"] for entry in deliberate)

    assert sorted(breaks(read(newest()), read(ROOT / "proto/openapi.yaml"))) == sorted(
        entry["break"] for entry in deliberate
    )


THING = {
    "type": "object",
    "required": ["id", "state"],
    "properties": {
        "id": {"type": "string"},
        "state": {"type": "string", "enum": ["on", "off"]},
        "note": {"type": "string"},
        "count": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
WISH = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": ["string", "null"], "maxLength": 20},
        "state": {"enum": ["on", "off"]},
        "size": {"type": "number", "minimum": 1},
        "policy": {
            "oneOf": [
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["kind"],
                    "properties": {"kind": {"const": kind}, "seconds": {"type": "integer"}},
                }
                for kind in ("fixed", "growing")
            ]
        },
    },
}
PROBLEM = {
    "type": "object",
    "required": ["type", "status"],
    "properties": {"type": {"type": "string"}, "status": {"type": "integer"}},
}


def document() -> Document:
    """A contract of one path."""
    answer = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}
    post = {
        "operationId": "makeThing",
        "security": [{"operatorToken": []}, {"apiKey": ["write"]}],
        "parameters": [{"name": "mode", "in": "query", "schema": {"type": "string", "enum": ["fast", "slow"]}}],
        "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Wish"}}}},
        "responses": {
            "200": answer | {"headers": {"etag": {"schema": {"type": "string"}}}},
            "404": {
                "x-problem-types": ["/problems/not-found"],
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }
    get = {"operationId": "listThings", "security": [{"apiKey": ["read"]}], "responses": {"200": answer}}
    schemas = {"Thing": THING, "Wish": WISH, "Problem": PROBLEM}
    return copy.deepcopy(
        {"paths": {"/things/{thing_id}": {"get": get, "post": post}}, "components": {"schemas": schemas}}
    )


Change = Callable[[Document], Any]


def post(new: Document) -> Any:
    return new["paths"]["/things/{thing_id}"]["post"]


def schema(new: Document, name: str) -> Any:
    return new["components"]["schemas"][name]


def field(name: str, of: str, **changed: Any) -> Change:
    """Sets keywords of a field's schema; `None` takes one away."""

    def change(new: Document) -> None:
        found = schema(new, of)["properties"].setdefault(name, {})
        found.update(changed)
        for word in [word for word, value in changed.items() if value is None]:
            del found[word]

    return change


def without_field(name: str, of: str) -> Change:
    def change(new: Document) -> None:
        del schema(new, of)["properties"][name]
        schema(new, of)["required"] = [kept for kept in schema(new, of)["required"] if kept != name]

    return change


BREAKS: list[tuple[str, Change]] = [
    ("`GET /things/{thing_id}` is gone.", lambda new: new["paths"]["/things/{thing_id}"].pop("get")),
    (
        "`POST /things/{thing_id}` has another `operationId`, by which clients call it.",
        lambda new: post(new).update(operationId="createThing"),
    ),
    (
        "`POST /things/{thing_id}` is no longer open to `apiKey` with `write`.",
        lambda new: post(new)["security"].pop(),
    ),
    # Parameters.
    ("`POST /things/{thing_id}` no longer takes the parameter `mode`.", lambda new: post(new)["parameters"].pop()),
    (
        "`POST /things/{thing_id}` requires the parameter `mode`.",
        lambda new: post(new)["parameters"][0].update(required=True),
    ),
    (
        "`POST /things/{thing_id}` requires the parameter `limit`.",
        lambda new: post(new)["parameters"].append({"name": "limit", "in": "query", "required": True, "schema": {}}),
    ),
    (
        "In requests, `POST /things/{thing_id}: mode` no longer takes `slow`.",
        lambda new: post(new)["parameters"][0]["schema"].update(enum=["fast"]),
    ),
    # Bodies of requests.
    ("`POST /things/{thing_id}` requires a body.", lambda new: post(new)["requestBody"].update(required=True)),
    ("`POST /things/{thing_id}` no longer takes a body.", lambda new: post(new).pop("requestBody")),
    (
        "`POST /things/{thing_id}` no longer takes a body of the type `application/json`.",
        lambda new: post(new)["requestBody"].update(content={"text/xml": {}}),
    ),
    ("In requests, `Wish.size` is no longer taken.", without_field("size", "Wish")),
    ("In requests, `Wish.size` is now required.", lambda new: schema(new, "Wish")["required"].append("size")),
    ("In requests, `Wish.name` no longer takes a value of the type null.", field("name", "Wish", type="string")),
    ("In requests, `Wish.size` no longer takes a value of the type number.", field("size", "Wish", type="integer")),
    ("In requests, `Wish.state` no longer takes `off`.", field("state", "Wish", enum=["on"])),
    ("In requests, `Wish.name` takes only `Acme`.", field("name", "Wish", enum=["Acme", None])),
    ("In requests, `Wish.name` has the `maxLength` 10, and had `20`.", field("name", "Wish", maxLength=10)),
    ("In requests, `Wish.size` has the `maximum` 9, and had none.", field("size", "Wish", maximum=9)),
    ("In requests, `Wish.size` has the `minimum` 2, and had `1`.", field("size", "Wish", minimum=2)),
    ("In requests, `Wish.name` has the `pattern` `^a`, and had none.", field("name", "Wish", pattern="^a")),
    (
        "In requests, `Wish.policy.kind` no longer takes `growing`.",
        lambda new: schema(new, "Wish")["properties"]["policy"]["oneOf"].pop(),
    ),
    (
        "In requests, `Wish.policy.seconds` is no longer taken.",
        lambda new: schema(new, "Wish")["properties"]["policy"]["oneOf"][1]["properties"].pop("seconds"),
    ),
    # Answers.
    ("`POST /things/{thing_id}` no longer answers 404.", lambda new: post(new)["responses"].pop("404")),
    ("`POST /things/{thing_id}` may now answer 202.", lambda new: post(new)["responses"].update({"202": {}})),
    (
        "`POST /things/{thing_id}` answers 200 without the header `etag`.",
        lambda new: post(new)["responses"]["200"].pop("headers"),
    ),
    (
        "`POST /things/{thing_id}` no longer answers 200 with `application/json`.",
        lambda new: post(new)["responses"]["200"].update(content={"text/xml": {}}),
    ),
    (
        "In answers, `POST /things/{thing_id}.type` may now be `/problems/conflict`.",
        lambda new: post(new)["responses"]["404"]["x-problem-types"].append("/problems/conflict"),
    ),
    ("In answers, `Thing.id` is gone.", without_field("id", "Thing")),
    ("In answers, `Thing.note` is gone.", without_field("note", "Thing")),
    ("In answers, `Thing.id` may now be absent.", lambda new: schema(new, "Thing").update(required=["state"])),
    ("In answers, `Thing.id` may now be a value of the type null.", field("id", "Thing", type=["string", "null"])),
    ("In answers, `Thing.count` may now be a value of the type number.", field("count", "Thing", type="number")),
    ("In answers, `Thing.count` may now be any value.", field("count", "Thing", type=None)),
    ("In answers, `Thing.state` may now be `lost`.", field("state", "Thing", enum=["on", "off", "lost"])),
    ("In answers, `Thing.state` may now have values beside `on`, `off`.", field("state", "Thing", enum=None)),
    (
        "In answers, `Thing.tags[]` may now be a value of the type integer.",
        field("tags", "Thing", items={"type": ["string", "integer"]}),
    ),
    (
        "In answers, `Thing.labels.*` may now be a value of the type integer.",
        field("labels", "Thing", additionalProperties={"type": ["string", "integer"]}),
    ),
]


@pytest.mark.parametrize(("sentence", "change"), BREAKS, ids=[sentence for sentence, _ in BREAKS])
def test_a_change_that_breaks_clients_is_told(sentence: str, change: Change) -> None:
    new = document()
    change(new)

    assert breaks(document(), new) == [sentence]


def in_two_parts(new: Document) -> None:
    """Two schemas say together what one said."""
    thing = schema(new, "Thing")
    note = {"type": "object", "properties": {"note": thing["properties"].pop("note")}}
    new["components"]["schemas"] |= {"Base": thing, "Thing": {"allOf": [{"$ref": "#/components/schemas/Base"}, note]}}


def under_another_name(new: Document) -> None:
    schemas = new["components"]["schemas"]
    schemas["Item"] = schemas.pop("Thing")
    for operation in new["paths"]["/things/{thing_id}"].values():
        content = operation["responses"]["200"]["content"]
        content["application/json"]["schema"] = {"$ref": "#/components/schemas/Item", "description": "The thing."}


def renamed_path_parameter(new: Document) -> None:
    new["paths"]["/things/{id}"] = new["paths"].pop("/things/{thing_id}")


def types_in_the_schema(new: Document) -> None:
    """A problem's types beside the schema, or within it."""
    answer = post(new)["responses"]["404"]
    types = {"properties": {"type": {"enum": answer.pop("x-problem-types")}, "status": {"const": 404}}}
    content = answer["content"]["application/problem+json"]
    content["schema"] = {"allOf": [content["schema"], types]}


NO_BREAKS: list[Change] = [
    lambda new: new["paths"].update({"/more": {"get": {"operationId": "more", "responses": {}}}}),
    lambda new: post(new)["parameters"].append({"name": "limit", "in": "query", "schema": {"type": "integer"}}),
    lambda new: post(new)["responses"].update({"429": {}}),
    field("more", "Wish", type="string"),
    field("state", "Wish", enum=["on", "off", "paused"]),
    field("name", "Wish", maxLength=30),
    field("size", "Wish", minimum=None),
    field("name", "Wish", type=None, maxLength=None, anyOf=[{"type": "string", "maxLength": 20}, {"type": "null"}]),
    field("more", "Thing", type="string"),
    field("state", "Thing", enum=["on"]),
    lambda new: schema(new, "Thing")["required"].append("note"),
    lambda new: schema(new, "Wish").update(required=[]),
    in_two_parts,
    under_another_name,
    renamed_path_parameter,
    types_in_the_schema,
]


@pytest.mark.parametrize("change", NO_BREAKS)
def test_other_changes_break_no_client(change: Change) -> None:
    new = document()
    change(new)

    assert breaks(document(), new) == []
