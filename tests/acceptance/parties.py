"""The seven systems that send, seen as one: how each makes a source, and what it sends to it."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from .client import Json
from .providers import (
    HAPPENED,
    Request,
    close_event,
    pubsub_push,
    ses_bounce,
    stripe_event,
    telnyx_event,
    twilio_callback,
)
from .stage import Stage


@dataclass(frozen=True)
class Party:
    source: Callable[[Stage, dict[str, str]], Any]
    # By its source: a request that is genuine, of an event that nobody has heard of.
    request: Callable[[Any], Request]
    event_type: str
    # When the event happened, if the provider says.
    occurred_at: str | None


PARTIES: dict[str, Party] = {
    "stripe": Party(
        Stage.stripe,
        lambda stripe: stripe.request(json.dumps(stripe_event(created=int(HAPPENED.timestamp())))),
        "invoice.paid",
        "2026-02-03T04:05:06.000Z",
    ),
    "twilio": Party(Stage.twilio, lambda twilio: twilio.form(twilio_callback()), "message.status.delivered", None),
    "ses": Party(
        Stage.ses,
        lambda ses: ses.request(ses.notification(json.dumps(ses_bounce()))),
        "Bounce",
        "2026-02-03T04:05:06.789Z",
    ),
    "telnyx": Party(
        Stage.telnyx,
        lambda telnyx: telnyx.request(json.dumps(telnyx_event())),
        "message.finalized",
        "2026-02-03T04:05:06.789Z",
    ),
    "close": Party(
        Stage.close, lambda close: close.request(json.dumps(close_event())), "lead.updated", "2026-02-03T04:05:06.789Z"
    ),
    "pubsub": Party(
        Stage.pubsub,
        lambda pubsub: pubsub.request(json.dumps(pubsub_push())),
        "MESSAGE_DELIVERED",
        "2026-02-03T04:05:06.789Z",
    ),
    "internal": Party(
        Stage.internal,
        lambda internal: internal.request("report-completed", '{"report": 7}', idempotency_key=_key()),
        "report-completed",
        None,
    ),
}


def said(request: Request) -> Json:
    """What a request says, by its content type: `data` of its deliveries."""
    if request.headers["content-type"] == "application/x-www-form-urlencoded":
        return dict(parse_qsl(request.content.decode(), keep_blank_values=True))
    return json.loads(request.content)


def _key() -> str:
    return uuid.uuid4().hex
