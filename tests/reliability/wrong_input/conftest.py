"""What the tests of wrong input share: what an error must be, and commands that are run in this process."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from typer.testing import CliRunner

# A remedy: what to do, or what there is to choose from.
REMEDY = re.compile(
    r"\b(add|ask for|at most|change|check|choose|copy|correct|count|did you mean|expected one of|get|give|has: |"
    r"install|known keys|leave|load|make|mend|move|must|needs|pass|presets:|put|quantise|raise|remove|rename|set|start|"
    r"take|there (?:is|are)|train|try|explore|pad|shorten|draw|unpack|use|write)\b"
)
PARSER = re.compile(r"Usage: .*\nTry '.* -h' for help\.\n(?:\n)?Error: (?P<error>.*)\n", re.DOTALL)

Refused = Callable[[Sequence[str | Path], str], list[str]]


def faults_of(message: str, named: str) -> list[str]:
    """What is wrong with an error's message: it is one line, it names what is wrong, and it says what to do."""
    found = []
    if "\n" in message.rstrip("\n"):
        found.append("more than one line")
    if named not in message:
        found.append(f"does not name {named!r}")
    if not REMEDY.search(message.partition(named)[2] or message):
        found.append("no remedy")
    if len(message) > 1200:
        found.append(f"{len(message)} characters")
    return [f"{fault}: {message[:600]!r}" for fault in found]


def tree(*folders: Path) -> dict[str, str]:
    """Every path below, with what lies there."""

    def content(path: Path) -> str:
        if path.is_symlink() or not path.is_file():
            return "link" if path.is_symlink() else "folder"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return {str(path): content(path) for folder in folders for path in sorted(folder.rglob("*"))}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refused]:
    """`refused(arguments, named)`: what is wrong with how `delta-vae` refuses them; nothing if it does so well.

    Code 2, one line that names what is wrong and says what to do, no traceback without --debug and one with it, and no
    file made, changed or lost below the test's folder, where the command is run.
    """
    from delta_vae_lab.cli import app

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(arguments: Sequence[str | Path]) -> Any:
        try:
            return CliRunner().invoke(app, [str(argument) for argument in arguments])
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)

    def check(arguments: Sequence[str | Path], named: str) -> list[str]:
        before = tree(tmp_path)
        plain = run(arguments)
        found = [] if plain.exit_code == 2 else [f"code {plain.exit_code}: {plain.exception!r} {plain.output[-300:]!r}"]
        parser = PARSER.fullmatch(plain.stderr)
        if parser:
            found += [] if named in parser["error"] else [f"does not name {named!r}: {parser['error']!r}"]
        elif plain.exit_code == 2:
            lines = plain.stderr.splitlines()
            if len(lines) != 1 or not lines[0].startswith("error: "):
                found.append(f"not one line 'error: ...': {plain.stderr[-600:]!r}")
            found += faults_of(lines[-1].removesuffix(" (--debug shows where)"), named) if lines else []
            debugged = run([arguments[0], "--debug", *arguments[1:]])
            if not isinstance(debugged.exception, ValueError | OSError):
                found.append(f"with --debug no traceback of the error, but {debugged.exception!r}")
        if plain.stdout:
            found.append(f"on standard output: {plain.stdout[-300:]!r}")
        after = tree(tmp_path)
        if changed := sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path)):
            found.append(f"made, changed or lost: {changed[:5]}")
            for path in sorted(
                after.keys() - before.keys(), reverse=True
            ):  # the next case is to find what this one did
                Path(path).rmdir() if Path(path).is_dir() else Path(path).unlink()
        return found

    yield check
    os.chdir("/")


@pytest.fixture
def refused_call() -> Callable[[Callable[[], Any], str], list[str]]:
    """The same of a call in Python: a `ValueError` of one line that names what is wrong and says what to do."""

    def check(call: Callable[[], Any], named: str) -> list[str]:
        try:
            given = call()
        except ValueError as error:
            return faults_of(str(error), named)
        except Exception as error:  # noqa: BLE001 - whatever else is raised is the finding
            return [f"{type(error).__name__}: {str(error)[:300]!r}"]
        return [f"accepted: {str(given)[:100]!r}"]

    return check


@pytest.fixture
def all_refused(seen: Callable[..., None]) -> Callable[[dict[str, list[str]]], None]:
    """Given what is wrong with each refusal, by its name: the test fails with all of it, or records the count."""

    def check(wrong: dict[str, list[str]]) -> None:
        lines = [f"{name}: {fault}" for name, faults in wrong.items() for fault in faults]
        if lines:
            pytest.fail("\n".join(lines), pytrace=False)
        seen(inputs=len(wrong), refused=len(wrong))

    return check
