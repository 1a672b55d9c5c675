"""What a provider sends and has signed, from its request to the tenant. Each is told apart by its own proof."""

import json
import secrets
import time

import pytest

from .parties import PARTIES, Party, said
from .providers import close_event, new_ed25519_keys, telnyx_event, twilio_callback
from .stage import Stage, to_tenant

every_party = pytest.mark.parametrize("party", PARTIES.values(), ids=PARTIES.keys())


@every_party
def test_what_a_provider_sends_arrives_with_its_type_its_time_and_its_words(stage: Stage, party: Party) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, party.event_type)
    source = party.source(stage, to_tenant(tenant))
    stage.wait_until_in_force()
    request = party.request(source)

    answer = source.answer(request)

    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert (receipt["received"], receipt["duplicate"]) == (True, False)
    (arrival,) = endpoint.expect(1)
    assert arrival.event_id == receipt["event_id"]
    event = tenant.api.get(f"/v1/events/{receipt['event_id']}")
    assert (event["event_type"], event["source_id"]) == (party.event_type, source.id)
    assert event["occurred_at"] == party.occurred_at
    # Among its words are the provider's own names for the event.
    assert event["payload"] == said(request)
    body = arrival.verified(subscription.secret)
    assert (body["type"], body["data"]) == (party.event_type, said(request))
    assert body["timestamp"] == (event["occurred_at"] or event["received_at"])
    assert tenant.delivery(subscription, arrival.event_id, "delivered")["attempts_made"] == 1


@every_party
def test_what_a_provider_repeats_is_counted_and_not_delivered_again(stage: Stage, party: Party) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "*")
    source = party.source(stage, to_tenant(tenant))
    stage.wait_until_in_force()
    request = party.request(source)

    first, *again = [source.sent(request) for _ in range(3)]

    assert not first.duplicate
    assert [(receipt.event_id, receipt.duplicate) for receipt in again] == [(first.event_id, True)] * 2
    # What came later has arrived, so what was on the way before it has arrived as well.
    marker = source.sent(party.request(source))
    assert not marker.duplicate
    endpoint.expect(1, event_id=marker.event_id)
    assert endpoint.counted() == {first.event_id: 1, marker.event_id: 1}
    assert tenant.api.get(f"/v1/events/{first.event_id}")["duplicates"] == 2


def test_what_is_signed_with_either_of_two_tokens_of_twilio_is_taken(stage: Stage) -> None:
    new, old = secrets.token_hex(16), secrets.token_hex(16)
    twilio = stage.twilio(to_tenant(stage.tenant()), secrets=[new, old])
    stage.wait_until_in_force()

    for secret in (new, old):
        assert not twilio.sent(twilio.form(twilio_callback(), secret=secret)).duplicate
    assert twilio.answer(twilio.form(twilio_callback())).status_code == 401


def test_what_is_signed_with_either_of_two_keys_of_telnyx_is_taken(stage: Stage) -> None:
    (new, new_public), (old, old_public) = new_ed25519_keys(), new_ed25519_keys()
    telnyx = stage.telnyx(to_tenant(stage.tenant()), public_keys=[new_public, old_public])
    stage.wait_until_in_force()

    for secret in (new, old):
        assert not telnyx.sent(telnyx.request(json.dumps(telnyx_event()), secret=secret)).duplicate
    assert telnyx.answer(telnyx.request(json.dumps(telnyx_event()))).status_code == 401


def test_what_is_signed_with_either_of_two_keys_of_close_is_taken(stage: Stage) -> None:
    new, old = secrets.token_hex(32), secrets.token_hex(32)
    close = stage.close(to_tenant(stage.tenant()), secrets=[new, old])
    stage.wait_until_in_force()

    for secret in (new, old):
        request = close.request(json.dumps(close_event()), key=bytes.fromhex(secret))
        assert not close.sent(request).duplicate
    assert close.answer(close.request(json.dumps(close_event()))).status_code == 401


@pytest.mark.parametrize("seconds", [-290, 290], ids=["slow", "fast"])
def test_a_clock_that_is_a_little_slow_or_fast_is_forgiven(stage: Stage, seconds: int) -> None:
    tenant = stage.tenant()
    telnyx, close = stage.telnyx(to_tenant(tenant)), stage.close(to_tenant(tenant))
    stage.wait_until_in_force()
    at = int(time.time()) + seconds

    assert not telnyx.sent(telnyx.request(json.dumps(telnyx_event()), at=at)).duplicate
    assert not close.sent(close.request(json.dumps(close_event()), at=at)).duplicate


def test_what_telnyx_tells_of_its_attempts_makes_no_new_event(stage: Stage) -> None:
    telnyx = stage.telnyx(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    event = telnyx_event()

    first = telnyx.sent(telnyx.request(json.dumps(event)))
    again = telnyx.sent(telnyx.request(json.dumps(event | {"meta": {"attempt": 2}})))

    assert (again.event_id, again.duplicate) == (first.event_id, True)
