"""Endpoints of tenants: they record what arrives and answer as they are told."""

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

Json = Any


@dataclass(frozen=True)
class Reply:
    """An answer of an endpoint."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    # The answer waits until this is set.
    after: threading.Event | None = None


@dataclass(frozen=True)
class Arrival:
    """A request as it arrived, headers in lower case; `at` is on the monotonic clock."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str) -> Json:
        """The body as JSON, after the official library of Standard Webhooks found the signature good."""
        return Webhook(secret).verify(self.body, self.headers)


class Endpoint:
    """One URL of a [`Receiver`]."""

    def __init__(self, url: str, replies: tuple[Reply, ...], then: Reply) -> None:
        self.url = url
        self._replies = deque(replies)
        self._then = then
        self._arrivals: list[Arrival] = []
        self._news = threading.Condition()

    @property
    def arrivals(self) -> list[Arrival]:
        """What arrived so far, in that order."""
        with self._news:
            return list(self._arrivals)

    def expect(self, count: int, *, event_id: str | None = None, within: float = 15.0) -> list[Arrival]:
        """Waits until at least `count` requests arrived (of the one event, if it is named)."""

        def matching() -> list[Arrival]:
            return [arrival for arrival in self._arrivals if event_id in (None, arrival.event_id)]

        with self._news:
            enough = self._news.wait_for(lambda: len(matching()) >= count, timeout=within)
            found = matching()
        assert enough, f"{len(found)} of {count} requests arrived at {self.url} within {within:g} s"
        return found

    def counted(self) -> Counter[str]:
        """How often each event arrived."""
        return Counter(arrival.event_id for arrival in self.arrivals)

    def answer_from_now_on(self, reply: Reply) -> None:
        """Forgets what was scripted."""
        with self._news:
            self._replies.clear()
            self._then = reply

    def _take(self, arrival: Arrival) -> Reply:
        with self._news:
            self._arrivals.append(arrival)
            self._news.notify_all()
            return self._replies.popleft() if self._replies else self._then


class Receiver:
    """A server on a port of the system's choice, with an endpoint for whoever asks for one."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._server = _Server(("127.0.0.1", 0), _handler(self._endpoints))
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)
        self._thread.start()

    def endpoint(self, *replies: Reply | int, then: Reply | int = 200) -> Endpoint:
        """An endpoint that answers with `replies`, one after the other, and with `then` after that."""
        path = f"/{uuid.uuid4().hex}"
        url = f"http://127.0.0.1:{self._server.server_port}{path}"
        endpoint = Endpoint(url, tuple(map(_reply, replies)), _reply(then))
        self._endpoints[path] = endpoint
        return endpoint

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _reply(reply: Reply | int) -> Reply:
    return Reply(reply) if isinstance(reply, int) else reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def handle_error(self, request: object, client_address: object) -> None:
        """A sender that goes away, which some tests have it do, is no news."""


def _handler(endpoints: Mapping[str, Endpoint]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body of an answer leave together and at once.
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self._take()

        do_GET = do_PUT = do_POST  # recorded too, though nobody should

        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            endpoint = endpoints.get(self.path.split("?")[0])
            if endpoint is None:
                self._answer(Reply(404))
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = endpoint._take(Arrival(time.monotonic(), self.command, self.path, headers, body))
            if reply.after is not None:
                reply.after.wait(timeout=60)
            self._answer(reply)

        def _answer(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            if reply.status != 204:
                self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:
            """The tests say what arrived."""

    return Handler
