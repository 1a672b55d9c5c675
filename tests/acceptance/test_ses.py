"""SES through SNS: signatures by certificate, and the handshake that goes before the first event."""

import json
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from .client import Json
from .internet import self_signed
from .providers import SNS_HOST, Request, Ses, rsa_key, rsa_pem, ses_bounce
from .stage import Stage, to_tenant
from .tenants import Tenant

CONFIRMED = "<ConfirmSubscriptionResponse/>"


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_signature_of_either_version_holds(stage: Stage, version: str) -> None:
    ses = stage.ses(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    notification = ses.notification(json.dumps(ses_bounce()))

    plain = ses.sent(ses.request(notification, version=version))
    # `Subject` is signed where there is one, and the message may be any text.
    subject = "Amazon SES Email Event Notification"
    titled = ses.sent(ses.request(ses.notification("Grüße\n☃\n", Subject=subject), version=version))

    assert not plain.duplicate and not titled.duplicate


def test_what_ses_tells_in_the_older_form_has_its_type_as_well(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "Complaint")
    ses = stage.ses(to_tenant(tenant))
    stage.wait_until_in_force()

    message = {"notificationType": "Complaint", "complaint": {}, "mail": {"messageId": "0100"}}
    receipt = ses.sent(ses.request(ses.notification(json.dumps(message))))

    endpoint.expect(1, event_id=receipt.event_id)


def test_no_header_is_believed(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "Bounce")
    ses = stage.ses(to_tenant(tenant))
    stage.wait_until_in_force()
    request = ses.request(ses.notification(json.dumps(ses_bounce())))
    strange = {"x_amz_sns_message_type": "UnsubscribeConfirmation", "x_amz_sns_topic_arn": "arn:aws:sns:a:1:b"}

    first = ses.sent(request.having(**strange))
    again = ses.sent(request.having(x_amz_sns_message_id=str(uuid.uuid4())))

    endpoint.expect(1, event_id=first.event_id)
    assert (again.event_id, again.duplicate) == (first.event_id, True)


def test_a_message_gets_no_other_id_by_a_field_that_takes_in_its_neighbour(stage: Stage) -> None:
    tenant = stage.tenant()
    ses = stage.ses(to_tenant(tenant))
    stage.wait_until_in_force()
    genuine = ses.request(ses.notification(json.dumps(ses_bounce()), Subject="Bounce"))
    # What is signed stays the same text, to the byte.
    fields = json.loads(genuine.content)
    fields["MessageId"] += f"\nSubject\n{fields.pop('Subject')}"

    receipt = ses.sent(genuine)
    answer = ses.answer(replace(genuine, content=json.dumps(fields).encode()))

    assert answer.status_code in (400, 401), answer.text
    assert [event["id"] for event in tenant.api.every("/v1/events")] == [receipt.event_id]


def test_each_of_several_topics_is_taken(stage: Stage) -> None:
    topics = ["arn:aws:sns:eu-central-1:123456789012:bounces", "arn:aws:sns:us-east-1:123456789012:clicks"]
    ses = stage.ses(to_tenant(stage.tenant()), topic_arns=topics)
    stage.wait_until_in_force()

    for topic in topics:
        ses.sent(ses.request(ses.notification("{}", TopicArn=topic)))


def test_a_certificate_is_fetched_once(stage: Stage) -> None:
    ses = stage.ses(to_tenant(stage.tenant()))
    stage.wait_until_in_force()

    for _ in range(3):
        ses.sent(ses.request(ses.notification("{}")))

    assert stage.world.internet.visits(ses.certificate_url) == 1


def test_a_stranger_has_nothing_fetched(stage: Stage) -> None:
    internet, ses = stage.world.internet, stage.ses(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    host = f"{uuid.uuid4().hex}.example.com"
    name = f"SimpleNotificationService-{uuid.uuid4().hex}.pem"

    for url in (f"https://{host}/{name}", f"http://{host}/{name}", f"https://{SNS_HOST}.{host}/{name}"):
        internet.serve(url, self_signed("Mallory", rsa_key(rsa_pem("Mallory"))))
        forged = ses.request(ses.notification("{}"), secret=rsa_pem("Mallory"), SigningCertURL=url)
        assert ses.answer(forged).status_code == 401

    ses.sent(ses.request(ses.notification("{}")))
    assert internet.visits(host) == 0


def test_a_certificate_that_amazon_does_not_have_is_looked_for_once(stage: Stage) -> None:
    ses = stage.ses(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    url = f"https://{SNS_HOST}/SimpleNotificationService-{uuid.uuid4().hex}.pem"

    for _ in range(3):
        forged = ses.request(ses.notification("{}"), secret=rsa_pem("Mallory"), SigningCertURL=url)
        assert ses.answer(forged).status_code == 401

    assert stage.world.internet.visits(url) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, ""), (200, "<html>Sign in to the Wi-Fi</html>"), (200, "x" * 1_000_000)],
    ids=["in trouble", "something else", "without end"],
)
def test_while_the_certificate_is_out_of_reach_sns_is_asked_to_come_back(stage: Stage, status: int, body: str) -> None:
    internet, ses = stage.world.internet, stage.ses(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    request = ses.request(ses.notification(json.dumps(ses_bounce())))

    internet.serve(ses.certificate_url, body, status)
    answer = ses.answer(request)
    internet.serve(ses.certificate_url, self_signed("sns.amazonaws.com", rsa_key(ses.secret)))

    # 4xx would be final.
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert not ses.sent(request).duplicate


def test_a_subscription_is_confirmed_once_at_the_url_that_is_signed(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "*")
    ses = stage.ses(to_tenant(tenant))
    stage.wait_until_in_force()
    confirmation = ses.confirmation()
    stage.world.internet.serve(confirmation["SubscribeURL"], CONFIRMED)

    answer = ses.answer(ses.request(confirmation))

    assert answer.status_code == 200, answer.text
    assert stage.world.internet.visits(confirmation["SubscribeURL"]) == 1
    assert_the_next_event_is_the_first(stage, tenant, ses)
    assert len(endpoint.expect(1)) == 1
    assert stage.world.internet.visits(confirmation["SubscribeURL"]) == 1


def unproven(ses: Ses, confirmation: Json) -> Request:
    return ses.request(confirmation, secret=rsa_pem("Mallory"))


def with_another_token(ses: Ses, confirmation: Json) -> Request:
    return ses.request(confirmation).forged(confirmation["Token"], confirmation["Token"][::-1])


def to_another_url(ses: Ses, confirmation: Json) -> Request:
    return ses.request(confirmation, SubscribeURL=confirmation["SubscribeURL"].replace(SNS_HOST, "evil.example.com"))


def of_a_foreign_topic(ses: Ses, confirmation: Json) -> Request:
    return ses.request(confirmation | {"TopicArn": "arn:aws:sns:eu-central-1:210987654321:mallory"})


def not_confirming(ses: Ses, confirmation: Json) -> Request:
    """The same fields, called a notification, of which they are no part."""
    return ses.request(confirmation, Type="Notification")


@pytest.mark.parametrize("forge", [unproven, with_another_token, to_another_url, of_a_foreign_topic, not_confirming])
def test_a_subscription_that_is_not_proven_or_not_ours_is_not_confirmed(
    stage: Stage, forge: Callable[[Ses, Json], Request]
) -> None:
    internet, ses = stage.world.internet, stage.ses(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    confirmation = ses.confirmation()
    internet.serve(confirmation["SubscribeURL"], CONFIRMED)

    answer = ses.answer(forge(ses, confirmation))

    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/signature-invalid")
    assert internet.visits(confirmation["Token"]) == 0
    assert ses.answer(ses.request(confirmation)).status_code == 200
    assert internet.visits(confirmation["Token"]) == 1


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        f"{SNS_HOST}.evil.example.com",
        f"{SNS_HOST}:8443",
        f"mallory@{SNS_HOST}",
        "s3.eu-central-1.amazonaws.com",
    ],
)
def test_a_subscription_is_confirmed_at_sns_only(stage: Stage, host: str) -> None:
    internet, ses = stage.world.internet, stage.ses(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    genuine = ses.confirmation()
    confirmation = genuine | {"SubscribeURL": genuine["SubscribeURL"].replace(SNS_HOST, host)}
    for url in (genuine["SubscribeURL"], confirmation["SubscribeURL"]):
        internet.serve(url, CONFIRMED)

    # Not that Amazon would sign that.
    answer = ses.answer(ses.request(confirmation))

    assert (answer.status_code, answer.json()["type"]) == (401, "/problems/signature-invalid")
    assert internet.visits(genuine["Token"]) == 0
    assert ses.answer(ses.request(genuine)).status_code == 200
    assert internet.visits(genuine["Token"]) == 1


def test_a_subscription_that_cannot_be_confirmed_now_is_confirmed_when_sns_comes_back(stage: Stage) -> None:
    internet, ses = stage.world.internet, stage.ses(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    confirmation = ses.confirmation()
    internet.serve(confirmation["SubscribeURL"], "", 500)

    answer = ses.answer(ses.request(confirmation))
    internet.serve(confirmation["SubscribeURL"], CONFIRMED)
    again = ses.answer(ses.request(confirmation))

    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert again.status_code == 200, again.text
    assert internet.visits(confirmation["SubscribeURL"]) == 2


def test_a_subscription_that_ended_is_not_confirmed(stage: Stage) -> None:
    internet, tenant = stage.world.internet, stage.tenant()
    ses = stage.ses(to_tenant(tenant))
    stage.wait_until_in_force()
    # Its SubscribeURL would subscribe again.
    ended, begun = ses.confirmation("UnsubscribeConfirmation"), ses.confirmation()
    for confirmation in (ended, begun):
        internet.serve(confirmation["SubscribeURL"], CONFIRMED)

    answers = [ses.answer(ses.request(confirmation)) for confirmation in (ended, begun)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [internet.visits(confirmation["SubscribeURL"]) for confirmation in (ended, begun)] == [0, 1]
    assert_the_next_event_is_the_first(stage, tenant, ses)


def test_what_ses_says_once_to_try_a_topic_is_answered_and_is_no_event(stage: Stage) -> None:
    tenant = stage.tenant()
    ses = stage.ses(to_tenant(tenant))
    stage.wait_until_in_force()
    message = "Successfully validated SNS topic for Amazon SES event publishing."

    answer = ses.answer(ses.request(ses.notification(message, Subject="Amazon SES")))

    assert answer.is_success, answer.text
    assert_the_next_event_is_the_first(stage, tenant, ses)


def assert_the_next_event_is_the_first(stage: Stage, tenant: Tenant, ses: Ses) -> None:
    receipt = ses.sent(ses.request(ses.notification(json.dumps(ses_bounce()))))
    assert [event["id"] for event in tenant.api.every("/v1/events")] == [receipt.event_id]
