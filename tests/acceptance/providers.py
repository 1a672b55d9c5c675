"""Those who send: Stripe, and services of the platform's own."""

import json
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import Any

import httpx
from stripe import WebhookSignature

from .client import Client, Json


@dataclass(frozen=True)
class Receipt:
    """What the gateway answered when it took an event, or knew it already."""

    event_id: str
    duplicate: bool


@dataclass(frozen=True)
class Source:
    """A source as its provider knows it: where to send, and what to sign with."""

    gateway: Client
    id: str
    # Its slug, or the opaque token.
    address: str
    secret: str

    def post(self, content: bytes, headers: dict[str, str], event: str | None = None) -> httpx.Response:
        """Whatever the gateway answers. `event` is the type in the path, of sources that have it there."""
        path = f"/webhooks/{self.address}" if event is None else f"/webhooks/{self.address}/{event}"
        return self.gateway.call("POST", path, content=content, headers=headers)


class Stripe(Source):
    """Sends as Stripe does, signed by Stripe's own library."""

    def send(self, event_type: str = "invoice.paid", **fields: Any) -> Receipt:
        """A snapshot event; `fields` are added to it, or replace some of it."""
        return self.send_event(stripe_event(event_type, **fields))

    def send_event(self, event: Json) -> Receipt:
        return taken(self.post_event(event))

    def post_event(self, event: Json) -> httpx.Response:
        body = json.dumps(event)
        return self.post(body.encode(), self.headers(body))

    def headers(self, body: str, *, secret: str | None = None, at: int | None = None) -> dict[str, str]:
        """The headers of a request with this body, signed at unix second `at` (now)."""
        signature = WebhookSignature.generate_signature_header(body, secret or self.secret, at)
        return {"content-type": "application/json; charset=utf-8", "stripe-signature": signature}


class Internal(Source):
    """A service of our own: a token instead of a signature, the type in the path."""

    def send(self, event_type: str, data: Json = None, **headers: str) -> Receipt:
        return taken(self.post_data(event_type, data, **headers))

    def post_data(self, event_type: str, data: Json = None, **headers: str) -> httpx.Response:
        """Underscores in the names of `headers` stand for hyphens."""
        body = json.dumps({"nonce": uuid.uuid4().hex} if data is None else data)
        given = {"content-type": "application/json", "x-service-token": self.secret}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post(body.encode(), given, event_type)


def taken(response: httpx.Response) -> Receipt:
    assert response.status_code == 200, f"answered {response.status_code}: {response.text}"
    receipt = response.json()
    return Receipt(receipt["event_id"], receipt["duplicate"])


def stripe_event(event_type: str = "invoice.paid", **fields: Any) -> dict[str, Any]:
    """A snapshot event as Stripe writes it."""
    return {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "api_version": "2025-09-30.clover",
        "created": int(time.time()),
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": event_type,
        "data": {"object": {"id": f"in_{uuid.uuid4().hex}", "object": "invoice", "amount_paid": 4200}},
    } | fields


def new_stripe_secret() -> str:
    return f"whsec_{secrets.token_urlsafe(24)}"
