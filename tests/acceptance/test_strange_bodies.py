"""JSON that one parser or other refuses: accepted, passed on byte for byte, of the right type, routed, held to its schema."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .client import Client
from .providers import Source
from .receiver import Endpoint, Receiver
from .stage import Beacon, Stage, address_of, new_slug, wait_for_door
from .strange_bodies import EVENT_TYPE, KINDS
from .tenants import Tenant
from .waiting import eventually
from .world import World

TOKEN = "a-token-of-ours"

# The content type under which a source's requests come, and what its scheme asks of a body.
SCHEMES = {
    "body JSON": ("application/json", "json"),
    "any body": ("text/plain; charset=utf-8", "any"),
    "a form's content type": ("application/x-www-form-urlencoded", "any"),
}

# The payload that receivers get has to have its type, at the very least.
SCHEMA = {"type": "object", "required": ["type", "tenant", "word"], "properties": {"type": {"const": EVENT_TYPE}}}


@dataclass
class Scene:
    stage: Stage
    tenant: Tenant
    endpoint: Endpoint
    sources: dict[str, Source]


@pytest.fixture(scope="module")
def scene(world: World, operator: Client, gateway: Client, receiver: Receiver, beacon: Beacon) -> Iterator[Scene]:
    stage = Stage(world, operator, gateway, receiver, beacon)
    tenant, endpoint = stage.tenant(new_slug("strange")), stage.endpoint()
    tenant.subscribe(endpoint, EVENT_TYPE, payload_format="raw", max_in_flight=50)
    put_schema(stage.operator)
    sources = {name: make_source(stage, body) for name, (_, body) in SCHEMES.items()}
    for source in sources.values():
        wait_for_door(source)
    stage.wait_until_in_force()
    yield Scene(stage, tenant, endpoint, sources)
    for source in sources.values():
        stage.operator.delete(f"/v1/sources/{source.id}")
    stage.operator.delete(f"/v1/event-types/{EVENT_TYPE}")
    stage.clear()


def put_schema(operator: Client) -> None:
    operator.expect(201, "PUT", f"/v1/event-types/{EVENT_TYPE}", json={"schema": SCHEMA})


def make_source(stage: Stage, body: str) -> Source:
    scheme = {
        "algorithm": "token",
        "signature": {"header": "X-Tok"},
        "body": body,
        "extract": {"event_type": {"json": "/type"}, "default_type": "strange.unknown"},
    }
    view = stage.operator.create(
        "/v1/sources",
        {
            "slug": new_slug("strange"),
            "provider": "generic",
            "routing": {"kind": "pointer", "pointer": "/tenant"},
            "validate": "enforce",
            "config": {"secrets": [TOKEN], "scheme": scheme},
        },
    )
    return Source(stage.gateway, view["id"], address_of(view), TOKEN)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_strange_body_is_taken_and_passed_on_as_it_came(scene: Scene, kind: str, scheme: str) -> None:
    content_type, _ = SCHEMES[scheme]
    body = KINDS[kind](scene.tenant.external_id, f"{kind} / {scheme}")

    response = scene.sources[scheme].post(body, {"content-type": content_type, "x-tok": TOKEN})

    # The schema is enforced: what it had judged wrongly would have been refused.
    assert response.status_code == 200, response.text
    (arrival,) = scene.endpoint.expect(1, event_id=response.json()["event_id"])
    assert arrival.body == body
    assert arrival.headers["content-type"] == content_type
    listed = eventually(
        lambda: scene.tenant.api.get("/v1/deliveries", event_id=response.json()["event_id"])["data"],
        within=5,
        what="the delivery is listed",
    )
    assert [delivery["event_type"] for delivery in listed] == [EVENT_TYPE]


def test_a_payload_that_its_schema_does_not_allow_is_refused_whatever_its_content_type_says(scene: Scene) -> None:
    body = b'{"type":"%s","tenant":"%s"}' % (EVENT_TYPE.encode(), scene.tenant.external_id.encode())
    for scheme, (content_type, _) in SCHEMES.items():
        response = scene.sources[scheme].post(body, {"content-type": content_type, "x-tok": TOKEN})
        assert response.status_code == 422, f"{scheme}: {response.text}"
