"""Fitting an auxiliary prior to a trained model: the model stays what it was, and the new prior comes to know it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from delta_vae import DeltaVaeForImageGeneration
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data import ImageBatches, ImageSplits
from delta_vae_lab.image_run import build_image_model, image_processor
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import ImageRunConfig
from delta_vae_lab.training import build_accelerator, train

CONFIG = """
prior: {latent_dim: 2, alpha: [0.6, 0.9]}
encoder: {hidden_size: 8, num_layers: 1, attention_layers: 0, num_heads: 2, dropout: 0.3}
decoder: {hidden_size: 8, num_layers: 1, attention_layers: 0, num_heads: 2, components: 2, dropout: 0.3}
auxiliary_prior: {hidden_size: 8}
optimization: {steps: 150, batch_size: 4, warmup_steps: 2, auxiliary_learning_rate: 0.03, max_grad_norm: 0}
log_every: 1
tracker: none
"""


@pytest.fixture
def images() -> ImageSplits:
    levels = np.random.default_rng(0).integers(0, 4, (8, 1, 4, 4), dtype=np.uint8)
    return ImageSplits(levels, levels, levels=4, name="noise", fingerprint={})


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def configure(folder: Path, *overrides: str) -> ImageRunConfig:
    file = folder / "config.yaml"
    file.write_text(CONFIG)
    return load_config(ImageRunConfig, file, overrides)


@pytest.fixture
def trained(tmp_path: Path, images: ImageSplits) -> Path:
    """A model without an auxiliary prior, as if trained."""
    config = configure(tmp_path, "auxiliary_prior.enabled=false", "seed=7")
    model = build_image_model(config, image_processor(images, None))
    generator = torch.Generator().manual_seed(1)
    torch.nn.init.normal_(model.encoder.statistics.weight, std=0.05, generator=generator)
    torch.nn.init.normal_(model.encoder.statistics.bias, std=1.0, generator=generator)
    model.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


def test_the_model_stays_and_its_new_prior_comes_to_know_its_posteriors(
    tmp_path: Path, trained: Path, images: ImageSplits
) -> None:
    config = configure(tmp_path, f"auxiliary_prior.fit_to={trained}")
    before = DeltaVaeForImageGeneration.from_pretrained(trained)
    model = build_image_model(config, image_processor(images, None))
    run = RunFolder(tmp_path / "run")
    accelerator = build_accelerator(config, run, cpu=True)
    run.start(config, resume=False)
    batches = ImageBatches(images.train, batch_size=4, seed=config.seed)
    model = train(model, batches, config, accelerator, run)

    after = model.state_dict()
    assert [name for name, value in before.state_dict().items() if not torch.equal(value, after[name])] == []
    rates = [row["auxiliary_rate_nats"] for row in run.metrics()]
    assert np.mean(rates[-10:]) < 0.3 * np.mean(rates[:3]), "nearly all of that rate is the same for every image"
    x = torch.from_numpy(images.train)
    noise = torch.zeros(8, 4, 2)
    torch.testing.assert_close(model(x, noise=noise).distortion, before.eval()(x, noise=noise).distortion)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("decoder.hidden_size=16", r"fit_to=.*: its decoder differs in hidden_size; start from the config.yaml"),
        ("prior.alpha=[0.5,0.9]", r"fit_to=.*: its prior differs in alpha; start from the config.yaml"),
        ("auxiliary_prior.enabled=false", r"fit_to=.*: needs latents and auxiliary_prior.enabled=true"),
        ("prior.kind=none", r"fit_to=.*: needs latents and auxiliary_prior.enabled=true"),
    ],
)
def test_another_architecture_is_refused_in_one_line(
    tmp_path: Path, trained: Path, images: ImageSplits, override: str, message: str
) -> None:
    config = configure(tmp_path, f"auxiliary_prior.fit_to={trained}", override)
    with pytest.raises(ValueError, match=message) as error:
        build_image_model(config, image_processor(images, None))
    assert "\n" not in str(error.value)


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path, images: ImageSplits) -> None:
    config = configure(tmp_path, f"auxiliary_prior.fit_to={tmp_path}")
    with pytest.raises(ValueError, match=r"config.json: not found; give the folder that save_pretrained wrote"):
        build_image_model(config, image_processor(images, None))


def test_a_training_prior_with_weights_of_its_own_is_kept_and_frozen(tmp_path: Path, images: ImageSplits) -> None:
    processor = image_processor(images, None)
    config = configure(tmp_path, "prior.kind=lstm", "auxiliary_prior.enabled=false", "seed=7")
    build_image_model(config, processor).save_pretrained(tmp_path / "trained")
    config = configure(tmp_path, "prior.kind=lstm", f"auxiliary_prior.fit_to={tmp_path / 'trained'}")
    kept = DeltaVaeForImageGeneration.from_pretrained(tmp_path / "trained").prior.state_dict()
    fitted = build_image_model(config, processor).prior
    assert all(torch.equal(weight, kept[name]) for name, weight in fitted.state_dict().items())
    assert not any(weight.requires_grad for weight in fitted.parameters())
