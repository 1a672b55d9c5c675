"""Two versions of the contract, and which changes between them break clients.

A client of the old version sends requests as that has them, and reads answers as that has them. So each request that
the old version has must be one that the new version takes, and each answer of the new version one that the old has:

- requests: `breaks` finds operations, parameters, fields, values and content types that are no longer taken, new
  requirements, and limits that are narrower;
- answers: it finds statuses, headers and fields that are gone, and new values, types and statuses of success. Fields
  may be added. Limits and patterns are not looked at: they tell how Posthorn writes a value.

Schemas are compared by the values that they allow, so it is no break to give one another name or to take `allOf`
apart. Rules between fields (`if`, `not`, `dependentRequired`) are not compared.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .closed_answers import resolved

Schema = Any
Document = dict[str, Any]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
# The limit of a request is narrower where the new one is less, or more.
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")


def breaks(old: Document, new: Document) -> list[str]:
    """A sentence for each change from `old` to `new` that breaks clients."""
    return list(dict.fromkeys(_Comparison(old, new).sentences()))


@dataclass(frozen=True)
class Shape:
    """Values of one JSON type. A schema is a union of shapes."""

    # `None`: any type.
    type: str | None
    # `None`: any value.
    values: tuple[Any, ...] | None
    rest: Mapping[str, Any]

    @property
    def properties(self) -> Mapping[str, Schema]:
        properties: Mapping[str, Schema] = self.rest.get("properties", {})
        return properties

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.rest.get("required", ()))

    @property
    def is_closed(self) -> bool:
        return self.rest.get("additionalProperties") is False


@dataclass(frozen=True)
class _Side:
    """A document and one of its schemas."""

    document: Document
    schema: Schema

    @property
    def name(self) -> str | None:
        """Of a schema that is referred to and not changed on the way."""
        is_reference = isinstance(self.schema, dict) and "$ref" in self.schema
        plain = is_reference and not self.schema.keys() - {"$ref", "description", "default", "examples"}
        return self.schema["$ref"].rpartition("/")[2] if plain else None

    def shapes(self) -> list[Shape]:
        return _shapes(self.document, self.schema)

    def below(self, schema: Schema) -> "_Side":
        return _Side(self.document, schema)


@dataclass
class _Comparison:
    old: Document
    new: Document
    # Schemas of the same name that were compared, once for requests and once for answers.
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def sentences(self) -> Iterator[str]:
        old, new = _operations(self.old), _operations(self.new)
        for key, before in old.items():
            if key not in new:
                yield f"`{before.name}` is gone."
                continue
            yield from self._operation(before, new[key])

    def _operation(self, old: "_Operation", new: "_Operation") -> Iterator[str]:
        name = old.name
        if old.id != new.id:
            yield f"`{name}` has another `operationId`, by which clients call it."
        for way in old.security:
            if way not in new.security:
                yield f"`{name}` is no longer open to {way}."
        yield from self._parameters(name, old.parameters, new.parameters)
        yield from self._request_body(name, old.body, new.body)
        yield from self._responses(name, old.responses, new.responses)

    def _parameters(self, name: str, old: dict[Any, Schema], new: dict[Any, Schema]) -> Iterator[str]:
        for key, parameter in new.items():
            before = old.get(key, {})
            if parameter.get("required", False) and not before.get("required", False):
                yield f"`{name}` requires the parameter `{key[1]}`."
        for key, parameter in old.items():
            if key not in new:
                yield f"`{name}` no longer takes the parameter `{key[1]}`."
                continue
            before, after = _Side(self.old, parameter["schema"]), _Side(self.new, new[key]["schema"])
            yield from self._request(f"{name}: {key[1]}", before, after)

    def _request_body(self, name: str, old: Schema, new: Schema) -> Iterator[str]:
        if old is None or new is None:
            if old is not None:
                yield f"`{name}` no longer takes a body."
            elif new is not None and new.get("required", False):
                yield f"`{name}` requires a body."
            return
        if new.get("required", False) and not old.get("required", False):
            yield f"`{name}` requires a body."
        for kind, content in old["content"].items():
            if kind not in new["content"]:
                yield f"`{name}` no longer takes a body of the type `{kind}`."
                continue
            before, after = content.get("schema", {}), new["content"][kind].get("schema", {})
            yield from self._request(name, _Side(self.old, before), _Side(self.new, after))

    def _responses(self, name: str, old: dict[str, Schema], new: dict[str, Schema]) -> Iterator[str]:
        for status in new:
            if status not in old and status.startswith("2"):
                yield f"`{name}` may now answer {status}."
        for status, response in old.items():
            if status not in new:
                yield f"`{name}` no longer answers {status}."
                continue
            after = new[status]
            for header in response.get("headers", {}):
                if header not in after.get("headers", {}):
                    yield f"`{name}` answers {status} without the header `{header}`."
            for kind, content in response.get("content", {}).items():
                if kind not in after.get("content", {}):
                    yield f"`{name}` no longer answers {status} with `{kind}`."
                    continue
                of_new = _Side(self.new, _answer_schema(after, status, after["content"][kind]))
                yield from self._answer(name, of_new, _Side(self.old, _answer_schema(response, status, content)))

    def _request(self, place: str, old: _Side, new: _Side) -> Iterator[str]:
        """Values that a client may send by `old` and not by `new`."""
        yield from self._compare("requests", place, old, new)

    def _answer(self, place: str, new: _Side, old: _Side) -> Iterator[str]:
        """Values that a client may read by `new` and not by `old`."""
        yield from self._compare("answers", place, new, old)

    def _compare(self, of: str, place: str, sent: _Side, read: _Side) -> Iterator[str]:
        """Values that `sent` allows and `read` does not: one side writes them, the other reads."""
        if sent.name is not None and sent.name == read.name:
            if (of, sent.name) in self._seen:
                return
            self._seen.add((of, sent.name))
            # The name says more than the way that led to it.
            place = sent.name
        reading = read.shapes()
        for shape in sent.shapes():
            yield from self._shape(of, place, sent, shape, read, reading)

    def _shape(
        self, of: str, place: str, sent: _Side, shape: Shape, read: _Side, reading: list[Shape]
    ) -> Iterator[str]:
        candidates = [other for other in reading if _takes_type(other.type, shape.type)]
        if not candidates:
            yield _told(of, place, f"no longer takes {_of_type(shape)}", f"may now be {_of_type(shape)}")
            return
        # Of several objects the one that is meant is of the same kind, or has the fewest differences: mostly none.
        candidates = [other for other in candidates if not _are_of_two_kinds(shape, other)] or candidates
        best: tuple[list[str], set[tuple[str, str]]] | None = None
        known = self._seen
        for candidate in candidates:
            self._seen = set(known)
            found = list(self._differences(of, place, sent, shape, read, candidate))
            if best is None or len(found) < len(best[0]):
                best = (found, self._seen)
        assert best is not None
        self._seen = best[1]
        yield from best[0]

    def _differences(self, of: str, place: str, sent: _Side, shape: Shape, read: _Side, other: Shape) -> Iterator[str]:
        yield from _values(of, place, shape, other)
        if of == "requests":
            yield from _limits(place, shape, other)
        if shape.type == "object":
            yield from self._fields(of, place, sent, shape, read, other)
        if shape.type == "array" and "items" in other.rest:
            items = (sent.below(shape.rest.get("items", {})), read.below(other.rest["items"]))
            yield from self._compare(of, f"{place}[]", *items)

    def _fields(self, of: str, place: str, sent: _Side, shape: Shape, read: _Side, other: Shape) -> Iterator[str]:
        for name in sorted(other.required - shape.required):
            gone = "is gone" if name not in shape.properties else "may now be absent"
            yield _told(of, f"{place}.{name}", "is now required", gone)
        for name in other.properties:
            if of == "answers" and name not in shape.properties and name not in other.required:
                yield _told(of, f"{place}.{name}", "", "is gone")
        for name, schema in shape.properties.items():
            if name in other.properties:
                of_both = (sent.below(schema), read.below(other.properties[name]))
                yield from self._compare(of, f"{place}.{name}", *of_both)
            elif of == "requests" and other.is_closed:
                yield _told(of, f"{place}.{name}", "is no longer taken", "")
        every, each = shape.rest.get("additionalProperties", True), other.rest.get("additionalProperties", True)
        if isinstance(each, dict) and (isinstance(every, dict) or not shape.properties):
            yield from self._compare(of, f"{place}.*", sent.below({} if every is True else every), read.below(each))
        elif of == "requests" and each is False and every is not False:
            yield _told(of, place, "no longer takes fields of any name", "")


@dataclass(frozen=True)
class _Operation:
    name: str
    id: str
    security: list[str]
    parameters: dict[tuple[str, str], Schema]
    body: Schema
    responses: dict[str, Schema]


def _operations(document: Document) -> dict[tuple[str, str], _Operation]:
    """By method and path; the names of a path's parameters do not matter."""
    found = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            described = item[method]
            parameters = [
                resolved(document, parameter)
                for parameter in item.get("parameters", []) + described.get("parameters", [])
            ]
            names = re.findall(r"\{([^}]+)\}", path)
            found[method, re.sub(r"\{[^}]+\}", "{}", path)] = _Operation(
                name=f"{method.upper()} {path}",
                id=described.get("operationId", ""),
                security=[_way(way) for way in described.get("security", document.get("security", []))],
                parameters={
                    ("path", str(names.index(p["name"]))) if p["in"] == "path" else (p["in"], p["name"]): p
                    for p in parameters
                },
                body=resolved(document, described["requestBody"]) if "requestBody" in described else None,
                responses={
                    str(status): resolved(document, response) for status, response in described["responses"].items()
                },
            )
    return found


