"""Endpoints that no web server would serve: they have the socket, and do with it what they like."""

import contextlib
import gzip
import itertools
import random
import socket
import threading
from collections.abc import Callable
from functools import cache

# What it does with a connection after the request was read. `gone` is set when the endpoint closes.
Conduct = Callable[[socket.socket, threading.Event], None]

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"

TEN_GIGABYTES = 10 * 10**9
PIECE = b"A" * 65536


class HostileEndpoint:
    """A port of the system's choice, on which every request meets the same conduct."""

    def __init__(self, conduct: Conduct) -> None:
        self._conduct = conduct
        self._gone = threading.Event()
        self._requests = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        threading.Thread(target=self._serve, name="hostile", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/hooks"

    @property
    def requests(self) -> int:
        """How many came so far, whole."""
        with self._lock:
            return self._requests

    def close(self) -> None:
        self._gone.set()
        # Wakes `accept`, which closing alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while not self._gone.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._meet, args=(connection,), daemon=True).start()

    def _meet(self, connection: socket.socket) -> None:
        # Whoever is treated like that goes away, which is no news.
        with connection, contextlib.suppress(OSError):
            if read_request(connection):
                with self._lock:
                    self._requests += 1
                self._conduct(connection, self._gone)


def read_request(connection: socket.socket) -> bool:
    """Reads a request with its body; false if none came."""
    with connection.makefile("rb") as reader:
        length, line = 0, reader.readline()
        if not line:
            return False
        while (line := reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return len(reader.read(length)) == length


def says_nothing(_: socket.socket, gone: threading.Event) -> None:
    gone.wait(60)


def drips_its_head(connection: socket.socket, gone: threading.Event) -> None:
    drip(connection, OK + b"content-length: 2\r\n\r\nok", gone)


def drips_its_body(connection: socket.socket, gone: threading.Event) -> None:
    connection.sendall(OK + b"content-length: 1000\r\n\r\n")
    drip(connection, b"." * 1000, gone)


def drip(connection: socket.socket, answer: bytes, gone: threading.Event) -> None:
    """A byte a second."""
    for byte in answer:
        connection.sendall(bytes([byte]))
        if gone.wait(1):
            return


def never_ends_its_head(connection: socket.socket, gone: threading.Event) -> None:
    connection.sendall(OK)
    for number in itertools.count():
        if gone.is_set():
            return
        connection.sendall(b"".join(b"x-%d-%d: %s\r\n" % (number, line, b"h" * 200) for line in range(100)))


def claims_ten_gigabytes(connection: socket.socket, gone: threading.Event) -> None:
    connection.sendall(OK + b"content-length: %d\r\n\r\n" % TEN_GIGABYTES)
    pour(connection, PIECE, gone)


def streams_ten_gigabytes(connection: socket.socket, gone: threading.Event) -> None:
    connection.sendall(OK + b"transfer-encoding: chunked\r\n\r\n")
    pour(connection, b"%x\r\n%s\r\n" % (len(PIECE), PIECE), gone)


def pour(connection: socket.socket, piece: bytes, gone: threading.Event) -> None:
    for _ in range(TEN_GIGABYTES // len(PIECE)):
        if gone.is_set():
            return
        connection.sendall(piece)


def sends_a_bomb(connection: socket.socket, _: threading.Event) -> None:
    packed = bomb()
    connection.sendall(OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed)


@cache
def bomb() -> bytes:
    """A megabyte or so that unpacks to one gigabyte: members of a gzip file may follow one another."""
    return gzip.compress(bytes(1 << 24)) * 64


def closes_in_its_head(connection: socket.socket, _: threading.Event) -> None:
    connection.sendall(OK[:20])


def closes_in_its_body(connection: socket.socket, _: threading.Event) -> None:
    connection.sendall(OK + b"content-length: 100\r\n\r\nhalf of it")


def speaks_garbage(connection: socket.socket, _: threading.Event) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n" + random.Random(1).randbytes(4096))


def redirects_to_itself(connection: socket.socket, _: threading.Event) -> None:
    address, port = connection.getsockname()
    head = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{address}:{port}/hooks\r\ncontent-length: 0\r\n\r\n"
    connection.sendall(head.encode())
