"""Requests that a provider did not send as they stand, by provider: each made of a genuine one."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .client import Json
from .parties import said
from .providers import (
    SNS_HOST,
    Close,
    Internal,
    Pubsub,
    Request,
    Ses,
    Twilio,
    new_ed25519_keys,
    new_stripe_secret,
    rsa_key,
    rsa_pem,
)

# From a source and a genuine request of its provider.
Forging = Callable[[Any, Request], Request]


@dataclass(frozen=True)
class Forgery:
    """A request, and how it is refused."""

    status: int
    problem: str
    # Under which it is kept; `None` if nothing says that it is.
    reason: str | None
    request: Forging


def unproven(reason: str, request: Forging) -> Forgery:
    return Forgery(401, "signature-invalid", reason, request)


def unreadable(reason: str, request: Forging) -> Forgery:
    return Forgery(400, "malformed-request", reason, request)


def by_method(method: str) -> Forgery:
    return Forgery(405, "method-not-allowed", None, lambda _, genuine: replace(genuine, method=method))


def at_path(rest: str, reason: str | None = "unknown_source") -> Forgery:
    return Forgery(404, "unknown-source", reason, lambda _, genuine: replace(genuine, rest=rest))


def text(request: Request) -> str:
    return request.content.decode()


def seconds_from_now(seconds: int) -> int:
    return int(time.time()) + seconds


# --- Stripe ---


def in_stripe_signature(genuine: Request, old: str, new: str) -> Request:
    return genuine.having(stripe_signature=genuine.headers["stripe-signature"].replace(old, new))


STRIPE = {
    "no signature": unproven("missing_header", lambda _, g: g.lacking("stripe-signature")),
    "garbled signature": unproven("malformed_header", lambda _, g: g.having(stripe_signature="it is me")),
    "another secret": unproven("signature_mismatch", lambda s, g: s.request(text(g), secret=new_stripe_secret())),
    "stale": unproven("timestamp_too_old", lambda s, g: s.request(text(g), at=seconds_from_now(-310))),
    "time changed": unproven("signature_mismatch", lambda _, g: in_stripe_signature(g, "t=", "t=1")),
    "body changed": unproven("signature_mismatch", lambda _, g: g.forged("4200", "4201")),
    "v0 only": unproven("unsupported_scheme", lambda _, g: in_stripe_signature(g, "v1=", "v0=")),
    "not JSON": unreadable("malformed_body", lambda s, g: s.request(text(g)[:-1])),
    "type in the path": at_path("/invoice.paid"),
    "GET": by_method("GET"),
    "PUT": by_method("PUT"),
}

# --- Twilio ---


def said_as_json(genuine: Request) -> str:
    return json.dumps(said(genuine))


def twilio_at_the_gateway(twilio: Twilio, genuine: Request) -> Request:
    """Signed for the URL that the gateway is asked at, which is not the one registered."""
    return twilio.form(said(genuine), url=f"{twilio.gateway.base_url}/webhooks/{twilio.address}")


def twilio_at_another_host(twilio: Twilio, genuine: Request) -> Request:
    """Signed for a URL that is somebody else's; nothing that says otherwise is signed."""
    signed = twilio.form(said(genuine), url=twilio.public_url.replace("hooks.example.com", "evil.example.com"))
    return signed.having(host="evil.example.com", x_forwarded_host="evil.example.com", x_forwarded_proto="https")


def twilio_with_a_shared_key(twilio: Twilio, genuine: Request) -> Request:
    """The header that names the algorithm is not signed, and the source's secret is an auth token."""
    signed = twilio.form(said(genuine), algorithm="HMAC_SHA256")
    return signed.having(x_twilio_webhooks_signature_settings="key=webhooks_sharedkey_1,algorithm=HMAC_SHA256")


def twilio_json_without_its_hash(twilio: Twilio, genuine: Request) -> Request:
    signed = twilio.form({})
    return replace(signed, content=said_as_json(genuine).encode()).having(content_type="application/json")


