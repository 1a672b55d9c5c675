"""Google Pub/Sub: pushes wrapped and bare, and the keys that Google changes when it likes."""

import json
import secrets
import uuid

import pytest

from .providers import GOOGLE_KEYS, HAPPENED, Pubsub, Request, key_set, pubsub_push, rsa_pem
from .stage import Stage, to_tenant


def test_a_bare_push_is_taken_with_what_its_headers_say(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "MESSAGE_DELIVERED")
    pubsub = stage.pubsub(to_tenant(tenant))
    stage.wait_until_in_force()
    data = {"event": "MESSAGE_DELIVERED", "message_id": "71abb3a1f66bd9dc", "project_number": 12345678901234567890}
    push = bare(pubsub, json.dumps(data))

    first, again = pubsub.sent(push), pubsub.sent(push)
    other = pubsub.sent(push.having(x_goog_pubsub_message_id=str(secrets.randbits(56))))

    assert (again.event_id, again.duplicate) == (first.event_id, True)
    assert not other.duplicate
    (arrival,) = endpoint.expect(1, event_id=first.event_id)
    assert arrival.verified(subscription.secret)["data"] == data
    event = tenant.api.get(f"/v1/events/{first.event_id}")
    assert event["occurred_at"] == "2026-02-03T04:05:06.789Z"
    assert event["headers"]["authorization"] == "[redacted]"


def test_a_bare_push_without_headers_is_known_by_its_words(stage: Stage) -> None:
    pubsub = stage.pubsub(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    body = json.dumps({"type": "report.completed", "nonce": uuid.uuid4().hex})

    first, again = pubsub.sent(pubsub.request(body)), pubsub.sent(pubsub.request(body))
    other = pubsub.sent(pubsub.request(json.dumps({"type": "report.completed", "nonce": uuid.uuid4().hex})))

    assert (again.event_id, again.duplicate) == (first.event_id, True)
    assert not first.duplicate and not other.duplicate
    assert stage.operator.get(f"/v1/events/{first.event_id}")["event_type"] == "report.completed"


def test_a_message_is_known_to_its_subscription_only(stage: Stage) -> None:
    pubsub = stage.pubsub(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    push = pubsub_push()

    first = pubsub.sent(pubsub.request(json.dumps(push)))
    # Pushed again, it is told how often it was tried.
    again = pubsub.sent(pubsub.request(json.dumps(push | {"deliveryAttempt": 2})))
    other = pubsub.sent(pubsub.request(json.dumps(push | {"subscription": "projects/demo/subscriptions/archive"})))

    assert (again.event_id, again.duplicate) == (first.event_id, True)
    assert not other.duplicate


def test_a_type_may_stand_in_an_attribute(stage: Stage) -> None:
    pubsub = stage.pubsub(to_tenant(stage.tenant()))
    stage.wait_until_in_force()

    receipt = pubsub.sent(pubsub.request(json.dumps(pubsub_push(attributes={"eventType": "OBJECT_FINALIZE"}))))

    assert stage.operator.get(f"/v1/events/{receipt.event_id}")["event_type"] == "OBJECT_FINALIZE"


@pytest.mark.parametrize("issuer", ["https://accounts.google.com", "accounts.google.com"])
def test_google_has_two_names(stage: Stage, issuer: str) -> None:
    pubsub = stage.pubsub(to_tenant(stage.tenant()))
    stage.wait_until_in_force()

    pubsub.sent(pubsub.request(json.dumps(pubsub_push()), iss=issuer))

    assert stage.world.internet.visits(GOOGLE_KEYS) > 0


def test_each_key_of_a_set_is_good_and_a_new_one_is_looked_for_once(stage: Stage) -> None:
    internet, url = stage.world.internet, f"https://keys.example.com/{uuid.uuid4().hex}"
    old, new, next_ = rsa_pem("Google"), rsa_pem("Google, later"), rsa_pem("Google, last")
    internet.serve(url, key_set({"old": old, "new": new}))
    pubsub = stage.pubsub(to_tenant(stage.tenant()), jwks_url=url)
    stage.wait_until_in_force()

    for key_id, key in (("old", old), ("new", new)) * 2:
        pubsub.sent(pushed_with(pubsub, key, key_id))
    assert internet.visits(url) == 1

    internet.serve(url, key_set({"new": new, "next": next_}))
    pubsub.sent(pushed_with(pubsub, next_, "next"))
    assert internet.visits(url) == 2
    # Not for each key that somebody makes up.
    for _ in range(3):
        assert pubsub.answer(pushed_with(pubsub, rsa_pem("Mallory"), uuid.uuid4().hex)).status_code == 401
    assert internet.visits(url) == 2
    # One that is gone is good no more.
    assert pubsub.answer(pushed_with(pubsub, old, "old")).status_code == 401


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, ""), (404, "nobody is here"), (200, "<html>Sign in to the Wi-Fi</html>"), (200, '{"keys": []}')],
    ids=["in trouble", "missing", "something else", "empty"],
)
def test_while_the_keys_are_out_of_reach_google_is_asked_to_come_back(stage: Stage, status: int, body: str) -> None:
    internet, url = stage.world.internet, f"https://keys.example.com/{uuid.uuid4().hex}"
    pubsub = stage.pubsub(to_tenant(stage.tenant()), jwks_url=url)
    stage.wait_until_in_force()
    request = pubsub.request(json.dumps(pubsub_push()))

    internet.serve(url, body, status)
    answer = pubsub.answer(request)
    internet.serve(url, key_set({pubsub.key_id: pubsub.secret}))

    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert not pubsub.sent(request).duplicate


def bare(pubsub: Pubsub, data: str) -> Request:
    """What is pushed when a subscription says neither to wrap it nor to leave out what is known of it."""
    return pubsub.request(data).having(
        x_goog_pubsub_subscription_name="projects/demo/subscriptions/fcm-events",
        x_goog_pubsub_message_id=str(secrets.randbits(56)),
        x_goog_pubsub_publish_time=HAPPENED.isoformat().replace("+00:00", "Z"),
    )


def pushed_with(pubsub: Pubsub, key: str, key_id: str) -> Request:
    return pubsub.request(json.dumps(pubsub_push()), secret=key, key_id=key_id)