def _way(way: dict[str, list[str]]) -> str:
    """A way to authenticate, in words."""
    schemes = [f"`{name}`" + "".join(f" with `{scope}`" for scope in scopes) for name, scopes in way.items()]
    return " and ".join(schemes) or "everybody"


def _answer_schema(response: Schema, status: str, content: Schema) -> Schema:
    """The schema of an answer, with the problem types that are named beside it."""
    schema = content.get("schema", {})
    types = response.get("x-problem-types")
    if types is None:
        return schema
    return {"allOf": [schema, {"properties": {"type": {"enum": types}, "status": {"const": int(status)}}}]}


def _told(of: str, place: str, request: str, answer: str) -> str:
    return f"In {of}, `{place}` {request if of == 'requests' else answer}."


def _of_type(shape: Shape) -> str:
    return "any value" if shape.type is None else f"a value of the type {shape.type}"


def _takes_type(reading: str | None, sent: str | None) -> bool:
    return reading is None or reading == sent or (reading, sent) == ("number", "integer")


def _are_of_two_kinds(one: Shape, other: Shape) -> bool:
    """Whether a field of one value, such as `kind`, tells them apart."""
    kinds = [
        {
            name: value["const"]
            for name, value in shape.properties.items()
            if isinstance(value, dict) and "const" in value
        }
        for shape in (one, other)
    ]
    return any(kinds[0][name] != kinds[1][name] for name in kinds[0].keys() & kinds[1].keys())


