"""A world of our own: what `deploy/local/up` starts, in a directory and on ports of its own."""

import json
import os
import shlex
import shutil
import signal
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from .internet import Internet
from .waiting import eventually

ROOT = Path(__file__).resolve().parents[2]

# The ports of `up`; ours lie POSTHORN_ACCEPTANCE_PORT_OFFSET above them, so that both can run.
PORTS = {
    "POSTHORN_GATEWAY_PORT": 8080,
    "POSTHORN_DISPATCHER_PORT": 8081,
    "POSTHORN_GATEWAY_ADMIN_PORT": 9080,
    "POSTHORN_DISPATCHER_ADMIN_PORT": 9081,
    "POSTHORN_WORKER_ADMIN_PORT": 9082,
    "POSTHORN_RECEIVER_PORT": 8099,
    "POSTHORN_POSTGRES_PORT": 15432,
    "POSTHORN_AMQP_PORT": 15673,
    "POSTHORN_BROKER_MANAGEMENT_PORT": 15674,
    "POSTHORN_BROKER_METRICS_PORT": 15693,
    "POSTHORN_BROKER_DIST_PORT": 25673,
    "POSTHORN_EPMD_PORT": 14369,
}
DEFAULT_OFFSET = 200

# As the other tests have compiled it; `release` for what is measured.
PROFILE = os.environ.get("POSTHORN_ACCEPTANCE_PROFILE", "dev")

SERVICES = ("gateway", "dispatcher", "worker")

# Variables of whoever runs the tests that would change what is tested.
OURS = ("POSTHORN_", "INGRESS_GATEWAY_", "DISPATCHER_", "DELIVERY_WORKER_", "OTEL_", "RUST_LOG")


class World:
    """The servers, the services and the demo, with an internet of their own."""

    def __init__(self, directory: Path, internet: Internet, offset: int = DEFAULT_OFFSET) -> None:
        self.directory = directory.resolve()
        self.internet = internet
        self._ports = {name: port + offset for name, port in PORTS.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        # Always the same, so that `up` restarts nothing.
        self._environment = inherited | {name: str(port) for name, port in self._ports.items()} | internet.settings
        self._environment["POSTHORN_LOCAL_DIR"] = str(self.directory)
        self._environment["POSTHORN_BUILD_PROFILE"] = PROFILE

    # --- the scripts ---

    def up(self, **settings: str) -> str:
        """Starts what does not run, restarts what is set differently; what the script printed.

        Without a deadline: the first time, it installs and builds.
        """
        return self._run([str(ROOT / "deploy/local/up")], settings)

    def down(self) -> None:
        """Stops everything and forgets it."""
        self._run([str(ROOT / "deploy/local/down"), "--erase"])

    def start_broker(self) -> None:
        """The broker alone; `up` might mend more than that."""
        ports = ("AMQP", "BROKER_MANAGEMENT", "BROKER_METRICS", "BROKER_DIST", "EPMD")
        self._from_library("start_rabbitmq", *(self._port(f"POSTHORN_{name}_PORT") for name in ports), "posthorn")

    def start_database(self) -> None:
        """The database server alone."""
        self._from_library("start_postgres", self._port("POSTHORN_POSTGRES_PORT"))

    @contextmanager
    def disturbed(self) -> Iterator[None]:
        """In here, anything may be broken: afterwards, everything runs as it did."""
        try:
            yield
        finally:
            self.up()

    # --- what it told us ---

    @property
    def environment(self) -> dict[str, str]:
        """The variables in the file `env`, which `up` leaves for people and tests."""
        script = 'source "$1" && env -0'
        printed = subprocess.run(
            ["env", "-i", "bash", "-c", script, "bash", str(self.directory / "env")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        pairs = (line.split("=", 1) for line in printed.split("\0") if line)
        return {name: value for name, value in pairs if name.startswith("POSTHORN_")}

    def admin_url(self, service: str) -> str:
        return f"http://127.0.0.1:{self._port(f'POSTHORN_{service.upper()}_ADMIN_PORT')}"

    def admin(self, service: str, path: str) -> httpx.Response:
        """What a service answers on its admin port."""
        return httpx.get(self.admin_url(service) + path, trust_env=False, timeout=10)

    def log(self, name: str) -> Path:
        return self.directory / "log" / f"{name}.log"

    def messages(self, service: str, after: int = 0) -> list[str]:
        """The messages in a service's log, from byte `after` on."""
        with self.log(service).open("rb") as log:
            log.seek(after)
            lines = log.read().decode("utf-8", "replace").splitlines()
        return [_message(line) for line in lines]

    def keep_logs(self, where: Path) -> None:
        """Copies them to where they outlive the world, if there are any."""
        shutil.rmtree(where, ignore_errors=True)
        if self.log("").parent.is_dir():
            shutil.copytree(self.log("").parent, where)

    # --- the command line ---

    def posthorn(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`posthorn …`, in the environment that `env` gives."""
        return self.shell(shlex.join([self.binary("posthorn"), *arguments]))

    def binary(self, name: str) -> str:
        """Where `up` built it."""
        built = {"dev": "debug"}.get(PROFILE, PROFILE)
        return str((ROOT / self._environment.get("CARGO_TARGET_DIR", "target")).resolve() / built / name)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command as a person would type it in the checkout."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env=self._environment | self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    # --- the broker ---

    def publish(self, exchange: str, routing_key: str, body: bytes) -> None:
        """Puts a message before the services that nobody of theirs wrote."""
        environment = self.environment
        management = environment["POSTHORN_BROKER_MANAGEMENT_URL"]
        vhost = quote(urlsplit(environment["POSTHORN_BROKER_URL"]).path.lstrip("/"), safe="")
        response = httpx.post(
            # The credentials stand in the URL, and httpx takes them from there.
            f"{management}/api/exchanges/{vhost}/{exchange}/publish",
            json={
                "properties": {"delivery_mode": 2},
                "routing_key": routing_key,
                "payload": b64encode(body).decode(),
                "payload_encoding": "base64",
            },
            trust_env=False,
            timeout=10,
        )
        assert response.status_code == 200 and response.json() == {"routed": True}, response.text

    # --- processes ---

    def pid(self, name: str) -> int:
        """The process that `up` started, by the mark that each of its processes carries: pids are reused."""
        pid = int((self.directory / f"{name}.pid").read_text())
        mark = f"POSTHORN_LOCAL_DIR={self.directory}".encode()
        assert mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"), f"{name} (pid {pid}) is not ours"
        return pid

    def service_pids(self) -> dict[str, int]:
        return {name: self.pid(name) for name in SERVICES}

    def signal(self, name: str, number: signal.Signals) -> int:
        """Sends a signal; the pid that it went to."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def kill(self, name: str) -> None:
        """SIGKILL, and nothing of the process is left."""
        pid = self.signal(name, signal.SIGKILL)
        eventually(lambda: not is_running(pid), within=10, what=f"{name} is gone")

    # --- within ---

    def _port(self, setting: str) -> str:
        return str(self._ports[setting])

    def _from_library(self, function: str, *arguments: str) -> None:
        script = 'set -euo pipefail; source "$1/deploy/local/lib.sh"; shift; "$@"'
        self._run(["bash", "-c", script, "bash", str(ROOT), function, str(self.directory), *arguments])

    def _run(self, command: list[str], settings: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment | (settings or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout


def is_running(pid: int) -> bool:
    """Whether the process works; one that ended and that nobody collected does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    # After the name, which may hold anything, in parentheses.
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _message(line: str) -> str:
    """What a line of a log says; one that is no entry says itself."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return str(entry.get("message", line)) if isinstance(entry, dict) else line
