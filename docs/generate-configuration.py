#!/usr/bin/env python3
"""Writes docs/configuration.md from the services' settings.

    docs/generate-configuration.py           writes the page
    docs/generate-configuration.py --check   exits 1 when the page is not what this would write

What a setting means is its doc comment in `settings.rs`, or in the crate that owns the section; its
default and the note beside it come from `defaults.toml`. A key that stands in only one of the two, or
that nobody explains, ends the script with its name. Needs Python 3.11 and nothing else.
"""

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"

# Service, the beginning of its variables, and where its settings are.
SERVICES = [
    ("ingress-gateway", "INGRESS_GATEWAY"),
    ("dispatcher", "DISPATCHER"),
    ("delivery-worker", "DELIVERY_WORKER"),
]

# Sections that several services have, by the type that `settings.rs` names.
SHARED_TYPES = {
    "http::Settings": ROOT / "crates/process/src/http.rs",
    "egress::Settings": ROOT / "crates/process/src/egress.rs",
    "keys::Settings": ROOT / "crates/process/src/keys.rs",
    "sender::Settings": ROOT / "crates/process/src/sender.rs",
    "telemetry::Settings": ROOT / "crates/process/src/telemetry.rs",
    "posthorn_store::Settings": ROOT / "crates/store/src/pool.rs",
    "posthorn_bus::Settings": ROOT / "crates/bus/src/connection.rs",
}

# What the code leaves to the name of the field.
PLAIN = {
    "http.host": "The address to listen on.",
    "http.port": "The port to listen on.",
    "http.admin_port": "The port of `/livez`, `/readyz` and `/metrics`.",
}

FIELD = re.compile(r"^    pub (\w+): ([\w:]+),$")


@dataclass
class Setting:
    path: str
    meaning: str
    note: str
    default: object


def main() -> int:
    page = render()
    if sys.argv[1:] == ["--check"]:
        if PAGE.exists() and PAGE.read_text() == page:
            return 0
        print(f"{PAGE.relative_to(ROOT)} is not current: run docs/generate-configuration.py", file=sys.stderr)
        return 1
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    PAGE.write_text(page)
    return 0


# --- reading ---


def settings_of(service: str) -> list[Setting]:
    source = ROOT / "services" / service / "src"
    explained = fields(source / "settings.rs", "Settings")
    defaults = (source / "defaults.toml").read_text()
    values = flat(tomllib.loads(defaults))
    notes = notes_of(defaults)
    compare(service, set(explained), set(values))
    return [Setting(path, *merged(explained[path], notes.get(path, "")), value) for path, value in values.items()]


def fields(file: Path, struct: str, prefix: str = "") -> dict[str, str]:
    """The settings of a struct in `file` and of the structs in it, each with its doc comment."""
    found: dict[str, str] = {}
    for name, kind, doc in members(file, struct):
        path = prefix + name
        if kind in SHARED_TYPES:
            found |= fields(SHARED_TYPES[kind], "Settings", path + ".")
        elif f"pub struct {kind} {{" in file.read_text():
            found |= fields(file, kind, path + ".")
        else:
            found[path] = explain(path, kind, doc)
    return found


def members(file: Path, struct: str) -> list[tuple[str, str, str]]:
    """Name, type and doc comment of each field."""
    text = file.read_text()
    start = text.index(f"pub struct {struct} {{")
    body = text[start : text.index("\n}", start)].splitlines()[1:]
    result, doc = [], []
    for line in body:
        if line.strip().startswith("///"):
            doc.append(line.strip().removeprefix("///").strip())
        elif match := FIELD.match(line):
            result.append((match[1], match[2], " ".join(doc)))
            doc = []
        else:
            sys.exit(f"{file}: cannot read {line.strip()!r}")
    return result


def explain(path: str, kind: str, doc: str) -> str:
    meaning = " ".join(filter(None, [PLAIN.get(path, ""), doc]))
    if not meaning:
        sys.exit(f"nobody explains the setting {path}")
    if kind.startswith("NonZero"):
        meaning += " At least 1."
    if kind == "SecretString":
        meaning += " Secret: never logged."
    return meaning


def flat(values: dict, prefix: str = "") -> dict[str, object]:
    result: dict[str, object] = {}
    for name, value in values.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return result


def notes_of(text: str) -> dict[str, str]:
    """The comment lines directly above a key."""
    notes, section, comment = {}, "", []
    for line in text.splitlines():
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
            continue
        if match := re.match(r"^\[(\w+)\]$", line):
            section = match[1] + "."
        elif (match := re.match(r"^(\w+) = ", line)) and comment:
            notes[section + match[1]] = " ".join(comment)
        comment = []
    return notes


