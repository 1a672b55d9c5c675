"""A backup is brought back as OPERATIONS says, with an empty broker, and everything that was due is delivered."""

import os
import re
import signal
import subprocess
from pathlib import Path

from .stage import Stage, to_tenant
from .waiting import eventually
from .world import ROOT, SERVICES, World


def test_what_a_backup_knew_of_is_delivered_after_it_was_brought_back(stage: Stage, tmp_path: Path) -> None:
    world = stage.world
    backup, *restore = _commands("Backup and restore")
    assert len(restore) == 2
    tenant = stage.tenant()
    endpoint, failing, paused = stage.endpoint(), stage.endpoint(503), stage.endpoint()
    subscription = tenant.subscribe(endpoint, "*")
    tenant.subscribe(failing, "*", retry_policy={"kind": "schedule", "delays_seconds": [20]})
    waits = tenant.subscribe(paused, "*")
    tenant.api.change(waits.path, {"state": "paused"})
    stripe = stage.stripe(to_tenant(tenant))
    stage.wait_until_in_force()

    with world.disturbed():
        # Waits for its retry, and for a person.
        sent = [stripe.send().event_id]
        failing.expect(1, event_id=sent[0])
        tenant.delivery(subscription, sent[0], "delivered")
        # In the deliveries queues, in the events queue, and in the outbox alone.
        world.signal("worker", signal.SIGSTOP)
        sent += [stripe.send().event_id for _ in range(5)]
        eventually(
            lambda: len(list(tenant.api.every("/v1/deliveries", state="queued"))) >= 10, within=15, what="they are queued"
        )
        world.signal("dispatcher", signal.SIGSTOP)
        sent += [stripe.send().event_id for _ in range(5)]
        world.kill("rabbitmq")
        sent += [stripe.send().event_id for _ in range(5)]

        _run(world, backup, tmp_path)
        for service in SERVICES:
            world.kill(service)
        world.start_broker()
        for commands in restore:
            _run(world, commands, tmp_path)

    for event_id in sent:
        endpoint.expect(1, event_id=event_id, within=90)
        failing.expect(1, event_id=event_id, within=90)
    failing.expect(2, event_id=sent[0], within=60)
    assert paused.arrivals == []
    tenant.api.change(waits.path, {"state": "active"})
    for event_id in sent:
        paused.expect(1, event_id=event_id, within=30)
    # The backup knew neither of these arrivals nor of any other, so nothing is made twice.
    assert set(endpoint.counted().values()) == {1} and set(endpoint.counted()) == set(sent)


def _commands(section: str) -> list[str]:
    """The shell commands of a section of the manual, block by block."""
    manual = (ROOT / "docs/OPERATIONS.md").read_text()
    text = manual.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def _run(world: World, commands: str, directory: Path) -> None:
    path = f"{Path(world.binary('posthorn')).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=directory,
        env={**os.environ, **world.environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}"