TWILIO = {
    "no signature": unproven("missing_header", lambda _, g: g.lacking("x-twilio-signature")),
    "garbled signature": unproven("malformed_header", lambda _, g: g.having(x_twilio_signature="it is me")),
    "another token": unproven("signature_mismatch", lambda s, g: s.form(said(g), secret=uuid.uuid4().hex)),
    "field changed": unproven("signature_mismatch", lambda _, g: g.forged("=delivered", "=undelivered")),
    "field added": unproven("signature_mismatch", lambda _, g: g.forged("&To=", "&ErrorCode=30003&To=")),
    "field left out": unproven("signature_mismatch", lambda _, g: g.forged("&ApiVersion=2010-04-01", "")),
    "query added": unproven("signature_mismatch", lambda _, g: replace(g, rest="?tenant=7")),
    "URL at the gateway": unproven("signature_mismatch", twilio_at_the_gateway),
    "URL at another host": unproven("signature_mismatch", twilio_at_another_host),
    "SHA-256 for SHA-1": unproven("signature_mismatch", twilio_with_a_shared_key),
    "hash of another body": unproven("body_hash_mismatch", lambda s, g: s.json(said_as_json(g), hashed="{}")),
    "no hash of the body": unproven("signature_mismatch", twilio_json_without_its_hash),
    "not JSON": unreadable("malformed_body", lambda s, g: s.json(said_as_json(g)[:-1])),
    "type in the path": at_path("/message.status.delivered"),
    "PUT": by_method("PUT"),
}

# --- SES through SNS ---


def message_of(genuine: Request) -> Json:
    """What is signed of a message of SNS."""
    proof = ("SignatureVersion", "Signature", "SigningCertURL")
    return {name: value for name, value in said_in_text(genuine).items() if name not in proof}


def said_in_text(genuine: Request) -> Json:
    return json.loads(genuine.content)


def sns_without(genuine: Request, field: str) -> Request:
    fields = said_in_text(genuine)
    del fields[field]
    return replace(genuine, content=json.dumps(fields).encode())


def sns_certified_at(url: str) -> Forgery:
    """Signed with a key for which the certificate is at a URL of the signer's choice."""

    def request(ses: Ses, genuine: Request) -> Request:
        return ses.request(message_of(genuine), secret=rsa_pem("Mallory"), SigningCertURL=url)

    return unproven("untrusted_cert_url", request)


def sns_raw(ses: Ses, genuine: Request) -> Request:
    """What SNS sends of the same message with raw delivery on: no envelope, no signature."""
    raw = replace(genuine, content=message_of(genuine)["Message"].encode())
    return raw.having(x_amz_sns_rawdelivery="true")


def sns_of_foreign_topic(ses: Ses, genuine: Request) -> Request:
    """Genuine: anybody may subscribe a topic of their own to any URL."""
    return ses.request(message_of(genuine) | {"TopicArn": "arn:aws:sns:eu-central-1:210987654321:mallory"})


CERTIFICATE = f"SimpleNotificationService-{uuid.uuid4().hex}.pem"

SES = {
    "no signature": unproven("missing_header", lambda _, g: sns_without(g, "Signature")),
    "no certificate": unproven("missing_header", lambda _, g: sns_without(g, "SigningCertURL")),
    "garbled signature": unproven("malformed_header", lambda s, g: s.request(message_of(g), Signature="it is me")),
    "another key": unproven("signature_mismatch", lambda s, g: s.request(message_of(g), secret=rsa_pem("Mallory"))),
    "message changed": unproven("signature_mismatch", lambda _, g: g.forged("jane@", "joan@")),
    "subject added": unproven("signature_mismatch", lambda s, g: s.request(message_of(g), Subject="Bounce")),
    "SHA-1 for SHA-256": unproven(
        "signature_mismatch", lambda s, g: s.request(message_of(g), version="1", SignatureVersion="2")
    ),
    "SHA-256 for SHA-1": unproven("signature_mismatch", lambda s, g: s.request(message_of(g), SignatureVersion="1")),
    "unknown version": unproven("unsupported_version", lambda s, g: s.request(message_of(g), SignatureVersion="3")),
    "certificate by http": sns_certified_at(f"http://{SNS_HOST}/{CERTIFICATE}"),
    "certificate elsewhere": sns_certified_at(f"https://evil.example.com/{CERTIFICATE}"),
    "certificate at a similar host": sns_certified_at(f"https://{SNS_HOST}.evil.example.com/{CERTIFICATE}"),
    "certificate behind a user name": sns_certified_at(f"https://{SNS_HOST}@evil.example.com/{CERTIFICATE}"),
    "certificate at another port": sns_certified_at(f"https://{SNS_HOST}:8443/{CERTIFICATE}"),
    "certificate that is not there": sns_certified_at(f"https://{SNS_HOST}/{CERTIFICATE}"),
    "certificate of another name": sns_certified_at(f"https://{SNS_HOST}/mallory.pem"),
    "foreign topic": unproven("topic_not_allowed", sns_of_foreign_topic),
    "raw delivery": unproven("unverifiable", sns_raw),
    "not JSON": unreadable("malformed_body", lambda _, g: replace(g, content=g.content[:-1])),
    "type in the path": at_path("/Bounce"),
    "GET": by_method("GET"),
    "PUT": by_method("PUT"),
}

