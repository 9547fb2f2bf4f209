"""The `evaluate` metrics against hand-computed values, in one process and in two."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from delta_vae_lab.metrics import PerplexityBound, Rate


def test_perplexity_bound_over_batches(tmp_path: Path) -> None:
    metric = PerplexityBound(cache_dir=str(tmp_path))
    metric.add_batch(negative_elbo_nats=[6.0, 10.0], tokens=[2, 6])
    metric.add_batch(negative_elbo_nats=[8.0], tokens=[4])
    result = metric.compute()
    assert result["nats_per_token"] == pytest.approx(2)
    assert result["perplexity_per_token"] == pytest.approx(math.exp(2))
    # Residuals y - 2 n are 2, -2, 0: standard deviation 2, over sqrt(3) times the mean length 4.
    assert result["nats_per_token_stderr"] == pytest.approx(2 / math.sqrt(3) / 4)
    assert result["perplexity_per_token_stderr"] == pytest.approx(math.exp(2) * 2 / math.sqrt(3) / 4)


def test_rate_and_what_of_it_is_slack(tmp_path: Path) -> None:
    result = Rate(cache_dir=str(tmp_path)).compute(rate_nats=[3.0, 5.0], committed_rate_nats=[2.0, 3.0])
    assert (result["rate_nats"], result["committed_rate_nats"], result["slack_nats"]) == (4.0, 2.5, 1.5)
    assert result["slack_nats_stderr"] == pytest.approx(0.5)


def test_two_processes_merge_on_the_first(tmp_path: Path) -> None:
    """Two threads stand for the processes: they meet by file locks either way."""

    def compute(rank: int) -> dict[str, float] | None:
        where = {"cache_dir": str(tmp_path), "experiment_id": "test", "timeout": 30}
        metric = PerplexityBound(**where, num_process=2, process_id=rank)
        metric.add(negative_elbo_nats=(6.0, 10.0)[rank], tokens=(2, 6)[rank])
        result: dict[str, float] | None = metric.compute()
        return result

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(compute, (0, 1))
    assert second is None
    assert first is not None
    assert first["nats_per_token"] == pytest.approx(2)
