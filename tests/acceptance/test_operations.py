"""What operators look at, and the first steps of a newcomer."""

import re

import pytest

from .stage import Stage, to_tenant
from .waiting import eventually
from .world import SERVICES, World


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_says_that_it_lives_is_ready_and_what_it_counts(stage: Stage, service: str) -> None:
    world = stage.world
    # Something to count: by then, an event has gone through all three.
    stage.wait_until_in_force()

    alive, ready, metrics = (world.admin(service, path) for path in ("/livez", "/readyz", "/metrics"))

    assert alive.status_code == 200
    assert ready.status_code == 200
    dependencies = dict(line.split(": ", 1) for line in ready.text.splitlines())
    assert {"database", "broker"} <= dependencies.keys()
    assert set(dependencies.values()) == {"ok"}
    assert metrics.status_code == 200
    assert metrics.headers["content-type"].startswith("text/plain")
    assert re.search(r"^# TYPE posthorn_\w+ (counter|gauge|histogram|summary)$", metrics.text, re.MULTILINE)


def test_what_the_gateway_did_is_counted(stage: Stage) -> None:
    stripe = stage.stripe(to_tenant(stage.tenant()))
    stage.wait_until_in_force()
    before = _received(stage.world)

    stripe.send()
    stripe.post(b"{}", {})

    def counted() -> bool:
        now = _received(stage.world)
        return now.get("accepted", 0) > before.get("accepted", 0) and sum(now.values()) >= sum(before.values()) + 2

    eventually(counted, within=5, what="an accepted and a refused request are counted")


def test_every_request_has_an_id_of_its_own(stage: Stage) -> None:
    answers = [stage.gateway.call("POST", "/webhooks/nobody") for _ in range(3)]
    answers += [stage.operator.call("GET", "/v1/tenants") for _ in range(3)]

    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 6
    for answer in answers[:3]:
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_the_request_id_leads_into_the_log(stage: Stage) -> None:
    request_id = stage.operator.refused(404, "not-found", "GET", "/v1/events/evt_1")["request_id"]

    bare = request_id.removeprefix("req_")
    log = stage.world.log("dispatcher")
    forms = (request_id, bare, "-".join(re.fullmatch(r"(.{8})(.{4})(.{4})(.{4})(.{12})", bare).groups()))  # type: ignore[union-attr]
    eventually(
        lambda: any(form in log.read_text(encoding="utf-8", errors="replace") for form in forms),
        within=5,
        what=f"the log tells of {request_id}",
    )


def test_no_log_tells_a_secret(stage: Stage) -> None:
    tenant, endpoint = stage.tenant(), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()
    stripe.send()
    (arrival,) = endpoint.expect(1)

    environment = stage.world.environment
    secrets = [
        subscription.secret,
        stripe.secret,
        arrival.headers["webhook-signature"],
        environment["POSTHORN_OPERATOR_TOKEN"],
        environment["POSTHORN_SEALING_KEYS"].partition(":")[2],
    ]
    for service in SERVICES:
        told = stage.world.log(service).read_text(encoding="utf-8", errors="replace")
        for secret in secrets:
            assert secret not in told, f"{service} tells a secret"


def test_up_changes_nothing_where_all_is_well_and_its_demo_works(world: World) -> None:
    before = world.service_pids() | {name: world.pid(name) for name in ("postgres", "rabbitmq", "receiver")}

    printed = world.up()

    assert printed.splitlines()[-1] == "ready"
    assert {name: world.pid(name) for name in before} == before
    assert world.environment["POSTHORN_OPERATOR_TOKEN"] in printed
    (command,) = (line for line in printed.splitlines() if " send stripe " in line)
    sent = world.shell(command)
    assert sent.returncode == 0, sent.stderr
    (event_id,) = re.findall(r"evt_[0-9a-f]{32}", sent.stdout)
    log = world.log("receiver")
    eventually(
        lambda: re.search(f"{event_id} signature ok", log.read_text()),
        within=10,
        what="the demo's receiver tells of it",
    )


def test_a_health_check_needs_no_other_program(world: World) -> None:
    port = world.admin_url("gateway").rpartition(":")[2]

    done = world.shell(f"INGRESS_GATEWAY_HTTP__ADMIN_PORT={port} {world.binary('ingress-gateway')} --check-health")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("INGRESS_GATEWAY_HTTP__PROT", "8080"), ("INGRESS_GATEWAY_HTTP__PORT", "many")],
)
def test_a_wrong_setting_fails_before_anything_is_bound_and_is_named(world: World, variable: str, value: str) -> None:
    done = world.shell(f"{variable}={value} {world.binary('ingress-gateway')}")

    assert done.returncode != 0
    assert variable in done.stderr + done.stdout


def _received(world: World) -> dict[str, float]:
    text = world.admin("gateway", "/metrics").text
    found = re.findall(r'^posthorn_received_total\{[^}]*outcome="(\w+)"[^}]*\} (\S+)$', text, re.MULTILINE)
    return {outcome: float(count) for outcome, count in found}
