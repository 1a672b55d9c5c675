"""Those who send: seven providers, each signed by its own library where it has one that signs."""

import base64
import datetime
import functools
import hashlib
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import httpx
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.auth import crypt, jwt
from stripe import WebhookSignature
from twilio.request_validator import RequestValidator

from .client import Client, Json

JSON = "application/json; charset=utf-8"

# When what is sent happened: not now, so that it cannot be taken for the time of its arrival.
HAPPENED = datetime.datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=datetime.UTC)

# Where Google publishes the keys that it signs tokens with.
GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"

# Of Amazon, for topics in Frankfurt: certificates, and confirmations of subscriptions.
SNS_HOST = "sns.eu-central-1.amazonaws.com"


@dataclass(frozen=True)
class Receipt:
    """What the gateway answered when it took an event, or knew it already."""

    event_id: str
    duplicate: bool


@dataclass(frozen=True)
class Request:
    """A request before it is sent. The names of its headers are in lower case."""

    content: bytes
    headers: Mapping[str, str]
    # What follows the source's address in the URL: a type in the path, a query.
    rest: str = ""
    method: str = "POST"

    def having(self, **headers: str) -> "Request":
        """The same, with these headers beside or instead of its own; underscores stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})

    def lacking(self, header: str) -> "Request":
        assert header in self.headers, f"it never had `{header}`"
        return replace(self, headers={name: value for name, value in self.headers.items() if name != header})

    def forged(self, old: str, new: str) -> "Request":
        """The same, with something else in its body."""
        assert old.encode() in self.content, f"there is no `{old}` in it"
        return replace(self, content=self.content.replace(old.encode(), new.encode()))


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
        return self.answer(Request(content, headers, "" if event is None else f"/{event}"))

    def answer(self, request: Request) -> httpx.Response:
        """Whatever the gateway answers."""
        path = f"/webhooks/{self.address}{request.rest}"
        return self.gateway.call(request.method, path, content=request.content, headers=request.headers)

    def sent(self, request: Request) -> Receipt:
        """That of a request which the gateway takes."""
        return taken(self.answer(request))


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

    def request(self, body: str, *, secret: str | None = None, at: int | None = None) -> Request:
        return Request(body.encode(), self.headers(body, secret=secret, at=at))

    def headers(self, body: str, *, secret: str | None = None, at: int | None = None) -> dict[str, str]:
        """The headers of a request with this body, signed at unix second `at` (now)."""
        signature = WebhookSignature.generate_signature_header(body, secret or self.secret, at)
        return {"content-type": "application/json; charset=utf-8", "stripe-signature": signature}


@dataclass(frozen=True)
class Twilio(Source):
    """Sends as Twilio does, signed by Twilio's own library."""

    # As it is registered there; what stands before the gateway makes our address of it.
    public_url: str

    def form(self, fields: Mapping[str, str], *, query: str = "", **signing: str) -> Request:
        signature = self.signature(query, fields, **signing)
        return self._request(urlencode(fields), "application/x-www-form-urlencoded", query, signature)

    def json(self, body: str, *, hashed: str | None = None, **signing: str) -> Request:
        """A body that is no form, signed through the hash of `hashed` (the body)."""
        digest = hashlib.sha256((body if hashed is None else hashed).encode()).hexdigest()
        query = f"?bodySHA256={digest}"
        return self._request(body, JSON, query, self.signature(query, {}, **signing))

    def signature(
        self,
        query: str,
        fields: Mapping[str, str],
        *,
        secret: str | None = None,
        url: str | None = None,
        algorithm: str | None = None,
    ) -> str:
        validator = RequestValidator(secret or self.secret)
        return str(validator.compute_signature((url or self.public_url) + query, dict(fields), algorithm))

    def _request(self, body: str, content_type: str, query: str, signature: str) -> Request:
        # Constant over Twilio's own repeats, and not signed.
        token = uuid.uuid4().hex
        headers = {"content-type": content_type, "x-twilio-signature": signature, "i-twilio-idempotency-token": token}
        return Request(body.encode(), headers, query)


