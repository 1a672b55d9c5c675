"""Events of the platform's own services: a token, and the type in the path."""

import json
import uuid

from .stage import Stage, to_header, to_tenant


def test_the_type_of_an_internal_event_is_in_the_path(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "report-completed")
    internal = stage.internal(to_tenant(tenant))
    stage.wait_until_in_force()

    receipt = internal.send("report-completed", {"report": 7, "pages": 12})

    (arrival,) = endpoint.expect(1)
    body = arrival.verified(subscription.secret)
    assert (body["type"], body["data"]) == ("report-completed", {"report": 7, "pages": 12})
    event = tenant.api.get(f"/v1/events/{receipt.event_id}")
    assert event["event_type"] == "report-completed"
    assert event["headers"]["x-service-token"] == "[redacted]"
    assert internal.secret not in json.dumps(event)


def test_an_internal_event_without_a_valid_token_is_refused(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "*")
    internal = stage.internal(to_tenant(tenant))
    stage.wait_until_in_force()
    path = f"/webhooks/{internal.address}/report-completed"

    for headers in ({}, {"x-service-token": ""}, {"x-service-token": "guess"}, {"authorization": internal.secret}):
        stage.gateway.refused(401, "signature-invalid", "POST", path, content=b"{}", headers=headers)

    receipt = internal.send("report-completed", {})
    endpoint.expect(1, event_id=receipt.event_id)
    assert len(endpoint.arrivals) == 1


def test_each_of_several_tokens_is_good(stage: Stage) -> None:
    tokens = [uuid.uuid4().hex, uuid.uuid4().hex]
    internal = stage.internal(to_tenant(stage.tenant()), config={"tokens": tokens})
    stage.wait_until_in_force()

    for token in tokens:
        assert internal.post_data("ping", x_service_token=token).status_code == 200
    assert internal.post_data("ping").status_code == 401


def test_a_header_names_the_tenant_by_external_id_or_by_id(stage: Stage) -> None:
    acme, globex = stage.tenant(), stage.tenant()
    at_acme, at_globex = stage.endpoint(), stage.endpoint()
    acme.subscribe(at_acme, "*")
    globex.subscribe(at_globex, "*")
    internal = stage.internal(to_header())
    stage.wait_until_in_force()

    to_acme = internal.send("ping", x_tenant_id=acme.external_id)
    to_globex = internal.send("ping", x_tenant_id=globex.id)

    at_acme.expect(1, event_id=to_acme.event_id)
    at_globex.expect(1, event_id=to_globex.event_id)
    assert len(list(acme.api.every("/v1/deliveries"))) == 1
    assert len(list(globex.api.every("/v1/deliveries"))) == 1


def test_an_event_of_an_unknown_tenant_is_kept_and_goes_nowhere(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "*")
    internal = stage.internal(to_header())
    stage.wait_until_in_force()

    astray = internal.send("ping", {"for": "nobody"}, x_tenant_id="acct_nobody")
    nameless = internal.send("ping", {"for": "whom?"})

    for receipt, payload in ((astray, {"for": "nobody"}), (nameless, {"for": "whom?"})):
        event = stage.operator.get(f"/v1/events/{receipt.event_id}")
        assert (event["routed"], event["tenant_id"], event["payload"]) == ("unrouted", None, payload)
    listed = {event["id"] for event in stage.operator.every("/v1/events", source=internal.address)}
    assert listed == {astray.event_id, nameless.event_id}
    marker = internal.send("ping", x_tenant_id=tenant.id)
    endpoint.expect(1, event_id=marker.event_id)
    assert stage.deliveries(astray.event_id) == stage.deliveries(nameless.event_id) == []
    tenant.api.refused(404, "not-found", "GET", f"/v1/events/{astray.event_id}")


def test_a_service_that_repeats_itself_says_so_with_a_key(stage: Stage) -> None:
    internal = stage.internal(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    key = uuid.uuid4().hex

    first = internal.send("ping", {"n": 1}, idempotency_key=key)
    again = internal.send("ping", {"n": 1}, idempotency_key=key)
    other = internal.send("ping", {"n": 1}, idempotency_key=uuid.uuid4().hex)

    assert (again.event_id, again.duplicate) == (first.event_id, True)
    assert other.duplicate is False


def test_only_sources_with_a_type_in_the_path_take_one(stage: Stage) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()))
    stage.wait_until_in_force()

    answer = stripe.post(b"{}", stripe.headers("{}"), event="invoice.paid")

    assert answer.status_code == 404


def test_the_command_line_sends_as_a_provider_does(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    tenant.subscribe(endpoint, "*")
    stripe, internal = stage.stripe(to_tenant(tenant)), stage.internal(to_header())
    stage.wait_until_in_force()

    as_stripe = stage.world.posthorn(
        "send", "stripe", "--source", stripe.address, "--secret", stripe.secret, "--type", "charge.refunded"
    )
    as_service = stage.world.posthorn(
        "send", "internal", "--source", internal.address, "--secret", internal.secret,
        "--type", "report.completed", "--tenant", tenant.external_id,
    )  # fmt: skip

    for sent in (as_stripe, as_service):
        assert sent.returncode == 0, sent.stderr
        assert '"received":true' in sent.stdout.replace(" ", "")
    types = {json.loads(arrival.body)["type"] for arrival in endpoint.expect(2)}
    assert types == {"charge.refunded", "report.completed"}
    refused = stage.world.posthorn("send", "stripe", "--source", stripe.address, "--secret", "whsec_wrong")
    assert refused.returncode != 0
    assert "401" in refused.stderr
