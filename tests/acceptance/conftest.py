"""One world for the session, one stage for each test.

Most tests wait more than they compute, so two processes of pytest-xdist (`--numprocesses 2`) take little more
than half the time of one. Each has a world of its own: in one, services are stopped and started; the other is calm.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from .client import Client
from .contract import Contract
from .internet import Internet
from .receiver import Receiver
from .stage import Beacon, Stage
from .world import DEFAULT_OFFSET, ROOT, World

STATE = Path(os.environ.get("POSTHORN_LOCAL_DIR", ROOT / ".local"))
# Which of the processes this is, 0 where there is one only.
PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
OFFSET = int(os.environ.get("POSTHORN_ACCEPTANCE_PORT_OFFSET", DEFAULT_OFFSET)) + 200 * PROCESS
NAME = f"acceptance-{PROCESS}" if PROCESS else "acceptance"

# Modules that kill services, or have them run with other settings.
DISTURBING = ("test_backup", "test_breaker", "test_contract", "test_outages", "test_private_networks", "test_replays")
# Of these, the one after which nothing in its world is as it was.
LAST = "test_contract"

MEASURED = "measured"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem == LAST)


class ByWorld(LoadScopeScheduling):  # type: ignore[misc]
    """Gives the tests of one world to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return "disturbing" if Path(nodeid.split("::")[0]).stem in DISTURBING else "calm"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByWorld:
    return ByWorld(config, log)


@pytest.fixture(scope="session")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    internet = Internet(tmp_path_factory.mktemp("internet"))
    yield internet
    internet.close()


@pytest.fixture(scope="session")
def world(internet: Internet) -> Iterator[World]:
    with running(World(STATE / NAME, internet, OFFSET)) as world:
        yield world


@contextmanager
def running(world: World, **settings: str) -> Iterator[World]:
    """A world from nothing, of which nothing is left but its logs, beside its directory."""
    try:
        # What a run that was killed has left.
        world.down()
        world.up(**settings)
        yield world
    finally:
        world.keep_logs(world.directory.with_name(f"{world.directory.name}-logs"))
        world.down()


@pytest.fixture(scope="session")
def contract() -> Contract:
    return Contract(ROOT / "proto/openapi.yaml")


@pytest.fixture(scope="session")
def operator(world: World, contract: Contract) -> Iterator[Client]:
    """The management API, called by the operator."""
    environment = world.environment
    client = Client(environment["POSTHORN_API_URL"], contract, environment["POSTHORN_OPERATOR_TOKEN"])
    yield client
    client.close()


@pytest.fixture(scope="session")
def gateway(world: World, contract: Contract) -> Iterator[Client]:
    client = Client(world.environment["POSTHORN_GATEWAY_URL"], contract)
    yield client
    client.close()


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="session")
def beacon(operator: Client, gateway: Client, receiver: Receiver) -> Beacon:
    return Beacon(operator, gateway, receiver)


@pytest.fixture
def stage(world: World, operator: Client, gateway: Client, receiver: Receiver, beacon: Beacon) -> Iterator[Stage]:
    stage = Stage(world, operator, gateway, receiver, beacon)
    yield stage
    stage.clear()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line of what was measured, for the end of the run."""
    # These travel with the test's report, also from another process.
    return lambda line: request.node.user_properties.append((MEASURED, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    calls = [report for report in reports if report.when == "call"]
    lines = [line for report in calls for name, line in report.user_properties if name == MEASURED]
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"logs of the services: {STATE}/acceptance*-logs")
