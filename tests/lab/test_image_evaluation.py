"""Held-out estimates of an image model against the model taken image by image, and against models of known answers."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from delta_vae import DeltaVaeConfig, DeltaVaeForImageGeneration
from delta_vae_decoders import ImageDecoderConfig
from delta_vae_encoders import ImageEncoderConfig
from delta_vae_lab.data import ImageBatch, TextBatch, heldout_image_batches
from delta_vae_lab.evaluation import evaluate
from delta_vae_lab.measurement import measure, rate_profile
from delta_vae_lab.randomness import derive_seed, latent_noise
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

CHANNELS, HEIGHT, WIDTH, LEVELS = 3, 4, 5, 4
DIMENSIONS = CHANNELS * HEIGHT * WIDTH


def build(latent_dim: int = 2) -> DeltaVaeForImageGeneration:
    """An untrained model whose posteriors differ from image to image."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "channels": CHANNELS,
        "height": HEIGHT,
        "width": WIDTH,
        "levels": LEVELS,
        "hidden_size": 8,
        "num_layers": 1,
        "attention_layers": 1,
        "num_heads": 2,
        "latent_dim": latent_dim,
    }
    decoder = ImageDecoderConfig(**sizes, components=2, add_latents=True)
    if not latent_dim:
        return DeltaVaeForImageGeneration(DeltaVaeConfig(decoder=decoder)).eval()
    config = DeltaVaeConfig(
        prior=AR1PriorConfig(latent_dim=latent_dim, alpha=0.8),
        encoder=ImageEncoderConfig(**sizes, statistics_std=0.5),
        decoder=decoder,
        auxiliary_prior=AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=4),
    )
    return DeltaVaeForImageGeneration(config).eval()


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, LEVELS, (7, CHANNELS, HEIGHT, WIDTH), dtype=np.uint8)


def batches(images: npt.NDArray[np.uint8], size: int) -> list[ImageBatch]:
    return list(heldout_image_batches(images, size))


def noise_of(model: DeltaVaeForImageGeneration, place: int, seed: int) -> Tensor:
    mask = torch.ones(1, HEIGHT, dtype=torch.bool)
    return latent_noise(mask, model.config.latent_dim, derive_seed(seed, "evaluation"), 0, [place])


def test_bits_per_dim_are_those_of_images_taken_alone(images: npt.NDArray[np.uint8]) -> None:
    model = build()
    rates, auxiliary, distortions = [], [], []
    with torch.no_grad():
        for place in range(len(images)):
            out = model(torch.from_numpy(images[place : place + 1]), noise=noise_of(model, place, seed=3))
            rates.append(float(out.rate))
            auxiliary.append(float(out.auxiliary_rate))
            distortions.append(float(out.distortion))
    metrics = evaluate(model, batches(images, 3), seed=3, importance_samples=2)
    bits = 1 / (DIMENSIONS * math.log(2))
    expected = {
        "bits_per_dim": np.mean(np.add(rates, distortions)) * bits,
        "auxiliary_bits_per_dim": np.mean(np.add(auxiliary, distortions)) * bits,
        "rate_bits_per_dim": np.mean(rates) * bits,
        "auxiliary_rate_bits_per_dim": np.mean(auxiliary) * bits,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert metrics["bits_per_dim_stderr"] == pytest.approx(
        np.std(np.add(rates, distortions), ddof=1) / math.sqrt(len(images)) * bits, rel=1e-4
    )
    assert (metrics["images"], metrics["dimensions"]) == (len(images), len(images) * DIMENSIONS)


def test_the_batch_size_changes_no_estimate(images: npt.NDArray[np.uint8]) -> None:
    model = build()
    one, other = (evaluate(model, batches(images, size), importance_samples=3) for size in (2, 7))
    assert one.pop("smallest_batch_slack_nats") <= other.pop("smallest_batch_slack_nats") + 1e-9
    assert one == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_the_rate_is_never_below_the_committed_one_and_sits_on_it_where_the_encoder_is_silent(
    images: npt.NDArray[np.uint8],
) -> None:
    model = build()
    assert evaluate(model, batches(images, 3), importance_samples=1)["smallest_batch_slack_nats"] > 0
    assert model.encoder is not None
    torch.nn.init.zeros_(model.encoder.statistics.weight)
    metrics = evaluate(model, batches(images, 3), importance_samples=1)
    committed = 0.5 * 2 * ((HEIGHT - 2) * math.log(1 + 0.8**2) - math.log(1 - 0.8**2))
    assert metrics["committed_rate_nats"] == pytest.approx(committed, rel=1e-5)
    assert metrics["slack_nats"] == pytest.approx(0, abs=1e-4)
    assert metrics["mutual_information_nats"] == pytest.approx(0, abs=1e-4)
    assert metrics["active_units"] == 0


def test_the_shuffle_gap_is_the_distortion_under_the_z_of_another_image(images: npt.NDArray[np.uint8]) -> None:
    """Of the one before in an order drawn by the seed, so that nobody gets their own."""
    model = build()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(derive_seed(5, "shuffle"))).tolist()
    before = {here: there for there, here in zip(order, order[1:] + order[:1], strict=True)}
    record = measure(model, batches(images, 3), seed=5)
    assert record.z is not None
    with torch.no_grad():
        under_others = []
        for i, x in enumerate(torch.from_numpy(images)):
            assert before[i] != i
            under_others.append(-float(model.decoder(x[None], record.z[before[i]][None]).log_prob(x[None]).sum()))
    metrics = evaluate(model, batches(images, 3), seed=5, importance_samples=1)
    expected = float(np.mean(under_others)) - float(record.distortion.mean())
    assert metrics["shuffle_gap_nats"] == pytest.approx(expected, rel=1e-4)


