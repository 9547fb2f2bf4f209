"""The slow-factor experiment at its smallest: everything is wired, and says what it is of. Nothing is claimed of it."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab.data import load_tokenizer
from delta_vae_lab.data.synthetic import slow_factor_text
from delta_vae_lab.experiments import experiment_figures, render_experiment, reproduce
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.slow_factor import SCALES, recovered, run


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_smoke(tmp_path: Path) -> None:
    result, table = reproduce("slow-factor", Request("smoke", (0, 1), tmp_path / "out"))
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

    with (tmp_path / "out/slow-factor.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], int(row["seed"])) for row in rows] == [(one["model"], one["seed"]) for one in result["runs"]]
    assert float(rows[3]["metrics_rate_nats"]) == result["runs"][3]["metrics"]["rate_nats"]

    written = json.loads((tmp_path / "out/slow-factor.json").read_text())
    assert render_experiment(written) == table
    for name in experiment_figures(written):
        assert (tmp_path / f"out/figures/{name}.png").exists()
        assert (tmp_path / f"out/figures/{name}.svg").exists()
    assert "seeds 0, 1" in table
    assert f"H(x) = {source.entropy_nats:.3f}" in table

    folder = tmp_path / "out/models/slow-factor-delta_vae-seed-0/model"
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


def test_models_that_are_there_are_judged_and_not_trained_again(tmp_path: Path) -> None:
    request = Request("smoke", (3,), tmp_path / "out")
    first = run(request)
    files = (tmp_path / "out/models").glob("*/checkpoints/*/model.safetensors")
    trained = {file: file.stat().st_mtime_ns for file in files}
    assert len(trained) == 2
    AcceleratorState._reset_state(reset_partial_state=True)
    assert run(request) == first
    assert {file: file.stat().st_mtime_ns for file in trained} == trained


def test_a_folder_of_other_models_is_left_alone(tmp_path: Path) -> None:
    run(Request("smoke", (0,), tmp_path))
    file = tmp_path / "models/slow-factor-delta_vae-seed-0/config.yaml"
    file.write_text(file.read_text().replace("batch_size: 8\n", "batch_size: 4\n"))
    message = r"slow-factor-delta_vae-seed-0 was started with another config; differing keys: optimization.batch_size"
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(ValueError, match=message) as error:
        run(Request("smoke", (0,), tmp_path))
    assert "\n" not in str(error.value)
