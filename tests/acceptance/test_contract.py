"""The contract, put to the dispatcher by Schemathesis: what it allows, what it forbids, and what lies between.

A tenant and the operator each ask for everything that is theirs to ask for, in the order of the contract and
along its links, with thousands of bodies and parameters that nobody would think of. No answer may be a fault
of ours, and none may be one that the contract does not have; what a schema allows is taken, but for the rules
in `contract_rules.py`, and what it forbids is refused.

It comes last: the operator's requests delete what they come across, whosever it is.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .client import Client
from .contract import Contract
from .providers import Source, new_stripe_secret
from .receiver import Receiver
from .stage import Beacon, Stage, address_of, to_account, to_tenant, wait_for_door
from .tenants import quick_retries
from .waiting import eventually
from .world import ROOT, World

CONTRACT = ROOT / "proto/openapi.yaml"

# Random cases for each operation, beside those that follow from its schema; hundreds, by hand.
EXAMPLES = int(os.environ.get("POSTHORN_SCHEMATHESIS_EXAMPLES", "2"))
# What a run printed as its seed makes the same cases again. Every run of all tests makes the same ones, so that it
# fails for what was changed and not by chance; by hand, each makes others.
SEED = os.environ.get("POSTHORN_SCHEMATHESIS_SEED", None if "POSTHORN_SCHEMATHESIS_EXAMPLES" in os.environ else "1")

SETTINGS = {
    # It asks as fast as it can, and is no flood that would have to be told so.
    "DISPATCHER_API__KEY_REQUESTS_PER_SECOND": "100000",
}


@pytest.fixture(scope="module")
def unhurried(world: World) -> None:
    """Nobody needs the world after that, so nothing is set back."""
    world.up(**SETTINGS)


@pytest.fixture
def stage(world: World, unhurried: None, contract: Contract, receiver: Receiver) -> Iterator[Stage]:
    """Is not cleared: what is left of it by then goes with the world."""
    environment = world.environment
    operator = Client(environment["POSTHORN_API_URL"], contract, environment["POSTHORN_OPERATOR_TOKEN"])
    gateway = Client(environment["POSTHORN_GATEWAY_URL"], contract)
    yield Stage(world, operator, gateway, receiver, Beacon(operator, gateway, receiver))
    operator.close()
    gateway.close()


@dataclass(frozen=True)
class Run:
    """What Schemathesis printed in the end."""

    printed: str
    found_nothing: bool

    def number(self, pattern: str) -> int:
        found = re.search(pattern, self.printed)
        assert found is not None, f"no `{pattern}` in\n{self.printed}"
        return int(found[1])


@pytest.mark.parametrize("caller", ["tenant", "operator"])
def test_every_answer_is_one_that_the_contract_has(
    stage: Stage, tmp_path: Path, caller: str, report: Callable[[str], None]
) -> None:
    key = furnish(stage)
    operations = Contract(CONTRACT).operations("/v1/")
    if caller == "tenant":
        # What is the operator's alone, it is refused: see test_permissions.
        operations = [operation for operation in operations if operation.scope]
    token = key if caller == "tenant" else stage.world.environment["POSTHORN_OPERATOR_TOKEN"]

    began = time.monotonic()
    run = schemathesis(stage.operator.base_url, token, [operation.id for operation in operations], tmp_path)

    cases, seed = run.number(r"(\d+) generated"), run.number(r"Seed: (\d+)")
    report(f"Schemathesis as the {caller}: {cases} cases in {time.monotonic() - began:.0f} s, seed {seed}")
    assert run.found_nothing, run.printed
    assert run.number(r"Tested: (\d+)") == len(operations)


def schemathesis(url: str, token: str, operations: list[str], directory: Path) -> Run:
    """Runs it in a directory where it finds no settings, and in which it may write."""
    # Closed, so that an answer with a field that the contract lacks is a finding.
    closed = directory / "openapi.yaml"
    Contract(CONTRACT).write(closed)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", str(closed),
        "--url", url, "--header", f"Authorization: Bearer {token}",
        *(argument for operation in operations for argument in ("--include-operation-id", operation)),
        "--checks", "all", "--max-examples", str(EXAMPLES), *(("--seed", SEED) if SEED else ()),
        # All that is wrong at once, and nothing that a run before this one knew.
        "--continue-on-failure", "--generation-database", "none",
        "--request-timeout", "30", "--no-color",
    ]  # fmt: skip
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "contract_rules",
        "PYTHONPATH": str(Path(__file__).parent),
        # Nothing of the machine's environment decides where requests go.
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return Run(done.stdout, done.returncode == 0)


def furnish(stage: Stage) -> str:
    """Makes a tenant that has something of everything; a key of its."""
    tenant = stage.tenant()
    delivered = tenant.subscribe(stage.endpoint(), "*")
    dying = tenant.subscribe(stage.endpoint(then=500), "*", retry_policy=quick_retries(1))
    tenant.subscribe(stage.endpoint(then=503), "*", retry_policy={"kind": "schedule", "delays_seconds": [3600]})
    secret = new_stripe_secret()
    source = {"provider": "stripe", "routing": to_tenant(tenant), "config": {"secrets": [secret]}}
    view = tenant.api.create("/v1/sources", source)
    own = Source(stage.gateway, view["id"], address_of(view), secret)
    stripe, by_account = stage.stripe(to_tenant(tenant)), stage.stripe(to_account())
    # What knocks there is refused, and listed as that.
    wait_for_door(own)
    stage.wait_until_in_force()
    by_account.send(account="acct_nobody")
    receipts = [stripe.send() for _ in range(3)]
    for receipt in receipts:
        tenant.delivery(delivered, receipt.event_id, "delivered")
    eventually(lambda: len(tenant.dead_letters(dying)) == 3, within=15, what="there are dead letters")
    eventually(lambda: tenant.api.get("/v1/rejected-requests")["data"], within=15, what="there is a refused request")
    return stage.key(tenant.id, "read", "write")
