"""What one test sets up: tenants, sources, endpoints. All of it goes when the test ends."""

import itertools
import secrets
import uuid
from typing import Any, TypeVar

from .client import Client
from .internet import self_signed
from .providers import (
    GOOGLE_KEYS,
    SNS_HOST,
    Close,
    Internal,
    Pubsub,
    Ses,
    Source,
    Stripe,
    Telnyx,
    Twilio,
    key_set,
    new_ed25519_keys,
    new_stripe_secret,
    rsa_key,
    rsa_pem,
)
from .receiver import Endpoint, Receiver, Reply
from .tenants import Tenant
from .waiting import eventually
from .world import World

# The promise is one second; on a machine that is busy with something else it is no failure to be late.
# One test holds the promise to its word.
IN_FORCE_SECONDS = 10.0

S = TypeVar("S", bound=Source)


class Beacon:
    """Tells when all that was changed so far is in force.

    Every change reaches a process on the same way and in the order of the changes. So one more change is
    made, to a subscription kept for it, and when its effect is seen, those before it are in force as well.
    """

    def __init__(self, operator: Client, gateway: Client, receiver: Receiver) -> None:
        self._numbers = itertools.count(1)
        self._endpoint = receiver.endpoint()
        external_id = f"beacon-{uuid.uuid4().hex}"
        tenant = operator.create("/v1/tenants", {"name": "Beacon", "external_id": external_id})
        self._subscription = operator.create(
            "/v1/subscriptions",
            {"tenant_id": tenant["id"], "url": self._endpoint.url, "event_types": ["beacon.0"]},
        )
        self._operator = operator
        self._source = make_internal(operator, gateway, {"kind": "tenant", "tenant_id": tenant["id"]})

    def wait(self) -> None:
        number = next(self._numbers)
        event_type = f"beacon.{number}"
        # The dispatcher knows the change when it matches, the worker when it sends the header.
        change = {"event_types": [event_type], "headers": {"X-Beacon": str(number)}}
        self._operator.change(f"/v1/subscriptions/{self._subscription['id']}", change)

        def seen() -> bool:
            self._source.send(event_type)
            return any(arrival.headers.get("x-beacon") == str(number) for arrival in self._endpoint.arrivals)

        wait_for_door(self._source)
        eventually(seen, within=IN_FORCE_SECONDS, what="a change of a subscription is in force")