@dataclass(frozen=True)
class Ses(Source):
    """Sends as SNS does for SES. `secret` is the private key, for which the certificate is fetched."""

    topic: str
    certificate_url: str

    def notification(self, message: str, **fields: str) -> Json:
        return self._signable("Notification", message, **fields)

    def confirmation(self, kind: str = "SubscriptionConfirmation", **fields: str) -> Json:
        """What is sent once to a URL that was subscribed, or unsubscribed."""
        token = secrets.token_hex(64)
        url = f"https://{SNS_HOST}/?Action=ConfirmSubscription&TopicArn={self.topic}&Token={token}"
        message = "You have chosen to subscribe to the topic. To confirm, visit the SubscribeURL."
        return self._signable(kind, message, **({"SubscribeURL": url, "Token": token} | fields))

    def request(self, message: Json, *, version: str = "2", secret: str | None = None, **unsigned: str) -> Request:
        """Signs a message. `unsigned` are fields beside or instead of those that the signature adds."""
        signature = sns_signature(message, version, secret or self.secret)
        signed = {"SignatureVersion": version, "Signature": signature, "SigningCertURL": self.certificate_url}
        headers = {
            # Although it is JSON.
            "content-type": "text/plain; charset=UTF-8",
            "x-amz-sns-message-type": message["Type"],
            "x-amz-sns-message-id": message["MessageId"],
            "x-amz-sns-topic-arn": message["TopicArn"],
        }
        return Request(json.dumps(message | signed | unsigned, indent=2).encode(), headers)

    def _signable(self, kind: str, message: str, **fields: str) -> Json:
        message_id, timestamp = str(uuid.uuid4()), _iso(HAPPENED)
        common = {"Type": kind, "MessageId": message_id, "TopicArn": self.topic, "Timestamp": timestamp}
        return common | {"Message": message} | fields


class Telnyx(Source):
    """Sends as Telnyx does; it has no library that signs. `secret` is the private key in base64."""

    def request(self, body: str, *, secret: str | None = None, at: int | None = None) -> Request:
        timestamp = str(at or int(time.time()))
        key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret or self.secret))
        signature = base64.b64encode(key.sign(f"{timestamp}|{body}".encode())).decode()
        headers = {"telnyx-signature-ed25519": signature, "telnyx-timestamp": timestamp}
        return Request(body.encode(), {"content-type": JSON} | headers)


class Close(Source):
    """Sends as Close does; it has no library that signs. `secret` is the key in hex."""

    def request(self, body: str, *, key: bytes | None = None, at: int | None = None) -> Request:
        timestamp = str(at or int(time.time()))
        digest = hmac.new(key or bytes.fromhex(self.secret), f"{timestamp}{body}".encode(), hashlib.sha256)
        headers = {"close-sig-hash": digest.hexdigest(), "close-sig-timestamp": timestamp}
        return Request(body.encode(), {"content-type": JSON} | headers)


@dataclass(frozen=True)
class Pubsub(Source):
    """Pushes as Google Pub/Sub does, with a token of Google's own library. `secret` is Google's private key."""

    audience: str
    service_account_email: str
    key_id: str

    def request(self, body: str, *, token: str | None = None, **claims: Any) -> Request:
        bearer = self.token(**claims) if token is None else token
        return Request(body.encode(), {"content-type": "application/json", "authorization": f"Bearer {bearer}"})

    def token(self, *, secret: str | None = None, key_id: str | None = None, **claims: Any) -> str:
        """`claims` are added to Google's, or replace some; one that is `None` is left out."""
        signer = crypt.RSASigner.from_string(secret or self.secret, key_id or self.key_id)  # type: ignore[no-untyped-call]
        stated = {name: value for name, value in (self.claims() | claims).items() if value is not None}
        return str(jwt.encode(signer, stated).decode())  # type: ignore[no-untyped-call]

    def claims(self) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": "https://accounts.google.com",
            "aud": self.audience,
            "azp": "113774264463038321964",
            "sub": "113774264463038321964",
            "email": self.service_account_email,
            "email_verified": True,
            "iat": now,
            "exp": now + 3600,
        }


class Internal(Source):
    """A service of our own: a token instead of a signature, the type in the path."""

    def send(self, event_type: str, data: Json = None, **headers: str) -> Receipt:
        return taken(self.post_data(event_type, data, **headers))

    def request(self, event_type: str, body: str, **headers: str) -> Request:
        given = {"content-type": "application/json", "x-service-token": self.secret}
        return Request(body.encode(), given, f"/{event_type}").having(**headers)

    def post_data(self, event_type: str, data: Json = None, **headers: str) -> httpx.Response:
        """Underscores in the names of `headers` stand for hyphens."""
        body = json.dumps({"nonce": uuid.uuid4().hex} if data is None else data)
        return self.answer(self.request(event_type, body, **headers))


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