def _values(of: str, place: str, sent: Shape, read: Shape) -> Iterator[str]:
    if read.values is None:
        return
    if sent.values is None:
        allowed = ", ".join(f"`{value}`" for value in read.values)
        yield _told(of, place, f"takes only {allowed}", f"may now have values beside {allowed}")
        return
    for value in sent.values:
        if value not in read.values:
            yield _told(of, place, f"no longer takes `{value}`", f"may now be `{value}`")


def _limits(place: str, old: Shape, new: Shape) -> Iterator[str]:
    if old.values is not None:
        # They are compared one by one.
        return
    narrower: list[tuple[tuple[str, ...], Callable[[Any, Any], bool]]] = [
        (UPPER, lambda before, after: before is None or after < before),
        (LOWER, lambda before, after: after > (before or 0) if before is not None else after > 0),
    ]
    for words, is_narrower in narrower:
        for word in words:
            before, after = old.rest.get(word), new.rest.get(word)
            if after is not None and is_narrower(before, after):
                yield _told("requests", place, f"has the `{word}` {after}, and had {_given(before)}", "")
    for word in ("pattern", "format", "uniqueItems", "multipleOf"):
        before, after = old.rest.get(word), new.rest.get(word)
        if after and after != before:
            yield _told("requests", place, f"has the `{word}` `{after}`, and had {_given(before)}", "")


def _given(limit: Any) -> str:
    return "none" if limit is None else f"`{limit}`"


def _shapes(document: Document, schema: Schema) -> list[Shape]:
    flat = _flat(document, schema)
    for word in ("anyOf", "oneOf"):
        if word in flat:
            rest = {key: value for key, value in flat.items() if key != word}
            alternatives = [{"allOf": [rest, alternative]} for alternative in flat[word]]
            return [shape for alternative in alternatives for shape in _shapes(document, alternative)]
    values = (flat["const"],) if "const" in flat else tuple(flat["enum"]) if "enum" in flat else None
    shapes = []
    for kind in _types(flat):
        of_kind = values if values is None or kind is None else tuple(v for v in values if _is_of_type(v, kind))
        if of_kind == (None,):
            # There is one value of this type.
            of_kind = None
        if of_kind != ():
            shapes.append(Shape(kind, of_kind, flat))
    return shapes


def _flat(document: Document, schema: Schema) -> dict[str, Any]:
    """`schema` without `$ref` and `allOf`."""
    if not isinstance(schema, dict):
        # `true` allows everything; nothing here says `false`.
        return {}
    flat = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
    parts = [resolved(document, {"$ref": schema["$ref"]})] if "$ref" in schema else []
    for part in parts + schema.get("allOf", []):
        flat = _both(flat, _flat(document, part))
    return flat


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The schema of the values that both allow."""
    merged = one | other
    for word in one.keys() & other.keys():
        a, b = one[word], other[word]
        if word == "properties":
            merged[word] = a | b | {name: {"allOf": [a[name], b[name]]} for name in a.keys() & b.keys()}
        elif word == "required":
            merged[word] = [*a, *(name for name in b if name not in a)]
        elif word == "type":
            merged[word] = [kind for kind in _list(a) if kind in _list(b)]
        elif word == "enum":
            merged[word] = [value for value in a if value in b]
        elif word == "items":
            merged[word] = {"allOf": [a, b]}
        elif word == "additionalProperties":
            merged[word] = a if b is True else b
        elif word in UPPER:
            merged[word] = min(a, b)
        elif word in LOWER:
            merged[word] = max(a, b)
    return merged


def _types(flat: Mapping[str, Any]) -> list[str | None]:
    if "type" in flat:
        return list(_list(flat["type"]))
    if "const" in flat or "enum" in flat:
        values = [flat["const"]] if "const" in flat else flat["enum"]
        return list(dict.fromkeys(_type_of(value) for value in values))
    if flat.keys() & {"properties", "required", "additionalProperties"}:
        return ["object"]
    return ["array"] if "items" in flat else [None]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _is_of_type(value: Any, kind: str) -> bool:
    return _takes_type(kind, _type_of(value))
