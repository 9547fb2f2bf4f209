"""What every test runs under: no network, no user's cache, and one thread unless the environment asks for more."""

import os
import tempfile

import pytest

# Read when the libraries are imported, so set before any of them is; subprocesses inherit all of it. `--allow-hosts` in
# pyproject.toml refuses what would connect all the same.
_hub_cache = tempfile.TemporaryDirectory(prefix="delta-vae-tests-", ignore_cleanup_errors=True)
os.environ |= {
    "HF_HOME": _hub_cache.name,
    "HF_HUB_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MPLBACKEND": "Agg",
    "TOKENIZERS_PARALLELISM": "false",
}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' models are too small to gain from a second thread


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
