"""What is not proven to be the provider's is refused by name, delivered to nobody, and uses up no key."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .client import Client
from .forgeries import FORGERIES, Forgery
from .parties import PARTIES, Party
from .providers import Source
from .receiver import Endpoint, Receiver
from .stage import Beacon, Stage, to_tenant
from .tenants import Tenant
from .waiting import eventually
from .world import World


@dataclass(frozen=True)
class Door:
    """A source, and the one tenant to whom its events go."""

    party: Party
    source: Source
    tenant: Tenant
    endpoint: Endpoint

    def events(self) -> set[str]:
        return {event["id"] for event in self.tenant.api.every("/v1/events")}

    def refused(self, operator: Client) -> Counter[str]:
        """How many requests were refused, by reason."""
        return Counter(
            rejected["reason"] for rejected in operator.every("/v1/rejected-requests", source_id=self.source.id)
        )


@pytest.fixture(scope="module")
def doors(
    world: World, operator: Client, gateway: Client, receiver: Receiver, beacon: Beacon
) -> Iterator[dict[str, Door]]:
    """One for each party. Nothing is left at a door by a request that is refused, so all may use it."""
    stage = Stage(world, operator, gateway, receiver, beacon)
    doors = {}
    for name, party in PARTIES.items():
        tenant, endpoint = stage.tenant(), stage.endpoint()
        tenant.subscribe(endpoint, "*")
        doors[name] = Door(party, party.source(stage, to_tenant(tenant)), tenant, endpoint)
    stage.wait_until_in_force()
    yield doors
    stage.clear()


@pytest.mark.parametrize(
    ("party", "forgery"),
    [
        pytest.param(party, forgery, id=f"{party}: {name}")
        for party, forgeries in FORGERIES.items()
        for name, forgery in forgeries.items()
    ],
)
def test_a_forgery_is_refused_and_the_genuine_request_is_new_afterwards(
    operator: Client, doors: dict[str, Door], party: str, forgery: Forgery
) -> None:
    door = doors[party]
    genuine = door.party.request(door.source)
    events, arrived, refused = door.events(), door.endpoint.counted(), door.refused(operator)

    answer = door.source.answer(forgery.request(door.source, genuine))

    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (forgery.status, f"/problems/{forgery.problem}"), problem
    receipt = door.source.sent(genuine)
    assert not receipt.duplicate
    # What came later has arrived, so what was on the way before it would have arrived as well.
    door.endpoint.expect(1, event_id=receipt.event_id)
    assert door.endpoint.counted() - arrived == {receipt.event_id: 1}
    assert door.events() - events == {receipt.event_id}
    if forgery.reason is not None:
        kept = {forgery.reason: 1}
        eventually(lambda: door.refused(operator) - refused == kept, within=10, what=f"it is kept as {forgery.reason}")
