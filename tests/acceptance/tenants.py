"""Those who receive."""

from dataclasses import dataclass
from typing import Any

from .client import Client, Json
from .receiver import Endpoint
from .waiting import eventually

# Attempts follow each other so fast that a test can wait for them: 0.1 s, give or take.
QUICKLY: dict[str, Any] = {"kind": "exponential", "base_seconds": 0.1, "factor": 1, "max_delay_seconds": 1}


def quick_retries(max_attempts: int, **fields: Any) -> dict[str, Any]:
    return QUICKLY | {"max_attempts": max_attempts} | fields


@dataclass(frozen=True)
class Subscription:
    id: str
    secret: str
    # As it was created.
    view: Json

    @property
    def path(self) -> str:
        return f"/v1/subscriptions/{self.id}"


@dataclass(frozen=True)
class Tenant:
    """A tenant with a key that may read and write."""

    id: str
    external_id: str
    api: Client

    def subscribe(self, endpoint: Endpoint | str, *event_types: str, **fields: Any) -> Subscription:
        url = endpoint if isinstance(endpoint, str) else endpoint.url
        view = self.api.create("/v1/subscriptions", {"url": url, "event_types": list(event_types)} | fields)
        return Subscription(view["id"], view["secret"], view)

    def deliveries(self, subscription: Subscription, **filters: str) -> list[Json]:
        return list(self.api.every("/v1/deliveries", subscription_id=subscription.id, **filters))

    def delivery(self, subscription: Subscription, event_id: str, state: str, *, within: float = 15.0) -> Json:
        """The event's one delivery to the subscription, with its attempts, as soon as it is in `state`."""

        def found() -> Json:
            deliveries = self.deliveries(subscription, event_id=event_id)
            assert len(deliveries) == 1, f"deliveries of one event to one subscription: {deliveries}"
            whole = self.api.get(f"/v1/deliveries/{deliveries[0]['id']}")
            assert whole["state"] == state, whole
            return whole

        return eventually(found, within=within, what=f"the delivery of {event_id} is {state}")

    def dead_letters(self, subscription: Subscription) -> list[Json]:
        return list(self.api.every("/v1/dead-letters", subscription_id=subscription.id))

    def dead_letter(self, subscription: Subscription, *, within: float = 15.0) -> Json:
        """The subscription's one dead letter, as soon as it is there."""
        letters = eventually(lambda: self.dead_letters(subscription), within=within, what="there is a dead letter")
        assert len(letters) == 1, letters
        return letters[0]
