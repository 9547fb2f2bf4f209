"""Training on images: what the loop owes any data, shown on them. The rest is shown on sentences, by the same loop."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from delta_vae import DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data import ImageBatches, ImageSplits
from delta_vae_lab.image_run import build_image_model, image_fingerprint, image_processor
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import ImageRunConfig
from delta_vae_lab.training import build_accelerator, train

TINY = """
prior: {latent_dim: 2, alpha: [0.6, 0.9]}
encoder: {hidden_size: 8, num_layers: 1, attention_layers: 0, num_heads: 2}
decoder: {hidden_size: 8, num_layers: 1, attention_layers: 1, num_heads: 2, components: 2}
auxiliary_prior: {hidden_size: 4}
data: {horizontal_flips: true}
optimization: {steps: 6, batch_size: 4, warmup_steps: 2, polyak_decay: 0.5}
checkpoint: {every: 3, keep: 9}
log_every: 1
tracker: none
"""


def images() -> ImageSplits:
    """Ten to train on: a batch of 4 leaves two out each epoch."""
    levels = np.random.default_rng(0).integers(0, 17, (12, 1, 4, 6), dtype=np.uint8)
    return ImageSplits(levels[:10], levels[10:], levels=17, name="noise", fingerprint={"source": "noise"})


def run_training(
    folder: Path, *overrides: str, resume: bool = False, fingerprint: dict[str, Any] | None = None
) -> DeltaVaeForImageGeneration:
    file = folder.with_name(f"{folder.name}-{os.getpid()}.yaml")  # two processes do not write the same one
    file.write_text(TINY)
    config, run = load_config(ImageRunConfig, file, overrides), RunFolder(folder)
    accelerator = build_accelerator(config, run, cpu=True)
    if accelerator.is_main_process:
        run.start(config, resume)
    accelerator.wait_for_everyone()
    data = images()
    processor = image_processor(data, config.data.levels)
    batches = ImageBatches(
        processor.quantize(data.train),
        batch_size=config.optimization.batch_size,
        seed=config.seed,
        horizontal_flips=config.data.horizontal_flips,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    origin = fingerprint or image_fingerprint(data, processor)
    return train(build_image_model(config, processor), batches, config, accelerator, run, None, resume, origin)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    AcceleratorState._reset_state(reset_partial_state=True)


def assert_same_weights(a: DeltaVaeForImageGeneration, b: DeltaVaeForImageGeneration) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(folder: Path) -> None:
    settings = ("encoder.dropout=0.2", "decoder.dropout=0.2", "optimization.schedule=constant")
    whole = run_training(folder, *settings)
    resumed = folder.with_name("resumed")
    run_training(resumed, *settings, "optimization.steps=3")
    assert_same_weights(run_training(resumed, *settings, resume=True), whole)
    assert RunFolder(resumed).metrics() == RunFolder(folder).metrics()


def test_micro_steps_change_nothing_but_memory(folder: Path) -> None:
    """To rounding, which Adam enlarges where a gradient is 0 but for it, as those of the keys' biases are."""
    at_once = run_training(folder).state_dict()
    in_two = run_training(folder.with_name("two"), "optimization.accumulation=2").state_dict()
    for name, value in at_once.items():
        torch.testing.assert_close(in_two[name], value, atol=1e-4, rtol=0)


def test_flips_are_trained_on(folder: Path) -> None:
    mirrored = run_training(folder).state_dict()
    straight = run_training(folder.with_name("straight"), "data.horizontal_flips=false").state_dict()
    assert any(not torch.equal(mirrored[name], straight[name]) for name in mirrored)


def test_metrics_are_nats_an_image_with_its_dimensions(folder: Path) -> None:
    run_training(folder, "optimization.steps=1")
    (row,) = RunFolder(folder).metrics()
    assert row["dimensions_per_image"] == 1 * 4 * 6
    assert row["rate_nats"] >= row["committed_rate_nats"] - 1e-3
    assert "tokens_per_sequence" not in row


def test_a_run_is_not_resumed_at_other_levels(folder: Path) -> None:
    run_training(folder, "optimization.steps=3", "optimization.schedule=constant")
    origin = {"source": "noise", "levels": 4}
    with pytest.raises(ValueError, match="was trained with another levels; resume with the same"):
        run_training(folder, "optimization.schedule=constant", resume=True, fingerprint=origin)


def test_a_processor_is_made_for_the_data() -> None:
    data = images()
    made = image_processor(data, levels=4)
    assert isinstance(made, DeltaVaeImageProcessor)
    assert (made.channels, made.height, made.width, made.levels) == (1, 4, 6, 4)
    assert made.quantize(data.train).max() == 3
    assert np.array_equal(image_processor(data, None).quantize(data.train), data.train)
    with pytest.raises(ValueError, match=r"data.levels=32: noise has 17; ask for at most as many"):
        image_processor(data, levels=32)


@pytest.mark.slow
def test_two_processes_give_the_run_of_one_also_where_a_prior_is_fitted_afterwards(folder: Path) -> None:
    """Each process with its own images of a batch; the encoder and the decoder that are kept have no gradients."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    trained = run_training(folder.with_name("alone"))
    of_two = DeltaVaeForImageGeneration.from_pretrained(folder.with_name("model"))
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(of_two.state_dict()[name], value, atol=1e-4, rtol=0)
    fitted = DeltaVaeForImageGeneration.from_pretrained(folder.with_name("fitted"))
    kept = of_two.state_dict()
    changed = [name for name, value in fitted.state_dict().items() if not torch.equal(value, kept[name])]
    assert changed
    assert all(name.startswith("auxiliary_prior.") for name in changed)


def two_processes(folder: Path) -> None:
    """A run, and another that fits an auxiliary prior to its model; the models are written by the first process."""
    for name, overrides in (("model", ()), ("fitted", (f"auxiliary_prior.fit_to={folder.with_name('model')}",))):
        model = run_training(folder if name == "model" else folder.with_name("again"), *overrides)
        state = AcceleratorState()
        assert state.num_processes == 2
        if state.is_main_process:
            model.save_pretrained(folder.with_name(name))
        state.wait_for_everyone()
        AcceleratorState._reset_state()


if __name__ == "__main__":
    two_processes(Path(sys.argv[1]))
