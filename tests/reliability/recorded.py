"""results/reliability.json: what the tests of reliability, and the fuzzer, saw."""

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "results/reliability.json"


def record(name: str, figures: Mapping[str, int | float | str]) -> None:
    """Put the figures in place of what was recorded under this name; others may do so at the same time."""
    with RESULTS.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        results = json.load(file) | {name: dict(figures)}
        file.seek(0)
        file.truncate()
        file.write(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
