"""Many events in and many deliveries out, at so little cost that what is measured is Posthorn and not the tests.

How many, POSTHORN_PROOF_SCALE says: with `full`, the numbers that a promise is made for; otherwise, so few that every
run of all tests can afford them.
"""

import asyncio
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from .providers import Internal
from .waiting import eventually

FULL = os.environ.get("POSTHORN_PROOF_SCALE") == "full"

T = TypeVar("T")


def scaled(here: T, full: T) -> T:
    """`here` in a run of all tests, `full` when the whole proof is asked for."""
    return full if FULL else here


@dataclass(frozen=True)
class Sent:
    """An event that was accepted; times are on the monotonic clock."""

    event_id: str
    began: float
    accepted: float


@dataclass
class Basin:
    """A path of a [`Sink`]: every request is answered 200, `delay` seconds after it came."""

    url: str
    delay: float = 0.0
    # `webhook-id` and when it came.
    arrivals: list[tuple[str, float]] = field(default_factory=list)

    def wait(self, count: int, *, within: float) -> None:
        eventually(
            lambda: len(self.arrivals) >= count,
            within=within,
            what=f"{count} requests arrive ({len(self.arrivals)} did at first)",
        )


class Sink:
    """A receiver for tens of thousands of requests, with a thread and an event loop of its own."""

    def __init__(self) -> None:
        self._basins: dict[bytes, Basin] = {}
        self._loop = asyncio.new_event_loop()
        listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="sink", daemon=True)
        self._thread.start()
        self._server = self.run(self._loop.create_server(lambda: _Connection(self._basins), sock=listener))

    def basin(self, delay: float = 0.0) -> Basin:
        path = f"/{uuid.uuid4().hex}"
        basin = Basin(f"http://127.0.0.1:{self._port}{path}", delay)
        self._basins[path.encode()] = basin
        return basin

    def run(self, work: Coroutine[object, object, T]) -> T:
        """In its loop, where sending costs no more than receiving."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as the worker speaks it: a head, a `content-length`, one request after the other."""

    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    NOBODY = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"

    def __init__(self, basins: dict[bytes, Basin]) -> None:
        self._basins = basins
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            headers = head.lower()
            length = int(_header(headers, b"content-length") or 0)
            if len(self._buffer) < end + 4 + length:
                return
            del self._buffer[: end + 4 + length]
            self._answer(head.split(b" ", 2)[1], _header(headers, b"webhook-id").decode())

    def _answer(self, path: bytes, event_id: str) -> None:
        basin = self._basins.get(path)
        if basin is None:
            self._transport.write(self.NOBODY)
            return
        basin.arrivals.append((event_id, time.monotonic()))
        if basin.delay:
            asyncio.get_running_loop().call_later(basin.delay, self._transport.write, self.ANSWER)
        else:
            self._transport.write(self.ANSWER)


def _header(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else b""


async def pour(source: Internal, event_type: str, count: int, *, connections: int = 16) -> list[Sent]:
    """Sends as fast as it is taken, over connections that stay open."""
    numbers = iter(range(count))
    sent: list[Sent] = []

    async def send_some(send: Callable[[], Awaitable[Sent]]) -> None:
        for _ in numbers:
            sent.append(await send())

    await _over_connections(source, event_type, connections, send_some)
    return sent


async def trickle(source: Internal, event_type: str, *, per_second: float, until: Callable[[], bool]) -> list[Sent]:
    """Sends at a steady pace until it is enough."""
    sent: list[Sent] = []

    async def send_in_time(send: Callable[[], Awaitable[Sent]]) -> None:
        began = time.monotonic()
        while not until():
            # The pace, and not a wait for anything: event n is due n intervals after the beginning.
            await asyncio.sleep(max(0.0, began + len(sent) / per_second - time.monotonic()))
            sent.append(await send())

    await _over_connections(source, event_type, 1, send_in_time)
    return sent


async def _over_connections(
    source: Internal,
    event_type: str,
    connections: int,
    work: Callable[[Callable[[], Awaitable[Sent]]], Coroutine[object, object, None]],
) -> None:
    gateway = urlsplit(source.gateway.base_url)
    head = (
        f"POST /webhooks/{source.address}/{event_type} HTTP/1.1\r\nhost: {gateway.netloc}\r\n"
        f"x-service-token: {source.secret}\r\ncontent-type: application/json\r\n"
    )

    async def connected() -> None:
        reader, writer = await asyncio.open_connection(gateway.hostname, gateway.port)

        async def send() -> Sent:
            body = json.dumps({"nonce": uuid.uuid4().hex})
            began = time.monotonic()
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            content = await reader.readexactly(int(_header(answer.lower(), b"content-length")))
            assert answer.startswith(b"HTTP/1.1 200 "), answer + content
            return Sent(json.loads(content)["event_id"], began, time.monotonic())

        try:
            await work(send)
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(connected())


def share(values: list[float], part: float) -> float:
    """Below which that part of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
