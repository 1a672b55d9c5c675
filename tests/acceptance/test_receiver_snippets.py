"""What docs/receivers.md shows to receivers: it is the text of the programs beside it, and they verify.

Needs no Posthorn. A language whose tool is not on this machine is skipped. What is signed here is signed
by the official library of Standard Webhooks, and by hand only where that library would refuse to.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PROGRAMS = DOCS / "receivers"

# Compilers on a machine that does other things as well.
BUILD_SECONDS = 300
RUN_SECONDS = 60


@dataclass(frozen=True)
class Language:
    """A language that the page shows, and how its program is run."""

    # As the page's fenced blocks name it.
    name: str
    file: str
    tools: tuple[str, ...]
    # From the program and an empty directory for what is built, the command that runs it.
    command: Callable[[Path, Path], list[str]]


def interpreted(*tool: str) -> Callable[[Path, Path], list[str]]:
    return lambda program, _: [*tool, str(program)]


def go(program: Path, out: Path) -> list[str]:
    build("go", "build", "-o", str(out / "verify"), str(program))
    return [str(out / "verify")]


def java(program: Path, out: Path) -> list[str]:
    build("javac", "-encoding", "UTF-8", "-d", str(out), str(program))
    # It lives for a moment: what starts soonest is best.
    return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(out), "Main"]


def csharp(program: Path, out: Path) -> list[str]:
    sdk = subprocess.run(["dotnet", "--version"], capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if sdk.returncode != 0:
        pytest.skip("dotnet is here, but no SDK that compiles")
    # Compiled for the runtime that comes with the SDK, so that nothing is fetched.
    (out / "Verify.csproj").write_text(
        '<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup><OutputType>Exe</OutputType>'
        f"<TargetFramework>net{sdk.stdout.split('.')[0]}.0</TargetFramework><UseAppHost>false</UseAppHost>"
        "<TreatWarningsAsErrors>true</TreatWarningsAsErrors></PropertyGroup></Project>"
    )
    shutil.copy(program, out)
    build("dotnet", "build", str(out / "Verify.csproj"), "--output", str(out / "built"))
    return ["dotnet", str(out / "built" / "Verify.dll")]


def rust(program: Path, _: Path) -> list[str]:
    # A package of the workspace, since the standard library has no HMAC; mostly compiled with it already.
    build("cargo", "build", "--locked", "--manifest-path", str(program.parent / "Cargo.toml"), "--bins")
    return [str((ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).resolve() / "debug" / "verify")]


LANGUAGES = [
    Language("python", "verify.py", ("python3",), interpreted("python3")),
    Language("js", "verify.mjs", ("node",), interpreted("node")),
    Language("go", "verify.go", ("go",), go),
    Language("ruby", "verify.rb", ("ruby",), interpreted("ruby")),
    Language("php", "verify.php", ("php",), interpreted("php")),
    Language("java", "Verify.java", ("javac", "java"), java),
    Language("csharp", "Verify.cs", ("dotnet",), csharp),
    Language("rust", "verify.rs", ("cargo",), rust),
]


def build(*command: str) -> None:
    built = subprocess.run(
        command,
        env=os.environ | {"DOTNET_CLI_TELEMETRY_OPTOUT": "1", "DOTNET_NOLOGO": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert built.returncode == 0, built.stdout


Verifier = Callable[[bytes], list[str]]


@pytest.fixture(scope="module", params=LANGUAGES, ids=lambda language: language.name)
def verifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    """Runs a language's program with this on its standard input; its verdicts on both schemes."""
    language: Language = request.param
    for tool in language.tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on this machine")
    command = language.command(PROGRAMS / language.file, tmp_path_factory.mktemp(language.name))

    def verify(document: bytes) -> list[str]:
        run = subprocess.run(command, input=document, capture_output=True, timeout=RUN_SECONDS, check=False)
        assert (run.returncode, run.stderr) == (0, b""), run
        return run.stdout.decode("ascii").splitlines()

    return verify


