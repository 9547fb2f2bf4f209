"""The slow-factor experiment at its smallest: everything is wired, and says what it is of. Nothing is claimed of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab.data import load_tokenizer
from delta_vae_lab.data.synthetic import slow_factor_text
from delta_vae_lab.experiments.slow_factor import SCALES, recovered, render, run


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_smoke(tmp_path: Path) -> None:
    result = run("smoke", [0, 1], tmp_path / "out")
    assert json.loads((tmp_path / "out/slow-factor.json").read_text()) == result
    assert [(one["model"], one["seed"]) for one in result["runs"]] == [
        ("delta_vae", 0),
        ("ordinary_vae", 0),
        ("delta_vae", 1),
        ("ordinary_vae", 1),
    ]
    ours, theirs = (one["config"] for one in result["runs"][:2])
    assert {key for key in ours if ours[key] != theirs[key]} == {"prior.kind"}, "they differ in their prior alone"

    source = SCALES["smoke"].source
    data = slow_factor_text(source, train=64, heldout=40, seed=0)
    for one in result["runs"][:2]:
        metrics = one["metrics"]
        assert metrics["exact_nll_nats"] == pytest.approx(-source.log_prob(data.symbols_heldout).mean())
        assert metrics["negative_elbo_nats"] > metrics["exact_nll_nats"], "nobody beats the source"
        assert metrics["sentences"] == metrics["heldout_examples"] == 40
        assert metrics["bayes_accuracy"] > 0.6 > metrics["chance_accuracy"] == 0.5
    assert result["runs"][0]["metrics"]["committed_rate_nats"] > 1
    assert result["runs"][1]["metrics"]["committed_rate_nats"] == 0
    assert result["data"]["by_seed"]["0"] == data.text.fingerprint
    assert {"command", "commit", "device", "versions"} < result.keys()

    over = result["over_seeds"]["delta_vae"]
    values = [one["metrics"]["distortion_nats"] for one in result["runs"] if one["model"] == "delta_vae"]
    assert over["distortion_nats"] == pytest.approx(sum(values) / 2)
    assert over["distortion_nats_stderr"] == pytest.approx(abs(values[0] - values[1]) / 2)

    table = render(result)
    assert "seeds 0, 1" in table
    assert f"H(x) = {source.entropy_nats:.3f}" in table

    folder = tmp_path / "out/delta_vae-seed-0/model"
    ids = load_tokenizer(str(folder))(data.text.heldout[0], return_tensors="pt").input_ids
    assert DeltaVaeForCausalLM.from_pretrained(folder).encode(ids).mean.shape == (1, 7, 1)


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [([0.7, 0.8], "yes"), ([0.51, 0.53], "no"), ([0.52, 0.9], "unclear"), ([0.6, 0.6], "unclear"), ([0.4], "no")],
)
def test_recovered_means_5_standard_errors_over_chance_at_every_seed(accuracies: list[float], verdict: str) -> None:
    """The standard error of guessing one of two, 400 times, is 0.025."""
    runs: list[dict[str, Any]] = [
        {"metrics": {"pooled_sample_accuracy": value, "chance_accuracy": 0.5, "heldout_examples": 400}}
        for value in accuracies
    ]
    assert recovered(runs) == verdict


@pytest.mark.parametrize(
    ("scale", "seeds", "message"),
    [
        ("paper", [0], r"scale='paper': there is no such scale of the slow factor; choose from \['smoke', 'small'\]"),
        ("smoke", [], r"seeds=\[\]: give one or more, each once"),
        ("smoke", [1, 1], r"seeds=\[1, 1\]: give one or more, each once"),
    ],
)
def test_what_there_is_no_such_experiment_of(tmp_path: Path, scale: Any, seeds: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(scale, seeds, tmp_path / "out")


def test_an_output_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"output=.*: is not empty; choose another folder"):
        run("smoke", [0], tmp_path)
