"""What the tests of reliability share: the figures that docs/reliability.md shows, and runs that start at once."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.warm import Warm

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results/reliability.json"


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Callable[..., None]:
    """For a test that has passed: `seen(kills=40)`; with RECORD_RESULTS=1 written to results/reliability.json."""

    def record(**figures: int | float | str) -> None:
        print(request.node.nodeid, figures)
        if os.environ.get("RECORD_RESULTS") == "1":
            with RESULTS.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # other tests may run at the same time
                results = json.load(file) | {request.node.nodeid.partition("@")[0]: figures}
                file.seek(0)
                file.truncate()
                file.write(json.dumps(dict(sorted(results.items())), indent=1) + "\n")

    return record


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """What starts a recipe in a process of its own, without its imports."""
    warm = Warm(tmp_path_factory.mktemp("lives"))
    yield warm
    warm.close()