NOW = 1_795_492_807
ID = "evt_01a20bb603f67a74bb44fa5fc8222c29"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ANOTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
BODY = '{"event":"ticket.created","timestamp":"2026-11-24T04:00:07.000Z","data":{"total":1.10}}'
# Two, three and four bytes in UTF-8, and what JSON may escape.
UNICODE = '{"data":"Grüße, 東京 🚚 \\"quoted\\" C:\\\\tmp\u2028\u007f\\u0000","tab":"\t\r\n/"}'


def standard(secret: str = SECRET, at: int = NOW, body: str = BODY) -> str:
    return Webhook(secret).sign(ID, datetime.fromtimestamp(at, UTC), body)


def forged(key: bytes, timestamp: str) -> str:
    """A signature by any key and over any timestamp, also those with which the library does not sign."""
    tag = hmac.digest(key, f"{ID}.{timestamp}.{BODY}".encode(), hashlib.sha256)
    return "v1," + base64.b64encode(tag).decode()


def plain(secret: str = SECRET, body: str = BODY) -> str:
    return hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()


KEY = base64.b64decode(SECRET.removeprefix("whsec_"))
TAG = standard().removeprefix("v1,")

# What differs from a good request of the scheme, and what the verdicts are. `None` leaves a field out.
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "good": ({"signature": standard()}, ["ok", "absent"]),
    "of both schemes": ({"signature": standard(), "hex_signature": plain()}, ["ok", "ok"]),
    "the second of two": ({"signature": f"{standard(ANOTHER)} {standard()}"}, ["ok", "absent"]),
    "after a v1a": ({"signature": f"v1a,{TAG} {standard()}"}, ["ok", "absent"]),
    "unicode": (
        {"signature": standard(body=UNICODE), "hex_signature": plain(body=UNICODE), "body": UNICODE},
        ["ok", "ok"],
    ),
    "an empty body": (
        {"signature": standard(body=""), "hex_signature": plain(body=""), "body": ""},
        ["ok", "ok"],
    ),
    "five minutes old": ({"signature": standard(at=NOW - 300), "timestamp": str(NOW - 300)}, ["ok", "absent"]),
    "five minutes ahead": ({"signature": standard(at=NOW + 300), "timestamp": str(NOW + 300)}, ["ok", "absent"]),
    "stale": ({"signature": standard(at=NOW - 301), "timestamp": str(NOW - 301)}, ["refused", "absent"]),
    "from the future": ({"signature": standard(at=NOW + 301), "timestamp": str(NOW + 301)}, ["refused", "absent"]),
    "another secret": ({"signature": standard(ANOTHER), "hex_signature": plain(ANOTHER)}, ["refused", "refused"]),
    "another body": (
        {"signature": standard(), "hex_signature": plain(), "body": BODY.replace("1.10", "1.1")},
        ["refused", "refused"],
    ),
    "another id": ({"signature": standard(), "id": "evt_2"}, ["refused", "absent"]),
    "another time": ({"signature": standard(), "timestamp": str(NOW + 1)}, ["refused", "absent"]),
    "no v1 before it": ({"signature": TAG}, ["refused", "absent"]),
    "v1a only": ({"signature": f"v1a,{TAG}"}, ["refused", "absent"]),
    "not base64": ({"signature": "v1,*** v1 ,, v1,"}, ["refused", "absent"]),
    "not ASCII": ({"signature": "v1,ß 🚚", "hex_signature": "ß🚚" * 16}, ["refused", "refused"]),
    "empty": ({"signature": "", "hex_signature": ""}, ["refused", "refused"]),
    "hex of another case": ({"hex_signature": plain().upper()}, ["absent", "refused"]),
    "hex with a prefix that was not asked for": ({"hex_signature": f"sha256={plain()}"}, ["absent", "refused"]),
    "half of the hex": ({"hex_signature": plain()[:32]}, ["absent", "refused"]),
    "hex by the secret's bytes": (
        {"hex_signature": hmac.new(KEY, BODY.encode(), hashlib.sha256).hexdigest()},
        ["absent", "refused"],
    ),
    "a time that is none": ({"signature": forged(KEY, "soon"), "timestamp": "soon"}, ["refused", "absent"]),
    "a time with a tail": ({"signature": forged(KEY, f"{NOW}s"), "timestamp": f"{NOW}s"}, ["refused", "absent"]),
    "an empty time": ({"signature": forged(KEY, ""), "timestamp": ""}, ["refused", "absent"]),
    "a time beyond 64 bits": ({"signature": forged(KEY, "9" * 40), "timestamp": "9" * 40}, ["refused", "absent"]),
    "no time": ({"signature": standard(), "timestamp": None}, ["refused", "absent"]),
    "no id": ({"signature": standard(), "id": None}, ["refused", "absent"]),
    "no clock": ({"signature": standard(), "hex_signature": plain(), "now": None}, ["refused", "ok"]),
    # Receivers that forgot to set their secret: everybody can sign with the empty key.
    "an empty secret": (
        {"secret": "", "signature": forged(b"", str(NOW)), "hex_signature": plain("")},
        ["refused", "refused"],
    ),
    "a secret without bytes": ({"secret": "whsec_", "signature": forged(b"", str(NOW))}, ["refused", "absent"]),
    "a secret that is no base64": ({"secret": "whsec_!!!!", "signature": forged(b"", str(NOW))}, ["refused", "absent"]),
    "no secret": ({"secret": None, "signature": standard(), "hex_signature": plain()}, ["refused", "refused"]),
    "no body": ({"body": None, "signature": standard(), "hex_signature": plain()}, ["refused", "refused"]),
    "a secret that is no text": ({"secret": 5, "signature": standard(), "hex_signature": plain()}, ["refused"] * 2),
    "a body that is no text": ({"body": 5, "signature": standard(), "hex_signature": plain()}, ["refused"] * 2),
    "signatures that are no text": ({"signature": 5, "hex_signature": 5}, ["refused"] * 2),
    "half of a surrogate pair": (
        {"body": "\ud83d", "signature": standard(), "hex_signature": plain()},
        ["refused", "refused"],
    ),
}


