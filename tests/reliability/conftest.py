"""What the tests of reliability share: the figures that docs/reliability.md shows, and runs that start at once."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.reliability.recorded import record
from tests.reliability.warm import Warm


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Callable[..., None]:
    """For a test that has passed: `seen(kills=40)`; with RECORD_RESULTS=1 written to results/reliability.json."""

    def saw(**figures: int | float | str) -> None:
        print(request.node.nodeid, figures)
        if os.environ.get("RECORD_RESULTS") == "1":
            record(request.node.nodeid.partition("@")[0], figures)

    return saw


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """What starts a recipe in a process of its own, without its imports."""
    warm = Warm(tmp_path_factory.mktemp("lives"))
    yield warm
    warm.close()
