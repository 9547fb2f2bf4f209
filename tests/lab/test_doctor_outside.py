"""The doctor on a VAE of somebody else's library, diffusers' `AutoencoderKL`, whose own KL is the oracle."""

import math
from itertools import chain
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.distributions import Normal

from delta_vae_lab.doctor import Diagnosis, diagnose
from delta_vae_lab.outside import OutsideVae
from delta_vae_priors import AR1Prior, AR1PriorConfig

TRAINING = 1500
SIGMA = 0.3  # of a pixel, given its reconstruction
LATENTS = 2 * 4 * 4


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Grey levels in [-1, 1] (1797, 1, 8, 8)."""
    return torch.from_numpy(load_digits().images / 8 - 1).float()[:, None]


def nats(vae: Any, x: Tensor, z: Tensor) -> Tensor:
    """-ln p(x|z), (B,): a Gaussian about the reconstruction."""
    return -Normal(vae.decode(z).sample, SIGMA).log_prob(x).sum((1, 2, 3))


def trained(digits: Tensor, kl_weight: float) -> Any:
    """z (B, 2, 4, 4); 120 steps on distortion + kl_weight KL, nats an image."""
    diffusers = pytest.importorskip("diffusers", reason="the outside VAE is diffusers' AutoencoderKL")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            block_out_channels=[8, 8],
            norm_num_groups=4,
            latent_channels=2,
            sample_size=8,
        )
        optimizer = torch.optim.Adam(vae.parameters(), lr=1e-2)
        for x in chain.from_iterable([digits[:TRAINING].split(50)] * 4):
            posterior = vae.encode(x).latent_dist
            loss = nats(vae, x, posterior.sample()) + kl_weight * posterior.kl()
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
    return vae.eval()


@pytest.fixture(scope="module")
def healthy(digits: Tensor) -> Any:
    return trained(digits, kl_weight=1)


@pytest.fixture(scope="module")
def pressed(digits: Tensor) -> Any:
    """The same under a KL so dear that nothing is worth telling."""
    return trained(digits, kl_weight=30)


def examined(vae: Any, digits: Tensor, *, heard: float = 1.0) -> Diagnosis:
    """On the held-out digits; heard=0: z is cut off from the decoder."""

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        posterior = vae.encode(x).latent_dist
        return posterior.mean, posterior.logvar / 2

    outside = OutsideVae(encode, lambda x, z: nats(vae, x, heard * z), dimensions=64)
    return diagnose(outside, digits[TRAINING:], name="digits", importance_samples=4, importance_examples=64)


@torch.no_grad()
def own_posterior(vae: Any, digits: Tensor) -> Any:
    return vae.encode(digits[TRAINING:]).latent_dist


def test_the_rate_is_what_diffusers_says(healthy: Any, pressed: Any, digits: Tensor) -> None:
    for vae in (healthy, pressed):
        metrics, kl = examined(vae, digits).metrics, own_posterior(vae, digits).kl().double()
        assert metrics["rate_nats"] == pytest.approx(float(kl.mean()), rel=1e-5, abs=1e-6)
        assert metrics["rate_nats_stderr"] == pytest.approx(float(kl.std()) / math.sqrt(len(kl)), rel=1e-4)
        assert metrics["committed_rate_nats"] == 0
        assert metrics["slack_nats"] == metrics["rate_nats"]


def test_a_trained_one_is_not_collapsed(healthy: Any, digits: Tensor) -> None:
    diagnosis = examined(healthy, digits)
    metrics = diagnosis.metrics
    assert not diagnosis.collapsed
    assert diagnosis.verdict.startswith("Not collapsed: another example's z costs the decoder ")
    assert 2 < metrics["mutual_information_nats"] < min(metrics["mutual_information_cap_nats"], metrics["rate_nats"])
    assert metrics["active_units"] > 8
    assert metrics["latent_dim"] == LATENTS
    assert diagnosis.profile.kl.shape == (1, LATENTS)


@torch.no_grad()
def test_the_bound_is_the_loss_that_it_was_trained_on(healthy: Any, digits: Tensor) -> None:
    """On diffusers' own draws of z: the two differ by the draws, of which the error over images allows for more."""
    posterior, x = own_posterior(healthy, digits), digits[TRAINING:]
    z = posterior.sample(torch.Generator().manual_seed(7))
    loss = float((nats(healthy, x, z) + posterior.kl()).mean())
    metrics = examined(healthy, digits).metrics
    assert metrics["negative_elbo_nats"] == pytest.approx(loss, abs=3 * metrics["negative_elbo_nats_stderr"])
    assert metrics["bits_per_dim"] == pytest.approx(metrics["negative_elbo_nats"] / 64 / math.log(2))


