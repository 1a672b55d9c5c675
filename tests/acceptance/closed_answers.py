"""The contract with its answers closed: a field that the contract lacks is a breach.

The published contract leaves answers open, because fields may be added and clients have to bear that. The tests
close them, so that a field which is added to the product is added to the contract as well.
`crates/testkit/src/contract/closed.rs` does the same.
"""

from collections.abc import Iterator
from typing import Any

CLOSED = "unevaluatedProperties"
# A schema with one of these tells of an object's fields, or may do so.
TELLING = ("$ref", "properties", "allOf", "anyOf", "oneOf")


def close(document: dict[str, Any]) -> None:
    """Closes every object that an answer of `document` holds, wherever it is used.

    Schemas are closed where they are used and not where they are defined: one that takes in another with `allOf`
    adds fields to it.
    """
    for schema in _answers(document):
        _close_use(document, schema)


def _answers(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # Paths that do not exist are answered with it.
    yield document["components"]["schemas"]["Problem"]
    for item in document["paths"].values():
        for operation in item.values():
            # Beside its operations a path has parameters and servers.
            for response in operation.get("responses", {}).values() if isinstance(operation, dict) else ():
                for content in resolved(document, response).get("content", {}).values():
                    yield content["schema"]


def _close_use(document: dict[str, Any], schema: dict[str, Any]) -> None:
    if CLOSED in schema:
        return
    if any(word in schema for word in TELLING) and "additionalProperties" not in schema:
        schema[CLOSED] = False
    _close_below(document, schema)


def _close_below(document: dict[str, Any], schema: dict[str, Any]) -> None:
    """Closes the schemas within `schema`, but not itself: it is a part of another."""
    if "$ref" in schema:
        _close_below(document, resolved(document, {"$ref": schema["$ref"]}))
    for word in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(word, ()):
            _close_below(document, part)
    for held in (*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")):
        if isinstance(held, dict):
            _close_use(document, held)


def resolved(document: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """The target of `item`'s reference, or `item` itself."""
    if "$ref" not in item:
        return item
    found: Any = document
    for part in item["$ref"].removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return resolved(document, found)
