"""A learning rate that no training survives: the run stops with the tensor named, and nothing good is lost."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from delta_vae_lab.checkpoints import find_damage
from delta_vae_lab.cli import app

SIZES = "hidden_size: 8, num_layers: 1, num_heads: 2"
COMMON = """
prior: {latent_dim: 2, alpha: [0.6, 0.9]}
auxiliary_prior: {hidden_size: 4}
optimization: {steps: 30, batch_size: 4, warmup_steps: 0, max_grad_norm: 0, schedule: constant}
checkpoint: {every: 1, keep: 99}
log_every: 1
tracker: none
"""
CONFIGS = {
    "text": f"{COMMON}\nencoder: {{{SIZES}}}\ndecoder: {{{SIZES}}}\ntokenizer: {{vocab_size: 262}}\n",
    "images": f"{COMMON}\nencoder: {{{SIZES}, attention_layers: 0}}\n"
    f"decoder: {{{SIZES}, attention_layers: 1, components: 2}}\ndata: {{name: builtin}}\n",
}
TEXT = "\n".join(" ".join(["cat", "mat", "sat", "hat"][: 1 + i % 4] * (1 + i % 3)) for i in range(120))
Told = tuple[Path, str, dict[str, Any]]


def refuse(literal: str) -> None:
    raise AssertionError(f"{literal} is no JSON")


@pytest.fixture
def stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """The folder of a run that does not survive, its error, and its anomaly.json."""

    def run(kind: str, *arguments: str) -> Told:
        config, corpus, folder = tmp_path / "config.yaml", tmp_path / "corpus.txt", tmp_path / "run"
        config.write_text(CONFIGS[kind])
        corpus.write_text(TEXT)
        command = ["train", kind, "--config", str(config), "--output-dir", str(folder), *arguments]
        try:
            with pytest.raises(SystemExit) as stopped:
                app(command + (["--data", str(corpus)] if kind == "text" else []), standalone_mode=False)
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        [line] = [line for line in error.splitlines() if "error: " in line]
        anomaly = json.loads((folder / "anomaly.json").read_text(), parse_constant=refuse)
        return folder, line[line.index("error: ") :], anomaly

    return run


def assert_nothing_is_lost(folder: Path, steps: int) -> None:
    """A sound, finite checkpoint of every step before, the log of each, no model and no results."""
    checkpoints = sorted((folder / "checkpoints").glob("*"))
    assert [path.name for path in checkpoints] == [f"step-{step:08d}" for step in range(1, steps + 1)]
    for path in checkpoints:
        assert find_damage(path) is None
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(path / "model.safetensors").values())
    log = folder / "metrics.jsonl"
    lines = [json.loads(line, parse_constant=refuse) for line in log.read_text().splitlines()] if log.exists() else []
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert not (folder / "results.json").exists()
    assert not (folder / "model/model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_hostile_learning_rate_stops_before_the_step(kind: str, precision: str, stop: Callable[..., Told]) -> None:
    hostile = ("optimization.learning_rate=1e6", f"optimization.mixed_precision={precision}")
    folder, error, anomaly = stop(kind, *hostile)
    step = anomaly["step"]
    assert error.startswith(
        f"error: step {step}: {anomaly['tensor']} is not finite; the checkpoints before it are kept"
    )
    assert str(folder / "anomaly.json") in error
    assert_nothing_is_lost(folder, step - 1)
    assert anomaly["last_checkpoint"] == f"step-{step - 1:08d}"
    assert (anomaly["learning_rate"], anomaly["mixed_precision"]) == (1e6, precision)
    assert (anomaly["position"]["epoch"], anomaly["position"]["batch"]) == (0, step)
    assert [example["row"] for example in anomaly["examples"]] == [0, 1, 2, 3]
    assert {"row", "rate_nats", "distortion_nats", "auxiliary_rate_nats"} == set(anomaly["examples"][0])
    assert len(anomaly["loss_of_each_process"]) == 1
    assert set(anomaly["gradient_norms"]) == {"model", "auxiliary_prior"}
    norms = list(anomaly["largest_gradient_norms"].values())
    assert len(norms) == 10
    sizes = [math.inf if isinstance(norm, str) else norm for norm in norms]
    assert sizes == sorted(sizes, reverse=True)
    found = [anomaly["loss_of_each_process"], *anomaly["gradient_norms"].values(), *norms, *anomaly["examples"]]
    assert any(word in json.dumps(found) for word in ('"nan"', '"inf"', '"-inf"'))
    before = {path: path.read_bytes() for path in (folder / "checkpoints").rglob("*") if path.is_file()}
    _, again, same = stop(kind, *hostile, "--resume")
    assert (again, same) == (error, anomaly)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_no_checkpoint_is_written_of_weights_that_are_not_finite(kind: str, stop: Callable[..., Told]) -> None:
    """A step so long that the weights leave float32, though its loss and gradients were finite."""
    folder, error, anomaly = stop(kind, "optimization.learning_rate=1e300")
    assert error.startswith("error: step 1: weight ")
    assert " after the step is not finite" in error
    assert_nothing_is_lost(folder, 0)
    assert anomaly["last_checkpoint"] is None
    assert all(isinstance(loss, float) for loss in anomaly["loss_of_each_process"])
    assert all(isinstance(norm, float) for norm in anomaly["largest_gradient_norms"].values())