def test_one_trained_under_a_heavy_kl_weight_is_collapsed(healthy: Any, pressed: Any, digits: Tensor) -> None:
    diagnosis, other = examined(pressed, digits), examined(healthy, digits)
    metrics = diagnosis.metrics
    assert diagnosis.collapsed
    assert diagnosis.verdict.startswith("Collapsed: another example's z costs the decoder ")
    assert "and the rate sits on its floor, " in diagnosis.verdict
    assert metrics["rate_nats"] < 0.01
    assert abs(metrics["mutual_information_nats"]) < 3 * metrics["mutual_information_nats_stderr"] < 0.02
    assert metrics["active_units"] == 0
    assert metrics["negative_elbo_nats"] > other.metrics["negative_elbo_nats"] + 10


def test_no_rate_and_no_information_help_a_decoder_that_does_not_hear(healthy: Any, digits: Tensor) -> None:
    """The healthy encoder, z cut off: what the posteriors are worth is as before, and yet it is collapsed."""
    heard, cut = examined(healthy, digits), examined(healthy, digits, heard=0.0)
    for name in ("rate_nats", "mutual_information_nats", "marginal_kl_nats", "active_units"):
        assert cut.metrics[name] == heard.metrics[name]
    assert cut.collapsed
    assert cut.metrics["shuffle_gap_nats"] == pytest.approx(0, abs=1e-4)
    assert "and the rate pays " in cut.verdict


def test_a_rate_that_every_posterior_pays_alike_tells_nothing(healthy: Any, digits: Tensor) -> None:
    """q = N(1, 1/4) whatever x: 32 (1/2 (1 + 1/4 - 1) + ln 2) = 26.2 nats, of which I(x; z) = 0."""
    silent = OutsideVae(
        encode=lambda x: (torch.ones(len(x), 2, 4, 4), torch.full((len(x), 2, 4, 4), math.log(0.5))),
        distortion=lambda x, z: nats(healthy, x, z),
    )
    diagnosis = diagnose(silent, digits[TRAINING:], importance_samples=None)
    rate = LATENTS * (0.125 + math.log(2))
    assert diagnosis.collapsed
    assert diagnosis.metrics["rate_nats"] == pytest.approx(rate, rel=1e-5)
    assert diagnosis.metrics["mutual_information_nats"] == pytest.approx(0, abs=1e-9)
    assert diagnosis.metrics["marginal_kl_nats"] == pytest.approx(rate, rel=1e-5)
    assert diagnosis.metrics["active_units"] == 0


def test_positions_of_the_latents_may_be_their_steps(healthy: Any, digits: Tensor) -> None:
    """z (B, 2, 4, 4) as 16 steps of 2: where the rate is spent."""

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        posterior = healthy.encode(x).latent_dist
        return posterior.mean.flatten(2).mT, posterior.logvar.flatten(2).mT / 2

    def distortion(x: Tensor, z: Tensor) -> Tensor:
        return nats(healthy, x, z.mT.unflatten(2, (4, 4)))

    diagnosis = diagnose(OutsideVae(encode, distortion), digits[TRAINING:], importance_samples=None)
    posterior = own_posterior(healthy, digits)
    by_element = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).double().mean(0)
    torch.testing.assert_close(diagnosis.profile.kl, by_element.flatten(1).T, rtol=1e-4, atol=1e-5)
    assert diagnosis.metrics["latent_dim"] == 2
    assert not diagnosis.collapsed


# Latents on a grid, without diffusers.


def grid(*shape: int, prior: AR1Prior | None = None) -> OutsideVae:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.reshape(-1, *shape), torch.full((len(x), *shape), -0.5)

    def distortion(x: Tensor, z: Tensor) -> Tensor:
        assert z.shape == (len(x), *shape)
        return (x - z.flatten(1)).square().sum(1)

    return OutsideVae(encode, distortion, prior)


def test_a_grid_of_latents_is_one_step_of_all_its_elements() -> None:
    x = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    flat = diagnose(grid(12), x)
    for shape in ((3, 2, 2), (1, 3, 2, 2)):
        diagnosis = diagnose(grid(*shape), x)
        assert diagnosis.metrics == pytest.approx(flat.metrics, abs=1e-6)
        torch.testing.assert_close(diagnosis.profile.kl, flat.profile.kl)
    with pytest.raises(ValueError, match=r"D=12 latent dimensions for a prior of latent_dim=2: give both the same"):
        diagnose(grid(3, 2, 2, prior=AR1Prior(AR1PriorConfig(latent_dim=2, alpha=0.5))), x)
