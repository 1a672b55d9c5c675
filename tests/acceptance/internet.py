"""The internet as the services find it: every host is played by us, and nothing is passed on.

Providers keep certificates and key sets on hosts of theirs, and confirm subscriptions there. The services
ask for them through a proxy, which is this one. It ends the tunnel itself, with a certificate that the
services trust because their roots are the machine's and one of ours.
"""

import datetime
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Page:
    """What a GET of a URL is answered."""

    body: bytes
    status: int = 200


class Internet:
    """A proxy on a port of the system's choice, and the pages behind it. `directory` is for its certificates."""

    def __init__(self, directory: Path) -> None:
        self._authority = _Authority(directory)
        self._pages: dict[str, Page] = {}
        self._visits: list[str] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self._visit, self._authority.context))
        self._thread = threading.Thread(target=self._server.serve_forever, name="internet", daemon=True)
        self._thread.start()

    @property
    def settings(self) -> dict[str, str]:
        """The variables with which the services find it."""
        proxy = f"http://127.0.0.1:{self._server.server_port}"
        return {
            "INGRESS_GATEWAY_KEYS__PROXY_URL": proxy,
            # It verifies refused requests again.
            "DISPATCHER_KEYS__PROXY_URL": proxy,
            "SSL_CERT_FILE": str(self._authority.roots),
        }

    def serve(self, url: str, body: bytes | str, status: int = 200) -> None:
        """From now on, this is at `url`."""
        with self._lock:
            self._pages[url] = Page(body.encode() if isinstance(body, str) else body, status)

    def visits(self, part: str) -> int:
        """How often a URL was asked for that is `part` or has it in it, whether anything is there or not."""
        with self._lock:
            return sum(part in url for url in self._visits)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _visit(self, url: str) -> Page:
        with self._lock:
            self._visits.append(url)
            return self._pages.get(url, Page(b"nobody is here", 404))


def self_signed(name: str, key: RSAPrivateKey) -> str:
    """A certificate in PEM, for a few days around now, that nobody but its key vouches for."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject).public_key(key.public_key())
    return _pem(builder.sign(key, hashes.SHA256()))


class _Authority:
    """Vouches for any host that it is asked about."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Posthorn's acceptance tests")])
        builder = _builder(self._name, self._name).public_key(self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # The machine's own roots stay: `up` may have to download what is not installed yet.
        self.roots = directory / "roots.pem"
        self.roots.write_text(_system_roots() + _pem(builder.sign(self._key, hashes.SHA256())))

    def context(self, host: str) -> ssl.SSLContext:
        with self._lock:
            if host not in self._contexts:
                self._contexts[host] = self._new_context(host)
            return self._contexts[host]

    def _new_context(self, host: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a host")])
        builder = _builder(subject, self._name).public_key(key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = self._directory / f"{len(self._contexts)}.pem"
        file.write_text(_pem(builder.sign(self._key, hashes.SHA256())) + private.decode())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["http/1.1"])
        return context


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).serial_number(serial)
    return builder.not_valid_before(now - day).not_valid_after(now + 7 * day)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _system_roots() -> str:
    # What whoever runs the tests has chosen, or Debian's, which its OpenSSL finds by directory only.
    files = (ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt")
    file = next((Path(file) for file in files if file is not None and Path(file).is_file()), None)
    return "" if file is None else file.read_text() + "\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Who goes away, or does not trust us, tells that himself."""


def _handler(visit: Callable[[str], Page], context: Callable[[str], ssl.SSLContext]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Where the tunnel leads. Without one, a request has the whole URL.
        origin = ""

        def do_CONNECT(self) -> None:
            host, _, port = self.path.rpartition(":")
            self.send_response_only(200)
            self.end_headers()
            self.request = context(host).wrap_socket(self.request, server_side=True)
            self.setup()
            self.origin = f"https://{host}" if port == "443" else f"https://{self.path}"

        def do_GET(self) -> None:
            page = visit(self.origin + self.path)
            self.send_response(page.status)
            self.send_header("content-length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)

        def finish(self) -> None:
            super().finish()
            # Around the socket that the server knows and closes.
            self.request.close()

        def log_message(self, format: str, *args: object) -> None:
            """The tests say what was asked for."""

    return Handler