# --- Telnyx ---


def telnyx_legacy(telnyx: Any, genuine: Request) -> Request:
    """A scheme that a source has to be made for."""
    digest = hmac.new(telnyx.secret.encode(), genuine.content, hashlib.sha256).hexdigest()
    return genuine.lacking("telnyx-signature-ed25519").having(telnyx_signature=digest)


def telnyx_later(_: Any, genuine: Request) -> Request:
    return genuine.having(telnyx_timestamp=str(int(genuine.headers["telnyx-timestamp"]) + 1))


TELNYX = {
    "no signature": unproven("missing_header", lambda _, g: g.lacking("telnyx-signature-ed25519")),
    "no time": unproven("missing_header", lambda _, g: g.lacking("telnyx-timestamp")),
    "garbled signature": unproven("malformed_header", lambda _, g: g.having(telnyx_signature_ed25519="it is me")),
    "garbled time": unproven("malformed_header", lambda _, g: g.having(telnyx_timestamp="today")),
    "another key": unproven("signature_mismatch", lambda s, g: s.request(text(g), secret=new_ed25519_keys()[0])),
    "stale": unproven("timestamp_too_old", lambda s, g: s.request(text(g), at=seconds_from_now(-310))),
    "of tomorrow": unproven("timestamp_too_new", lambda s, g: s.request(text(g), at=seconds_from_now(310))),
    "time changed": unproven("signature_mismatch", telnyx_later),
    "body changed": unproven("signature_mismatch", lambda _, g: g.forged("Hello", "Hallo")),
    "HMAC for Ed25519": unproven("missing_header", telnyx_legacy),
    "not JSON": unreadable("malformed_body", lambda s, g: s.request(text(g)[:-1])),
    "type in the path": at_path("/message.finalized"),
    "GET": by_method("GET"),
    "PUT": by_method("PUT"),
}

# --- Close ---


def close_keyed_with_text(close: Close, genuine: Request) -> Request:
    """The characters of the key instead of the bytes that they spell."""
    return close.request(text(genuine), key=close.secret.encode())


def close_boundary_moved(_: Close, genuine: Request) -> Request:
    """The time's last digit is the body's first now, and the signature as good as before."""
    timestamp = genuine.headers["close-sig-timestamp"]
    moved = replace(genuine, content=timestamp[-1].encode() + genuine.content)
    return moved.having(close_sig_timestamp=timestamp[:-1])


CLOSE = {
    "no signature": unproven("missing_header", lambda _, g: g.lacking("close-sig-hash")),
    "no time": unproven("missing_header", lambda _, g: g.lacking("close-sig-timestamp")),
    "garbled signature": unproven("malformed_header", lambda _, g: g.having(close_sig_hash="it is me")),
    "another key": unproven("signature_mismatch", lambda s, g: s.request(text(g), key=bytes(32))),
    "key taken as text": unproven("signature_mismatch", close_keyed_with_text),
    "stale": unproven("timestamp_too_old", lambda s, g: s.request(text(g), at=seconds_from_now(-310))),
    "of tomorrow": unproven("timestamp_too_new", lambda s, g: s.request(text(g), at=seconds_from_now(310))),
    "boundary moved": unproven("timestamp_too_old", close_boundary_moved),
    "body changed": unproven("signature_mismatch", lambda _, g: g.forged("ACME", "ACNE")),
    "body written anew": unproven("signature_mismatch", lambda _, g: g.forged(", ", ",")),
    "not JSON": unreadable("malformed_body", lambda s, g: s.request(text(g)[:-1])),
    "type in the path": at_path("/lead.updated"),
    "GET": by_method("GET"),
    "PUT": by_method("PUT"),
}

# --- Google Pub/Sub ---


def claiming(**claims: Any) -> Forging:
    """Signed by Google, and not for us."""
    return lambda pubsub, genuine: pubsub.request(text(genuine), **claims)


def pubsub_unsigned(pubsub: Pubsub, genuine: Request) -> Request:
    return pubsub.request(text(genuine), token=f"{signed_part('none', pubsub)}.")