def twilio_callback(**fields: str) -> dict[str, str]:
    """The fields of a status callback; `fields` are added to it, or replace some of it."""
    sid = f"SM{uuid.uuid4().hex}"
    return {
        "AccountSid": "AC52d6ab3e1a7d7faa018ade1dadd4d2dc",
        "MessageSid": sid,
        "MessageStatus": "delivered",
        "SmsSid": sid,
        "SmsStatus": "delivered",
        "From": "+15005550006",
        "To": "+15558675310",
        "ApiVersion": "2010-04-01",
    } | fields


def ses_bounce(**fields: Any) -> dict[str, Any]:
    """What SES publishes; SNS sends it as text within a message of its own."""
    return {
        "eventType": "Bounce",
        "bounce": {
            "feedbackId": uuid.uuid4().hex,
            "bounceType": "Permanent",
            "bouncedRecipients": [{"emailAddress": "jane@example.net", "diagnosticCode": "smtp; 550 5.1.1\nunknown"}],
            "timestamp": _iso(HAPPENED),
        },
        "mail": {"messageId": uuid.uuid4().hex, "timestamp": _iso(HAPPENED), "source": "billing@example.com"},
    } | fields


def telnyx_event(**data: Any) -> dict[str, Any]:
    stated = {
        "record_type": "event",
        "event_type": "message.finalized",
        "id": str(uuid.uuid4()),
        "occurred_at": HAPPENED.isoformat(timespec="milliseconds"),
        "payload": {"direction": "outbound", "text": "Hello", "to": [{"phone_number": "+15558675310"}]},
    }
    return {"data": stated | data, "meta": {"attempt": 1, "delivered_to": "https://hooks.example.com/in/telnyx"}}


def close_event(**event: Any) -> dict[str, Any]:
    stated = {
        "id": f"ev_{uuid.uuid4().hex}",
        "object_type": "lead",
        "action": "updated",
        "object_id": "lead_1",
        "organization_id": "orga_1",
        # UTC, which it does not say.
        "date_created": HAPPENED.replace(tzinfo=None).isoformat(timespec="microseconds"),
        "changed_fields": ["status_id"],
        "data": {"id": "lead_1", "display_name": "ACME"},
    }
    return {"subscription_id": "whsub_5f0e7c9e078664934a40bb", "event": stated | event}


def pubsub_push(data: Json = None, **message: Any) -> dict[str, Any]:
    """A push that is wrapped, as it is unless a subscription says otherwise."""
    inner = {"event": "MESSAGE_DELIVERED", "message_id": uuid.uuid4().hex} if data is None else data
    stated = {
        "attributes": {},
        "data": base64.b64encode(json.dumps(inner).encode()).decode(),
        "messageId": str(secrets.randbits(56)),
        "publishTime": _iso(HAPPENED),
    }
    return {"message": stated | message, "subscription": "projects/demo/subscriptions/fcm-events"}


def sns_signature(message: Json, version: str, secret: str) -> str:
    """By the rule in the guide of SNS."""
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    if message["Type"] == "Notification":
        names = [name for name in names if name not in ("SubscribeURL", "Token")]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    # AWS signs version 1 like this to this day.
    digest = hashes.SHA1() if version == "1" else hashes.SHA256()
    return base64.b64encode(rsa_key(secret).sign(text.encode(), padding.PKCS1v15(), digest)).decode()


def key_set(keys: Mapping[str, str]) -> str:
    """The public halves of RSA keys in PEM, by their ids, as a JSON Web Key Set."""
    return json.dumps({"keys": [_jwk(key_id, rsa_key(pem)) for key_id, pem in keys.items()]})


def new_ed25519_keys() -> tuple[str, str]:
    """A private key and its public one, in base64."""
    key = Ed25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return base64.b64encode(private).decode(), base64.b64encode(public).decode()


@functools.cache
def rsa_pem(owner: str) -> str:
    """A private key in PEM: another one for each owner, the same for the whole session."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def rsa_key(pem: str) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _jwk(key_id: str, key: rsa.RSAPrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()

    def encoded(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode().rstrip("=")

    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": key_id, "n": encoded(numbers.n), "e": encoded(numbers.e)}


def _iso(moment: datetime.datetime) -> str:
    """With milliseconds and a `Z`."""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
