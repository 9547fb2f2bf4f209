"""docs/reliability.md names tests that exist, and shows the figures that they saw."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| (?P<promise>.+) \| `(?P<test>tests/[^`]+)` \| (?P<seen>.*) \|")
PAGE = ROOT / "docs/reliability.md"
RESULTS = json.loads((ROOT / "results/reliability.json").read_text())


def rows() -> list[tuple[str, str]]:
    found = [
        ROW.fullmatch(line) for line in PAGE.read_text().splitlines() if line.startswith("| ") and "`tests/" in line
    ]
    assert all(found), "every row is: promise | `test` | seen"
    return [(row["test"], row["seen"]) for row in found if row]


@pytest.mark.parametrize(("test", "seen"), rows())
def test_every_promise_names_its_test_and_what_it_saw(test: str, seen: str) -> None:
    file, _, name = test.partition("::")
    assert not name or f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()
    figures = RESULTS.get(test, {})
    assert seen == (", ".join(f"{key.replace('_', ' ')} {value}" for key, value in figures.items()) or "-")


def test_every_figure_is_shown() -> None:
    assert set(RESULTS) <= {test for test, _ in rows()}