def pubsub_symmetric(pubsub: Pubsub, genuine: Request) -> Request:
    """HMAC, keyed with what everybody knows: a verifier that takes the token's word has the same key."""
    public = rsa_key(pubsub.secret).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = signed_part("HS256", pubsub)
    return pubsub.request(text(genuine), token=f"{signed}.{base64url(hmac.digest(public, signed.encode(), 'sha256'))}")


def pubsub_claims_changed(pubsub: Pubsub, genuine: Request) -> Request:
    """Genuine but for the claims."""
    signature = pubsub.token(email="mallory@evil.iam.gserviceaccount.com").rpartition(".")[2]
    return pubsub.request(text(genuine), token=f"{signed_part('RS256', pubsub)}.{signature}")


def signed_part(algorithm: str, pubsub: Pubsub) -> str:
    header = {"alg": algorithm, "typ": "JWT", "kid": pubsub.key_id}
    return ".".join(base64url(json.dumps(part).encode()) for part in (header, pubsub.claims()))


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


PUBSUB = {
    "no token": unproven("missing_header", lambda _, g: g.lacking("authorization")),
    "no bearer": unproven("malformed_header", lambda _, g: g.having(authorization="Basic Z29vZ2xlOnB1YnN1Yg==")),
    "garbled token": unproven("token_malformed", lambda _, g: g.having(authorization="Bearer it.is.me")),
    "another key": unproven("signature_mismatch", claiming(secret=rsa_pem("Mallory"))),
    "unknown key": unproven("unknown_key", claiming(secret=rsa_pem("Mallory"), key_id="mallory")),
    "claims changed": unproven("signature_mismatch", pubsub_claims_changed),
    "not signed": unproven("unsupported_alg", pubsub_unsigned),
    "HS256 for RS256": unproven("unsupported_alg", pubsub_symmetric),
    "expired": unproven("token_expired", lambda s, g: s.request(text(g), exp=seconds_from_now(-90))),
    "of tomorrow": unproven("token_not_yet_valid", lambda s, g: s.request(text(g), iat=seconds_from_now(90))),
    "wrong audience": unproven("wrong_audience", claiming(aud="https://hooks.example.com/in/others")),
    "wrong issuer": unproven("wrong_issuer", claiming(iss="https://accounts.evil.example.com")),
    "another's e-mail": unproven("wrong_email", claiming(email="push-invoker@mallory.iam.gserviceaccount.com")),
    "no e-mail": unproven("wrong_email", claiming(email=None)),
    "e-mail not verified": unproven("wrong_email", claiming(email_verified=False)),
    "not said whether verified": unproven("wrong_email", claiming(email_verified=None)),
    "not JSON": unreadable("malformed_body", lambda s, g: s.request(text(g)[:-1])),
    "type in the path": at_path("/MESSAGE_DELIVERED"),
    "GET": by_method("GET"),
    "PUT": by_method("PUT"),
}

# --- services of our own ---


def bearer(internal: Internal, genuine: Request) -> Request:
    return genuine.lacking("x-service-token").having(authorization=f"Bearer {internal.secret}")


INTERNAL = {
    "no token": unproven("missing_header", lambda _, g: g.lacking("x-service-token")),
    "empty token": unproven("signature_mismatch", lambda _, g: g.having(x_service_token="")),
    "another token": unproven("signature_mismatch", lambda _, g: g.having(x_service_token=uuid.uuid4().hex)),
    "token and more": unproven("signature_mismatch", lambda s, g: g.having(x_service_token=s.secret + "0")),
    "token elsewhere": unproven("missing_header", bearer),
    "not JSON": unreadable("malformed_body", lambda _, g: replace(g, content=g.content[:-1])),
    "no type in the path": unreadable("missing_event_type", lambda _, g: replace(g, rest="")),
    "type of ours": unreadable("missing_event_type", lambda _, g: replace(g, rest="/posthorn.subscription.disabled")),
    "type that is none": unreadable("missing_event_type", lambda _, g: replace(g, rest="/...")),
    "more than a type in the path": at_path("/report/completed", None),
    "GET": by_method("GET"),
    "PUT": by_method("PUT"),
}

# By the names of the parties.
FORGERIES = {
    "stripe": STRIPE,
    "twilio": TWILIO,
    "ses": SES,
    "telnyx": TELNYX,
    "close": CLOSE,
    "pubsub": PUBSUB,
    "internal": INTERNAL,
}
