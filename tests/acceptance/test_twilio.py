"""Twilio's own ways: forms and JSON, the URL that it was given, and callbacks without a name or a time."""

import json
import uuid
from dataclasses import replace

import pytest

from .parties import said
from .providers import twilio_callback
from .stage import Stage, to_tenant


def test_a_form_is_verified_and_delivered_whatever_it_says(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "message.received")
    twilio = stage.twilio(to_tenant(tenant))
    stage.wait_until_in_force()
    words = {"Body": " Grüße & 50 % + 1=\n☃ ", "FriendlyName": "", "numMedia": "0", "Z": "a=b&c=d"}
    fields = twilio_callback(SmsStatus="received", **words)
    del fields["MessageStatus"]

    receipt = twilio.sent(twilio.form(fields))

    (arrival,) = endpoint.expect(1, event_id=receipt.event_id)
    assert arrival.verified(subscription.secret)["data"] == fields
    assert tenant.api.get(f"/v1/events/{receipt.event_id}")["payload"] == fields


def test_a_json_body_is_verified_by_its_hash_and_delivered_as_it_came(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    twilio = stage.twilio(to_tenant(tenant))
    stage.wait_until_in_force()
    body = '{"EventType": "onMessageAdded", "Index": 12345678901234567890, "Body": "Grüße"}'

    receipt = twilio.sent(twilio.json(body))

    (arrival,) = endpoint.expect(1, event_id=receipt.event_id)
    delivered = arrival.verified(subscription.secret)
    assert (delivered["type"], delivered["data"]) == ("onMessageAdded", json.loads(body))
    assert body.encode() in arrival.body


def test_a_callback_that_is_repeated_is_known_whatever_is_not_signed_of_it(stage: Stage) -> None:
    twilio = stage.twilio(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    request = twilio.form(twilio_callback())
    other_order = "&".join(reversed(request.content.decode().split("&")))

    first = twilio.sent(request)
    other_token = twilio.sent(request.having(i_twilio_idempotency_token=uuid.uuid4().hex))
    turned_round = twilio.sent(replace(request, content=other_order.encode()))

    for again in (other_token, turned_round):
        assert (again.event_id, again.duplicate) == (first.event_id, True)


def test_every_status_of_a_message_is_an_event_of_its_own(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "message.status.*")
    twilio = stage.twilio(to_tenant(tenant))
    stage.wait_until_in_force()
    callback = twilio_callback()
    statuses = ["queued", "sent", "delivered"]

    for status in statuses:
        fields = callback | {"MessageStatus": status, "SmsStatus": status}
        assert not twilio.sent(twilio.form(fields)).duplicate

    types = {json.loads(arrival.body)["type"] for arrival in endpoint.expect(3)}
    assert types == {f"message.status.{status}" for status in statuses}


@pytest.mark.parametrize(
    ("registered", "signed"),
    [
        ("https://hooks.example.com/in/twilio", "https://hooks.example.com:443/in/twilio"),
        ("https://hooks.example.com:443/in/twilio", "https://hooks.example.com/in/twilio"),
        ("http://hooks.example.com:8080/in/twilio", "http://hooks.example.com:8080/in/twilio"),
        ("http://hooks.example.com:8080/in/twilio", "http://hooks.example.com/in/twilio"),
    ],
)
def test_a_port_may_be_signed_or_not(stage: Stage, registered: str, signed: str) -> None:
    twilio = stage.twilio(to_tenant(stage.tenant()), public_url=registered)
    stage.wait_until_in_force()

    twilio.sent(twilio.form(twilio_callback(), url=signed))


def test_the_query_is_the_requests_byte_for_byte(stage: Stage) -> None:
    twilio = stage.twilio(to_tenant(stage.tenant()))
    stage.wait_until_in_force()

    for query in ("?tenant=42&x=%27a%20b&y='&z", "?a=%E2%98%83&A=+&a="):
        twilio.sent(twilio.form(twilio_callback(), query=query))


def test_a_callback_may_come_by_get(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "message.status.delivered")
    twilio = stage.twilio(to_tenant(tenant))
    stage.wait_until_in_force()
    fields = twilio_callback()
    form = twilio.form(fields)
    query = f"?{form.content.decode()}"
    request = replace(twilio.form({}, query=query), method="GET").lacking("content-type")

    assert twilio.answer(request.having(x_twilio_signature=form.headers["x-twilio-signature"])).status_code == 401
    receipt = twilio.sent(request)

    assert not receipt.duplicate
    (arrival,) = endpoint.expect(1, event_id=receipt.event_id)
    assert arrival.verified(subscription.secret)["data"] == fields
    # The same callback, the other way.
    assert twilio.sent(form).duplicate


def test_a_shared_key_signs_with_sha_256_and_with_nothing_less(stage: Stage) -> None:
    twilio = stage.twilio(to_tenant(stage.tenant()), algorithm="hmac_sha256")
    stage.wait_until_in_force()
    good = twilio.form(twilio_callback(), algorithm="HMAC_SHA256")
    weak = twilio.form(said(good), algorithm="HMAC_SHA1")

    for settings in ({}, {"x_twilio_webhooks_signature_settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA1"}):
        assert twilio.answer(weak.having(**settings)).status_code == 401

    assert not twilio.sent(good).duplicate
