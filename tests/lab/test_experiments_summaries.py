"""What experiments make of their runs: means over seeds, the frontier, and the share of variance that z decides."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from delta_vae_lab.estimates import Estimate
from delta_vae_lab.experiments import table_1
from delta_vae_lab.experiments.figure_4 import pareto
from delta_vae_lab.experiments.fixed_z import variance_share
from delta_vae_lab.experiments.summaries import (
    by_model,
    cell,
    difference,
    errors,
    estimate_of,
    in_bits,
    over_seeds,
    text_table,
)

VALUES = [3.5, 1.25, 2.0, 9.75]


def runs_of(model: str, values: list[float], **more: float) -> list[dict[str, Any]]:
    return [
        {"model": model, "seed": seed, "heldout": {"rate_nats": value, **more}, "probe": {}}
        for seed, value in enumerate(values)
    ]


def test_means_over_seeds_are_numpys() -> None:
    found = over_seeds(runs_of("a", VALUES), "rate_nats")
    assert found is not None
    assert found.value == pytest.approx(np.mean(VALUES))
    assert found.stderr == pytest.approx(np.std(VALUES, ddof=1) / math.sqrt(4))
    assert estimate_of(VALUES) == found
    assert cell(found, 3) == "4.125 ± 1.932"
    assert cell(found) == "4.1 ± 1.9", "to the second digit of the error"
    bits = in_bits(found)
    assert bits is not None
    assert (bits.value, bits.stderr) == pytest.approx((found.value / math.log(2), found.stderr / math.log(2)))


def test_one_seed_has_no_error() -> None:
    found = over_seeds(runs_of("a", [1234.5]), "rate_nats")
    assert found is not None
    assert math.isnan(found.stderr)
    assert (cell(found), cell(found, 1)) == ("1,234.500", "1,234.5")
    assert errors({"seeds": [3]}) == "one seed: no errors"
    assert errors({"seeds": [3, 4]}) == "± standard error over seeds"


def test_what_a_run_has_not_is_no_number() -> None:
    runs = runs_of("a", VALUES)
    runs[2]["heldout"] = {}
    assert over_seeds(runs, "rate_nats") is None
    assert over_seeds(runs, "pooled_accuracy", "probe") is None
    assert (cell(None), in_bits(None)) == ("-", None)


def test_a_difference_is_between_runs_of_one_seed() -> None:
    """Paired: seeds that both models find hard cancel. The other model's runs come in another order."""
    ours = runs_of("a", [10.0, 20.0, 31.0])
    theirs = list(reversed(runs_of("b", [9.0, 18.0, 30.0])))
    found = difference(ours, "rate_nats", theirs, "rate_nats")
    assert found.value == pytest.approx(np.mean([1, 2, 1]))
    assert found.stderr == pytest.approx(np.std([1, 2, 1], ddof=1) / math.sqrt(3))
    assert by_model({"runs": [*theirs, *ours]}) == {"b": theirs, "a": ours}


def test_columns_of_a_table_are_aligned() -> None:
    lines = text_table(["name", "rate"], [["a", "1.5"], ["longer", "-"]]).splitlines()
    assert lines == ["name    rate", "a        1.5", "longer     -"]


def test_table_1_subtracts_the_decoder_alone_seed_by_seed() -> None:
    """By hand: .3 and .5 above the decoder alone at seeds 0 and 1, so .4 ± .1; unpaired its error would be .51."""

    def run(model: str, seed: int, bound: float, auxiliary: float | None) -> dict[str, Any]:
        heldout: dict[str, Any] = {"images": 16, "bits_per_dim": bound}
        if auxiliary is not None:
            heldout |= {"auxiliary_bits_per_dim": auxiliary, "rate_bits_per_dim": 0.5}
            heldout |= {"auxiliary_rate_bits_per_dim": 0.25, "shuffle_gap_nats": 2.0, "mutual_information_nats": 3.0}
        probe = {} if auxiliary is None else {"concatenated_accuracy": 0.75, "concatenated_sample_accuracy": 0.5}
        return {"model": model, "seed": seed, "heldout": heldout, "probe": probe}

    runs = [run("ours", 0, 3.5, 3.3), run("without-latents", 0, 3.0, None)]
    runs += [run("without-latents", 1, 4.0, None), run("ours", 1, 4.8, 4.5)]
    result = {
        "data": {"name": "noise"},
        "seeds": [0, 1],
        "config": {"optimization.steps": 1200},
        "runs": runs,
        "references": {"pixels_accuracy": 0.9, "majority_accuracy": 0.1},
    }
    lines = table_1.render(result).splitlines()
    assert lines[0] == "noise, 16 held-out images, 1,200 steps, seeds 0, 1"
    head, ours, alone = lines[2:5]
    end = head.index("less the decoder alone") + len("less the decoder alone")
    assert ours[:end].endswith("  0.4000 ± 0.1000")
    assert alone[:end].endswith("  -")
    assert ours.startswith("ours ")
    assert "4.1500 ± 0.6500" in ours
    assert alone.startswith("without-latents ")
    assert "3.5000 ± 0.5000" in alone


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25))
def test_the_frontier_is_what_no_other_point_is_below_and_left_of(points: list[tuple[int, int]]) -> None:
    best = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert pareto([(float(x), float(y)) for x, y in points]) == sorted(best)


def test_the_share_of_variance_that_z_decides() -> None:
    """x = m + b(z) + w of variances 2 and 6, so a quarter; m differs from pixel to pixel and is no variance."""
    random = torch.Generator().manual_seed(0)
    m = 100 * torch.randn(1, 1, 1, 4, 5, generator=random)
    b = math.sqrt(2) * torch.randn(3000, 1, 1, 4, 5, generator=random)
    w = math.sqrt(6) * torch.randn(3000, 8, 1, 4, 5, generator=random)
    assert variance_share(m + b + w) == pytest.approx(2 / 8, abs=0.01)
    assert variance_share((m + b).expand(3000, 8, 1, 4, 5)) == pytest.approx(1)


def test_noise_has_no_share_that_z_decides() -> None:
    """In expectation: 400 times 6 z, each decoded 8 times, within 4 standard errors of 0, and not always above it."""
    random = torch.Generator().manual_seed(0)
    shares = [variance_share(torch.randint(0, 17, (6, 8, 1, 8, 8), generator=random)) for _ in range(400)]
    assert abs(np.mean(shares)) < 4 * np.std(shares) / math.sqrt(400)
    assert min(shares) < 0 < max(shares)


def test_estimates_keep_their_sign_and_digits() -> None:
    assert cell(Estimate(-0.123456, 0.0456), 4) == "-0.1235 ± 0.0456"
