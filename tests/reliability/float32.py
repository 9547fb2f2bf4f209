"""What the tests of numbers share: the size of a rounding, the precisions, and how many examples are looked at."""

import os

import torch
from hypothesis import HealthCheck, settings

U = 2.0**-24  # what one rounding of float32 changes, relative to what is rounded
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_SEARCH = int(os.environ.get("NUMBERS_EXAMPLES", "0"))


def bounded(examples: int) -> settings:
    """As many examples, the same every time; or as many others as NUMBERS_EXAMPLES says."""
    return settings(
        derandomize=not _SEARCH,
        database=None,
        deadline=None,
        max_examples=_SEARCH or examples,
        suppress_health_check=list(HealthCheck),
    )