def test_one_importance_sample_is_the_negative_elbo_and_more_are_lower(images: npt.NDArray[np.uint8]) -> None:
    model = build()
    gains = [
        evaluate(model, batches(images, 4), importance_samples=samples)["importance_gain_nats"] for samples in (1, 32)
    ]
    assert gains[0] == pytest.approx(0, abs=1e-4)
    assert gains[1] > 0.1


def test_bounds_of_samples_are_in_bits_per_dim(images: npt.NDArray[np.uint8]) -> None:
    metrics = evaluate(build(), batches(images, 3), importance_samples=2, importance_examples=4)
    for prefix in ("", "auxiliary_"):
        bits = metrics[f"{prefix}importance_weighted_nll_nats"] / (DIMENSIONS * math.log(2))
        assert metrics[f"{prefix}importance_weighted_bits_per_dim"] == pytest.approx(bits)


def test_sentences_for_a_model_of_images_are_refused() -> None:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"a batch of sentences for DeltaVaeForImageGeneration, a model of images: "):
        evaluate(build(), [TextBatch(ids, torch.ones_like(ids), [0, 1])])


def test_images_have_one_size_and_so_no_information_beyond_it(images: npt.NDArray[np.uint8]) -> None:
    metrics = evaluate(build(), batches(images, 3), importance_samples=1)
    assert "mutual_information_nats" in metrics
    assert not [name for name in metrics if "given_length" in name or "token" in name or "sentences" in name]


def test_a_decoder_without_latents_has_its_likelihood_alone(images: npt.NDArray[np.uint8]) -> None:
    model = build(latent_dim=0)
    with torch.no_grad():
        x = torch.from_numpy(images)
        nats = -float(model.decoder(x).log_prob(x).sum())
    metrics = evaluate(model, batches(images, 3))
    assert metrics["bits_per_dim"] == pytest.approx(nats / (images.size * math.log(2)), rel=1e-5)
    assert metrics["rate_nats"] == 0
    assert "shuffle_gap_nats" not in metrics


def test_the_profile_has_a_step_a_row(images: npt.NDArray[np.uint8]) -> None:
    model = build()
    record = measure(model, batches(images, 3), seed=0)
    profile = rate_profile(model, record)
    assert profile.kl.shape == (HEIGHT, 2)
    assert profile.sequences.tolist() == [len(images)] * HEIGHT
    assert float(profile.kl.sum()) == pytest.approx(float(record.rate.mean()), rel=1e-5)
    assert float(profile.committed.sum()) == pytest.approx(float(record.committed_rate.mean()), rel=1e-5)
