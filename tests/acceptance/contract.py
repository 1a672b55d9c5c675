"""`proto/openapi.yaml` with its answers closed, and checks of an exchange against it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import yaml
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from .closed_answers import close

CONTRACT_URI = "urn:posthorn:contract"

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


class ContractBreach(AssertionError):
    """An answer that the contract does not allow."""


@dataclass(frozen=True)
class Route:
    """A path of the contract with its operations."""

    template: str
    pattern: re.Pattern[str]
    item: dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """A method of a path, and what the contract says of who may use it and how."""

    id: str
    method: str
    template: str
    path_parameters: tuple[str, ...]
    query_parameters: tuple[str, ...]
    needs_query: bool
    needs_body: bool
    takes_body: bool
    # What a tenant's key needs for it; `None` where it is the operator's alone.
    scope: str | None

    def path(self, values: Mapping[str, str]) -> str:
        return self.template.format_map(values)


class Contract:
    def __init__(self, file: Path) -> None:
        self._document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        close(self._document)
        resource: Resource[Any] = Resource.from_contents(self._document, default_specification=DRAFT202012)
        self._registry = Registry().with_resource(CONTRACT_URI, resource)
        self._validators: dict[str, Draft202012Validator] = {}
        self._routes = [
            Route(template, _pattern(template), item)
            # The more literal template wins: fewer parameters first.
            for template, item in sorted(self._document["paths"].items(), key=lambda entry: entry[0].count("{"))
        ]

    def write(self, file: Path) -> None:
        """Writes the contract with its answers closed."""
        file.write_text(yaml.safe_dump(self._document, sort_keys=False, allow_unicode=True), encoding="utf-8")

    def operations(self, below: str) -> list[Operation]:
        """Every operation of the paths that begin with `below`, in the contract's order."""
        return [
            self._operation(template, item, method)
            for template, item in self._document["paths"].items()
            if template.startswith(below)
            for method in METHODS
            if method in item
        ]

    def _operation(self, template: str, item: dict[str, Any], method: str) -> Operation:
        described = item[method]
        parameters = [
            self._resolved(parameter, "")[0]
            for parameter in item.get("parameters", []) + described.get("parameters", [])
        ]
        named = {place: tuple(p["name"] for p in parameters if p["in"] == place) for place in ("path", "query")}
        body = described.get("requestBody")
        return Operation(
            id=described["operationId"],
            method=method.upper(),
            template=template,
            path_parameters=named["path"],
            query_parameters=named["query"],
            needs_query=any(p["in"] == "query" and p.get("required", False) for p in parameters),
            needs_body=body is not None and body.get("required", False),
            takes_body=body is not None,
            scope=_scope(described["security"]),
        )

    def check(self, response: httpx.Response) -> None:
        """Fails unless `response` is one that the contract has for its request."""
        request = response.request
        try:
            self._check(request, response)
        except ContractBreach as breach:
            raise ContractBreach(
                f"{breach}\n{request.method} {request.url.raw_path.decode()} {_shown(_content(request))}"
                f"\n→ {response.status_code} {dict(response.headers)} {_shown(response.content)}"
            ) from None

    def _check(self, request: httpx.Request, response: httpx.Response) -> None:
        route = next((route for route in self._routes if route.pattern.fullmatch(request.url.path)), None)
        if route is None:
            self._check_problem(response, 404)
            return
        operation = route.item.get(request.method.lower())
        if operation is None:
            self._check_problem(response, 405)
            if "allow" not in response.headers:
                raise ContractBreach("405 without `allow`")
            return
        pointer = f"/paths/{_escaped(route.template)}/{request.method.lower()}"
        self._check_response(operation, pointer, response)
        if response.is_success:
            self._check_request(operation, pointer, request)

    def _check_response(self, operation: dict[str, Any], pointer: str, response: httpx.Response) -> None:
        responses = operation["responses"]
        status = str(response.status_code)
        key = next((key for key in (status, f"{status[0]}XX") if key in responses), None)
        if key is None:
            raise ContractBreach(f"the contract has no {status} for this operation")
        described, at = self._resolved(responses[key], f"{pointer}/responses/{key}")
        self._check_headers(described.get("headers", {}), f"{at}/headers", response.headers)
        self._check_body(described.get("content"), f"{at}/content", response)
        types = described.get("x-problem-types")
        if types is not None:
            problem = response.json()
            if problem["type"] not in types or problem["status"] != response.status_code:
                raise ContractBreach(f"a problem of another kind than {types}")

    def _check_headers(self, headers: dict[str, Any], at: str, given: httpx.Headers) -> None:
        for name, reference in headers.items():
            header, header_at = self._resolved(reference, f"{at}/{_escaped(name)}")
            if name in given:
                text = given[name]
                value: object = int(text) if header["schema"].get("type") == "integer" and text.isdigit() else text
                self._check_schema(f"{header_at}/schema", value, f"header `{name}`")
            elif header.get("required"):
                raise ContractBreach(f"header `{name}` is missing")

    def _check_body(self, content: dict[str, Any] | None, at: str, response: httpx.Response) -> None:
        if content is None:
            if response.content:
                raise ContractBreach("a body where the contract has none")
            return
        media_type = response.headers.get("content-type", "").split(";")[0].strip().lower()
        key = next((key for key in (media_type, "*/*") if key in content), None)
        if key is None:
            raise ContractBreach(f"the content type is `{media_type}` and not one of {sorted(content)}")
        # Under `*/*` any bytes are allowed, also those of a JSON text.
        value = response.json() if key.endswith("json") else response.text
        self._check_schema(f"{at}/{_escaped(key)}/schema", value, "the body")

    def _check_request(self, operation: dict[str, Any], pointer: str, request: httpx.Request) -> None:
        """What is accepted, the contract has to allow: clients are generated from it."""
        content = operation.get("requestBody", {}).get("content", {})
        body = _content(request)
        # The gateway takes any bytes.
        if body and "application/json" in content and request.url.path.startswith("/v1/"):
            at = f"{pointer}/requestBody/content/{_escaped('application/json')}/schema"
            self._check_schema(at, json.loads(body), "the accepted request")

    def _check_problem(self, response: httpx.Response, status: int) -> None:
        """Of what the contract has no operation for, it says that it is refused with a problem."""
        if response.status_code != status:
            raise ContractBreach(f"the contract does not know this operation, which is {status}")
        if response.headers.get("content-type") != "application/problem+json":
            raise ContractBreach("a refusal that is no `application/problem+json`")
        self._check_schema("/components/schemas/Problem", response.json(), "the problem")

    def _check_schema(self, pointer: str, value: object, what: str) -> None:
        if pointer not in self._validators:
            self._validators[pointer] = Draft202012Validator(
                {"$ref": f"{CONTRACT_URI}#{pointer}"},
                registry=self._registry,
                format_checker=FormatChecker(),
            )
        errors = [f"{error.json_path}: {error.message}" for error in self._validators[pointer].iter_errors(value)]
        if errors:
            raise ContractBreach(f"{what} is not as the contract has it: " + "; ".join(errors))

    def _resolved(self, item: dict[str, Any], pointer: str) -> tuple[dict[str, Any], str]:
        """What `item` refers to, and where that stands."""
        if "$ref" not in item:
            return item, pointer
        pointer = item["$ref"].removeprefix("#")
        found: Any = self._document
        for part in pointer.strip("/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return cast(dict[str, Any], found), pointer


def _scope(security: list[dict[str, list[str]]]) -> str | None:
    """The one scope of the scheme `apiKey`, where an operation has that scheme beside the operator's."""
    assert {"operatorToken": []} in security, f"what the operator may not do: {security}"
    scopes = [scope for way in security for scope in way.get("apiKey", [])]
    assert len(scopes) == len(security) - 1 <= 1, f"a tenant's key needs one scope, or is of no use: {security}"
    return scopes[0] if scopes else None


def _pattern(template: str) -> re.Pattern[str]:
    literal = (re.escape(part) for part in re.split(r"\{[^}]+\}", template))
    return re.compile("[^/]+".join(literal))


def _escaped(part: str) -> str:
    # As it stands in the fragment of a URI.
    return part.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")


def _content(request: httpx.Request) -> bytes:
    """The body, unless it was streamed: then it is gone."""
    try:
        return request.content
    except httpx.RequestNotRead:
        return b""


def _shown(content: bytes) -> str:
    return content[:2000].decode("utf-8", "replace")
