"""One world for the session, one stage for each test."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .client import Client
from .contract import Contract
from .internet import Internet
from .receiver import Receiver
from .stage import Beacon, Stage
from .world import DEFAULT_OFFSET, ROOT, World

STATE = Path(os.environ.get("POSTHORN_LOCAL_DIR", ROOT / ".local"))
OFFSET = int(os.environ.get("POSTHORN_ACCEPTANCE_PORT_OFFSET", DEFAULT_OFFSET))

MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    internet = Internet(tmp_path_factory.mktemp("internet"))
    yield internet
    internet.close()


@pytest.fixture(scope="session")
def world(internet: Internet) -> Iterator[World]:
    with running(World(STATE / "acceptance", internet, OFFSET)) as world:
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
    lines = request.config.stash.setdefault(MEASURED, [])
    return lines.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(MEASURED, [])
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"logs of the services: {STATE / 'acceptance-logs'}")