class Stage:
    def __init__(self, world: World, operator: Client, gateway: Client, receiver: Receiver, beacon: Beacon) -> None:
        self.world = world
        self.operator = operator
        self.gateway = gateway
        self._receiver = receiver
        self._beacon = beacon
        self._tenants: list[Tenant] = []
        self._sources: list[Source] = []

    def tenant(self, external_id: str | None = None) -> Tenant:
        external_id = external_id or f"acct_{uuid.uuid4().hex}"
        tenant = self.operator.create("/v1/tenants", {"name": "Acme", "external_id": external_id})
        key = self.key(tenant["id"], "read", "write")
        made = Tenant(tenant["id"], external_id, self.operator.as_caller(key))
        self._tenants.append(made)
        return made

    def key(self, tenant_id: str, *scopes: str) -> str:
        created = self.operator.create(f"/v1/tenants/{tenant_id}/api-keys", {"name": "Test", "scopes": list(scopes)})
        return str(created["key"])

    def endpoint(self, *replies: Reply | int, then: Reply | int = 200) -> Endpoint:
        return self._receiver.endpoint(*replies, then=then)

    # --- sources of the operator ---

    def stripe(self, routing: dict[str, str], **fields: Any) -> Stripe:
        """`fields` are those of the API."""
        secret = new_stripe_secret()
        fields = {"config": {"secrets": [secret]}} | fields
        return self._source(Stripe, "stripe", routing, fields, secret)

    # `config` is added to what a source of the provider needs, or replaces some of it.

    def twilio(self, routing: dict[str, str], **config: Any) -> Twilio:
        token, url = secrets.token_hex(16), "https://hooks.example.com/in/twilio"
        needed = {"secrets": [token], "public_url": url}
        return self._source(Twilio, "twilio", routing, {"config": needed | config}, token, public_url=url)

    def ses(self, routing: dict[str, str], **config: Any) -> Ses:
        """Its certificate is at a URL of its own."""
        topic = f"arn:aws:sns:eu-central-1:123456789012:{new_slug('ses')}"
        url = f"https://{SNS_HOST}/SimpleNotificationService-{uuid.uuid4().hex}.pem"
        key = rsa_pem("Amazon")
        self.world.internet.serve(url, self_signed("sns.amazonaws.com", rsa_key(key)))
        needed = {"topic_arns": [topic]}
        known = {"topic": topic, "certificate_url": url}
        return self._source(Ses, "ses", routing, {"config": needed | config}, key, **known)

    def telnyx(self, routing: dict[str, str], **config: Any) -> Telnyx:
        secret, public = new_ed25519_keys()
        return self._source(Telnyx, "telnyx", routing, {"config": {"public_keys": [public]} | config}, secret)

    def close(self, routing: dict[str, str], **config: Any) -> Close:
        secret = secrets.token_hex(32)
        return self._source(Close, "close", routing, {"config": {"secrets": [secret]} | config}, secret)

    def pubsub(self, routing: dict[str, str], **config: Any) -> Pubsub:
        """Google's keys are where they always are, unless `config` says otherwise."""
        key, key_id = rsa_pem("Google"), "3f91eebd9d5efc37e15533331ff79185da08c1bd"
        self.world.internet.serve(GOOGLE_KEYS, key_set({key_id: key}))
        needed = {
            "audience": f"https://hooks.example.com/in/{new_slug('pubsub')}",
            "service_account_email": "push-invoker@demo.iam.gserviceaccount.com",
        }
        return self._source(Pubsub, "google_pubsub", routing, {"config": needed | config}, key, key_id=key_id, **needed)

    def internal(self, routing: dict[str, str], **fields: Any) -> Internal:
        source = make_internal(self.operator, self.gateway, routing, **fields)
        self._sources.append(source)
        return source

    def wait_until_in_force(self) -> None:
        """What was made and changed so far is known to every service."""
        for source in self._sources:
            wait_for_door(source)
        self._beacon.wait()

    def deliveries(self, event_id: str) -> list[Any]:
        """An event's deliveries, as the operator sees them: to all subscriptions of all tenants."""
        return list(self.operator.every("/v1/deliveries", event_id=event_id))

    def clear(self) -> None:
        for source in self._sources:
            self.operator.call("DELETE", f"/v1/sources/{source.id}")
        for tenant in self._tenants:
            self.operator.call("DELETE", f"/v1/tenants/{tenant.id}")
            tenant.api.close()

    def _source(
        self, kind: type[S], provider: str, routing: dict[str, str], fields: dict[str, Any], secret: str, **known: Any
    ) -> S:
        """Makes a source. `known` is what its provider knows of it besides the secret."""
        slug = new_slug(provider.replace("_", "-"))
        view = self.operator.create("/v1/sources", {"slug": slug, "provider": provider, "routing": routing} | fields)
        source = kind(self.gateway, view["id"], address_of(view), secret, **known)
        self._sources.append(source)
        return source


def to_tenant(tenant: Tenant) -> dict[str, str]:
    return {"kind": "tenant", "tenant_id": tenant.id}


def to_account() -> dict[str, str]:
    return {"kind": "pointer", "pointer": "/account"}


def to_everyone() -> dict[str, str]:
    return {"kind": "broadcast"}


def to_header() -> dict[str, str]:
    return {"kind": "header", "name": "X-Tenant-Id"}


def new_slug(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def address_of(view: Any) -> str:
    """The last part of a source's URL."""
    return str(view["url"]).rpartition("/")[2]


def make_internal(operator: Client, gateway: Client, routing: dict[str, str], **fields: Any) -> Internal:
    token = secrets.token_hex(16)
    body = {"slug": new_slug("internal"), "provider": "internal", "routing": routing, "config": {"tokens": [token]}}
    view = operator.create("/v1/sources", body | fields)
    return Internal(gateway, view["id"], address_of(view), token)


def wait_for_door(source: Source) -> None:
    """The gateway knows the source: it refuses for another reason than that there is none."""

    def known() -> bool:
        return source.gateway.call("POST", f"/webhooks/{source.address}", content=b"{}").status_code != 404

    eventually(known, within=IN_FORCE_SECONDS, what=f"the gateway knows the source {source.address}")