def merged(meaning: str, note: str) -> tuple[str, str]:
    """Meaning and note, without what both say."""
    said = note.removesuffix(".")
    if said in meaning:
        return meaning, ""
    first, separator, rest = meaning.partition(". ")
    if note.startswith(first.removesuffix(".")):
        return f"{note} {rest}" if separator else note, ""
    return meaning, note


def compare(service: str, explained: set[str], given: set[str]) -> None:
    for path in explained ^ given:
        place = "has no default" if path in explained else "is in defaults.toml only"
        sys.exit(f"{service}: the setting {path} {place}")


def shared_variables() -> list[tuple[str, str]]:
    text = (ROOT / "crates/process/src/settings.rs").read_text()
    listed = text[text.index("pub const SHARED") : text.index("];", text.index("pub const SHARED"))]
    return re.findall(r'\("(POSTHORN_\w+)", "([\w.]+)"\)', listed)


def local_ports() -> list[tuple[str, str]]:
    return re.findall(r'^: "\$\{(POSTHORN_\w+_PORT):=(\d+)\}"', (ROOT / "deploy/local/up").read_text(), re.M)


# --- writing ---

HEAD = """\
# Configuration

<!-- Written by docs/generate-configuration.py. Change the doc comments of the settings instead. -->

Every service has complete defaults built in, and the environment overrides them. There are no configuration files.

- `<SERVICE>_SECTION__KEY` sets one key of one service: one underscore after the service's name, two between section and
  key. `INGRESS_GATEWAY_HTTP__PORT=8090` sets `port` in `[http]`.
- A few settings that several services share have a `POSTHORN_…` name as well. A service's own variable wins over it.
- A variable that begins with a service's prefix and names none of its settings is refused, and the message names it. So
  is a value of the wrong kind. A `POSTHORN_…` name that nobody knows is ignored: other programs may read it.
- At its start each service logs the settings in force, secrets redacted.

Five values have no default that would do: `POSTHORN_DATABASE_URL`, `POSTHORN_BROKER_URL` and `POSTHORN_SEALING_KEYS` for
all services, `POSTHORN_OPERATOR_TOKEN` for the dispatcher, and `POSTHORN_GATEWAY_URL` for a dispatcher whose gateway the
outside does not reach as `http://localhost:8080`.
"""

COMMAND_LINE = """\
## The command line

`posthorn` reads `POSTHORN_DATABASE_URL` (`migrate`), `POSTHORN_API_URL` (default `http://127.0.0.1:8081`) and
`POSTHORN_OPERATOR_TOKEN` (everything that calls the API; a tenant's key does as well), `POSTHORN_GATEWAY_URL` (default
`http://127.0.0.1:8080`) and `POSTHORN_SEND_SECRET` (`send`), and `POSTHORN_RECEIVE_SECRET` (`receive`).
`posthorn help <command>` lists every option.
"""


def render() -> str:
    services = {service: settings_of(service) for service, _ in SERVICES}
    parts = [HEAD, shared_section(services)]
    for service, prefix in SERVICES:
        parts.append(service_section(service, prefix, services[service]))
    parts += [COMMAND_LINE, local_section()]
    return "\n".join(parts)


def shared_section(services: dict[str, list[Setting]]) -> str:
    rows = ["## Shared names", "", "| Variable | Setting | Read by |", "|---|---|---|"]
    for variable, path in shared_variables():
        readers = [service for service, settings in services.items() if any(s.path == path for s in settings)]
        rows.append(f"| `{variable}` | `{path}` | {', '.join(readers)} |")
    return "\n".join(rows) + "\n"


def service_section(service: str, prefix: str, settings: list[Setting]) -> str:
    rows = [f"## {service}"]
    section = None
    for setting in settings:
        head, _, _ = setting.path.rpartition(".")
        if head != section:
            section = head
            rows += ["", f"### `[{head}]`" if head else "### General", ""]
            rows += ["| Variable | Default | Meaning | Note |", "|---|---|---|---|"]
        variable = f"{prefix}_{setting.path.replace('.', '__').upper()}"
        cells = [f"`{variable}`", shown(setting.default), setting.meaning, setting.note]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def shown(value: object) -> str:
    if value == "":
        return "empty"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def local_section() -> str:
    rows = [
        "## `deploy/local/up`",
        "",
        "`POSTHORN_LOCAL_DIR` (default `.local`) is where it keeps everything; `down` reads it as well. Each port is a setting,",
        "and every service's settings above reach the services from its environment. It allows http and private endpoint",
        "addresses unless told otherwise.",
        "",
        "| Variable | Default |",
        "|---|---|",
    ]
    rows += [f"| `{variable}` | `{port}` |" for variable, port in local_ports()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
