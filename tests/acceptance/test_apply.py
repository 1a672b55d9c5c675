"""A deployment kept as a file: `posthorn apply`."""

import secrets
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .client import Client
from .world import ROOT, World

EXAMPLE = ROOT / "deploy/examples/deployment.yaml"


class Deployment:
    """The example under names of a test's own, so that tests do not meet in it."""

    def __init__(self, world: World, directory: Path) -> None:
        self.name = f"acme-{secrets.token_hex(4)}"
        self.document = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8").replace("acme", self.name))
        self.document["event_types"][0]["name"] = f"{self.name}.report.completed"
        self.environment = {"ACME_STRIPE_SECRET": "whsec_of_acme", "ACME_REPORTS_TOKEN": "a-token-of-acme-reports"}
        self._world = world
        self._file = directory / "deployment.yaml"

    def apply(self, *options: str) -> subprocess.CompletedProcess[str]:
        self._file.write_text(yaml.safe_dump(self.document), encoding="utf-8")
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        command = ["env", *variables, self._world.binary("posthorn"), "apply", str(self._file), *options]
        return self._world.shell(shlex.join(command))


@pytest.fixture
def deployment(world: World, operator: Client, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(world, tmp_path)
    yield deployment
    for source in operator.every("/v1/sources"):
        if deployment.name in (source["slug"] or ""):
            operator.delete(f"/v1/sources/{source['id']}")
    for tenant in operator.every("/v1/tenants", external_id=deployment.name):
        operator.delete(f"/v1/tenants/{tenant['id']}")
    for entry in operator.every("/v1/event-types"):
        if deployment.name in entry["name"]:
            operator.delete(f"/v1/event-types/{entry['name']}")


def lines(ran: subprocess.CompletedProcess[str]) -> list[str]:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_a_plan_changes_nothing_applying_does_and_applying_again_has_nothing_to_do(
    deployment: Deployment, operator: Client
) -> None:
    planned = lines(deployment.apply("--plan"))
    assert [line.split()[0] for line in planned[:-1]] == ["+"] * 6
    assert planned[-1] == "6 to change, 0 as they are"
    assert operator.get("/v1/tenants", external_id=deployment.name)["data"] == []

    applied = lines(deployment.apply())
    assert sum("its secret, shown only now: whsec_" in line for line in applied) == 2
    assert applied[-1] == "6 changed, 0 as they are"
    [tenant] = operator.get("/v1/tenants", external_id=deployment.name)["data"]
    subscriptions = operator.get("/v1/subscriptions", tenant_id=tenant["id"])["data"]
    assert {subscription["name"] for subscription in subscriptions} == {"Billing", "Reports"}

    assert lines(deployment.apply()) == ["0 changed, 6 as they are"]


def test_what_differs_is_told_by_its_pointer_and_changed_and_secrets_are_told_by_fingerprint(
    deployment: Deployment,
) -> None:
    lines(deployment.apply())
    deployment.document["subscriptions"][0]["timeout_seconds"] = 5
    deployment.document["subscriptions"][1]["state"] = "paused"
    deployment.environment["ACME_STRIPE_SECRET"] = "whsec_of_acme_anew"

    told = lines(deployment.apply())

    assert "    /timeout_seconds: 10 → 5" in told
    assert '    /state: "active" → "paused"' in told
    assert any(line.startswith("    /config/secrets, by fingerprint: ") for line in told)
    assert "whsec_" not in "".join(told)
    assert told[-1] == "3 changed, 3 as they are"
    assert lines(deployment.apply()) == ["0 changed, 6 as they are"]


def test_secret_headers_are_told_by_fingerprint_and_changed_once(deployment: Deployment) -> None:
    headers = {"Authorization": "Bearer ${ACME_TOKEN}", "X-Customer": {"value": "${ACME_TOKEN}", "secret": True}}
    deployment.document["subscriptions"][0]["headers"] = headers | {"X-Team": "billing"}
    deployment.environment["ACME_TOKEN"] = "first-token-of-acme"
    lines(deployment.apply())
    assert lines(deployment.apply()) == ["0 changed, 6 as they are"]
    deployment.environment["ACME_TOKEN"] = "second-token-of-acme"

    told = lines(deployment.apply())

    assert "    /headers/Authorization: changed" in told
    assert "    /headers/X-Customer: changed" in told
    assert "token-of-acme" not in "".join(told)
    assert told[-1] == "1 changed, 5 as they are"
    assert lines(deployment.apply()) == ["0 changed, 6 as they are"]


def test_pruning_deletes_a_tenants_subscriptions_that_the_file_does_not_name(deployment: Deployment) -> None:
    lines(deployment.apply())
    gone = deployment.document["subscriptions"].pop()
    # Of these the file is to say nothing: other tests have theirs.
    for section in ("event_types", "tenants", "sources"):
        del deployment.document[section]
    label = f"subscription {gone['tenant']}/{gone['name']}"

    assert lines(deployment.apply()) == ["0 changed, 1 as they are"], "not without being asked"
    assert lines(deployment.apply("--plan", "--prune")) == [f"- {label}", "1 to change, 1 as they are"]
    assert lines(deployment.apply("--prune")) == [f"- {label}", "1 changed, 1 as they are"]
    assert lines(deployment.apply("--prune")) == ["0 changed, 1 as they are"]


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"tennants": []}, "tennants"),
        ({"subscriptions": [{"tenant": "nobody-of-that-name", "name": "A"}]}, "nobody-of-that-name"),
        ({"sources": [{"slug": "x", "provider": "stripe", "config": {"secrets": ["${NOT_SET_ANYWHERE}"]}}]}, "NOT_SET"),
        ({"sources": [{"slug": "x-y-z", "provider": "stripe", "colour": "red", "config": {}}]}, "colour"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_the_name_of_what_is_wrong(
    deployment: Deployment, broken: dict[str, object], named: str
) -> None:
    deployment.document = broken
    ran = deployment.apply()
    assert ran.returncode != 0
    assert named in ran.stderr