NO_REQUESTS = [b"", b"null", b"5", b'"text"', b"[]", b"{", b'{"signature": ', b"\xff\xfe{", b"[" * 20_000]


# All cases in one test, so that a language that is not here is one skip.
def test_every_language_takes_what_posthorn_signs_and_nothing_else(verifier: Verifier) -> None:
    documents = [document(fields) for fields, _ in CASES.values()]
    verdicts = dict(zip(CASES, at_once(verifier, documents), strict=True))

    assert verdicts == {name: expected for name, (_, expected) in CASES.items()}


def test_what_is_no_request_is_refused_and_crashes_no_language(verifier: Verifier) -> None:
    verdicts = dict(zip(NO_REQUESTS, at_once(verifier, NO_REQUESTS), strict=True))

    assert verdicts == dict.fromkeys(NO_REQUESTS, ["refused", "refused"])


def at_once(verifier: Verifier, documents: list[bytes]) -> list[list[str]]:
    """The verdicts on each: a program starts for every one, so as many run as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(verifier, documents))


def document(fields: dict[str, Any]) -> bytes:
    """A good request but for these fields."""
    request = {"secret": SECRET, "id": ID, "timestamp": str(NOW), "body": BODY, "now": NOW} | fields
    return json.dumps({name: value for name, value in request.items() if value is not None}).encode()


def shown() -> dict[str, list[str]]:
    """The fenced blocks of the page's section on languages, by language."""
    page = (DOCS / "receivers.md").read_text(encoding="utf-8")
    section = page.split("\n## Verify in your language\n")[1].split("\n## ")[0]
    blocks: dict[str, list[str]] = {}
    for name, block in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE):
        blocks.setdefault(name, []).append(block)
    return blocks


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_the_page_shows_the_text_that_is_tested(language: Language) -> None:
    program = (PROGRAMS / language.file).read_text(encoding="utf-8")
    blocks = shown()[language.name]

    assert [block for block in blocks if block not in program] == []


def test_the_page_shows_nothing_that_is_not_tested() -> None:
    assert shown().keys() == {language.name for language in LANGUAGES}
