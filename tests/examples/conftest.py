"""The example package, which is no member of the workspace and not installed beside it: imported from its source."""

import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/seasonal-latents"
sys.path.append(str(EXAMPLE / "src"))


@pytest.fixture(scope="session")
def example() -> Path:
    """Its folder."""
    return EXAMPLE
