"""The doctor against a linear-Gaussian VAE, whose every estimate has a closed form, and on VAEs as users write them."""

import json
import math
import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal
from torch.nn import functional

from delta_vae_lab.doctor import Diagnosis, diagnose
from delta_vae_lab.outside import OutsideVae
from delta_vae_priors import AR1Prior, AR1PriorConfig, AuxiliaryPrior, AuxiliaryPriorConfig

N = 3000
SIGMA = 0.7
# Share r = w^2 / (w^2 + sigma^2) of a dimension of z that x tells: the variance of its posterior mean.
TOLD = torch.tensor([0.9, 0.1, 0.005], dtype=torch.float64)
SIGNAL = SIGMA * (TOLD / (1 - TOLD)).sqrt()


@pytest.fixture(scope="module")
def directions() -> Tensor:
    """U (5, 3), orthonormal columns: so the posterior of z given x = U w z + noise is a diagonal Gaussian."""
    return torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]


@pytest.fixture(scope="module")
def observed(directions: Tensor) -> Tensor:
    """x (N, 5)."""
    generator = torch.Generator().manual_seed(1)
    z, noise = (torch.randn(N, size, dtype=torch.float64, generator=generator) for size in (3, 5))
    return (z * SIGNAL) @ directions.T + SIGMA * noise


@pytest.fixture(scope="module")
def linear(directions: Tensor) -> Callable[..., OutsideVae]:
    """The linear-Gaussian VAE, its posterior's scale off by a factor."""

    def build(stretch: float = 1.0, **options: Any) -> OutsideVae:
        scale = stretch * (1 - TOLD).sqrt()

        def encode(x: Tensor) -> tuple[Tensor, Tensor]:
            mean = x @ directions * (TOLD / SIGNAL)
            return mean, scale.log().expand_as(mean)

        def distortion(x: Tensor, z: Tensor) -> Tensor:
            return -Normal((z * SIGNAL) @ directions.T, SIGMA).log_prob(x).sum(1)

        return OutsideVae(encode, distortion, **options)

    return build


@pytest.fixture(scope="module")
def exact(linear: Callable[..., OutsideVae], observed: Tensor) -> Diagnosis:
    return diagnose(linear(dimensions=5), observed, importance_samples=3, importance_examples=200)


def close(metrics: dict[str, float], name: str, truth: float) -> bool:
    """Within 4 of its own standard errors, of which float32 is a small part."""
    return abs(metrics[name] - truth) <= 4 * metrics[f"{name}_stderr"] + 1e-5


def test_with_the_true_posterior_all_of_the_rate_is_information(exact: Diagnosis) -> None:
    """I(x; z) = -1/2 sum ln(1 - r) = 1.21 nats of at most ln N = 8.0, and q(z) is the prior."""
    information = float(-0.5 * (1 - TOLD).log().sum())
    assert close(exact.metrics, "rate_nats", information)
    assert close(exact.metrics, "mutual_information_nats", information)
    assert close(exact.metrics, "marginal_kl_nats", 0.0)
    assert exact.metrics["mutual_information_nats_stderr"] < 0.03
    assert exact.metrics["committed_rate_nats"] == 0


def test_with_the_true_posterior_every_bound_is_the_likelihood(
    exact: Diagnosis, directions: Tensor, observed: Tensor
) -> None:
    """log w = log p(x) for any z: nothing is gained by more samples, and nothing lost by one."""
    covariance = (directions * SIGNAL**2) @ directions.T + SIGMA**2 * torch.eye(5)
    log_p = MultivariateNormal(torch.zeros(5, dtype=torch.float64), covariance).log_prob(observed)
    first_200 = torch.linspace(0, N - 1, 200).round().long()
    assert exact.metrics["importance_weighted_nll_nats"] == pytest.approx(-float(log_p[first_200].mean()), abs=1e-4)
    assert exact.metrics["importance_gain_nats"] == pytest.approx(0, abs=1e-4)
    assert exact.metrics["importance_samples"] == 3
    assert exact.metrics["importance_weighted_bits_per_dim"] == pytest.approx(
        -float(log_p[first_200].mean()) / 5 / math.log(2), abs=1e-4
    )
    assert close(exact.metrics, "negative_elbo_nats", -float(log_p.mean()))
    assert close(exact.metrics, "bits_per_dim", -float(log_p.mean()) / 5 / math.log(2))


def test_distortion_and_shuffle_gap_have_their_closed_forms(exact: Diagnosis) -> None:
    """E ||x - W z||^2 is M sigma^2 with its own z, and 2 sum w^2 more with another's."""
    assert close(exact.metrics, "distortion_nats", 5 * 0.5 * (math.log(2 * math.pi * SIGMA**2) + 1))
    assert close(exact.metrics, "shuffle_gap_nats", float((TOLD / (1 - TOLD)).sum()))


def test_data_that_lie_in_order_do_not_narrow_the_shuffle_gap(
    linear: Callable[..., OutsideVae], observed: Tensor, exact: Diagnosis
) -> None:
    """The z of a neighbour would be nearly its own."""
    ordered = diagnose(linear(), observed[observed[:, 0].argsort()], importance_samples=1, importance_examples=2)
    gaps = [found.metrics["shuffle_gap_nats"] for found in (ordered, exact)]
    assert gaps[0] == pytest.approx(gaps[1], rel=0.1)


def test_active_units_are_those_whose_means_vary_enough(exact: Diagnosis) -> None:
    assert (exact.metrics["active_units"], exact.metrics["active_units_above_0.2"]) == (2, 1)


def test_a_posterior_that_is_too_wide_costs_its_divergence_and_samples_win_it_back(
    linear: Callable[..., OutsideVae], observed: Tensor, exact: Diagnosis
) -> None:
    """KL(q || p(z|x)) = 3 (1/2 c^2 - 1/2 - ln c) = 0.66 nats at c = 1.5; K = 48 samples win back all but Var(w) / 2K.

    Var(w) = (c^2 / sqrt(2 c^2 - 1))^3 - 1 at E w = 1; of 400 x K samples the standard error is sqrt(Var(w) / 400 K).
    """
    few = observed[:400]
    metrics = diagnose(linear(stretch=1.5), few, importance_samples=48, importance_examples=None).metrics
    loose = 3 * (0.5 * 1.5**2 - 0.5 - math.log(1.5))
    truth = diagnose(linear(), few, importance_samples=1, importance_examples=None).metrics
    assert close(metrics, "importance_gain_nats", loose)
    variance = (1.5**2 / math.sqrt(2 * 1.5**2 - 1)) ** 3 - 1
    short_by = metrics["importance_weighted_nll_nats"] - truth["importance_weighted_nll_nats"]
    assert short_by == pytest.approx(variance / 2 / 48, abs=4 * math.sqrt(variance / 400 / 48))
    own = float((1 - TOLD).sum()) * 0.5 * (1.5**2 - 1) - 3 * math.log(1.5)
    assert close(metrics, "rate_nats", float(-0.5 * (1 - TOLD).log().sum()) + own)
    assert metrics["marginal_kl_nats"] > 4 * metrics["marginal_kl_nats_stderr"]
    assert exact.metrics["marginal_kl_nats"] < 4 * exact.metrics["marginal_kl_nats_stderr"]


def test_it_says_so_in_plain_words(exact: Diagnosis) -> None:
    assert not exact.collapsed
    assert re.fullmatch(
        r"Not collapsed: another example's z costs the decoder [89]\.\d+ ± 0\.\d+ nats an example; "
        r"for that the rate pays 1\.[12]\d+ ± 0\.\d+ nats of slack over a committed 0\.00 "
        r"\(z tells 1\.[12]\d+ ± 0\.\d+ nats about the example, I\(x; z\)\)\. "
        r"The bound is 1\.\d+ ± 0\.\d+ bits/dim; "
        r"whether latents lower it is for the decoder without latents to say, trained alike\.",
        exact.verdict,
    )
    said = " ".join(exact.reasons)
    assert re.search(r"The rate is 1\.[12]\d+ ± 0\.\d+ nats an example, of which the prior commits nothing\.", said)
    assert re.search(r"The decoder heeds z: shuffling costs [89]\.\d+ ± 0\.\d+ nats an example\.", said)
    assert "2 of 3 latent dimensions move with the example (variance of their means > 0.01; 1 above 0.2)." in said
    assert "tell nothing" not in said, "the marginal KL is nothing"
    assert "data: 3,000 held-out examples, 15,000 dimensions, seed 0" in str(exact)


def test_without_dimensions_nothing_is_shared_out(linear: Callable[..., OutsideVae], observed: Tensor) -> None:
    diagnosis = diagnose(linear(), observed[:100])
    assert not [name for name in diagnosis.metrics if "per_dim" in name or name == "dimensions"]
    assert re.search(r"The bound is \d\.\d+ ± 0\.\d+ nats an example; ", diagnosis.verdict)
    assert "bits/dim" not in str(diagnosis)


def test_batches_and_seed_are_what_they_are_for_our_models(linear: Callable[..., OutsideVae], observed: Tensor) -> None:
    """The batches do not matter, the seed does."""
    whole = diagnose(linear(), observed[:90]).metrics
    parts = diagnose(linear(), (x for x in observed[:90].split(17))).metrics
    assert parts.pop("smallest_batch_slack_nats") < whole.pop("smallest_batch_slack_nats")
    assert parts == pytest.approx(whole, abs=1e-6)
    assert diagnose(linear(), observed[:90], seed=1).metrics["distortion_nats"] != whole["distortion_nats"]


def test_steps_of_latents_are_as_one_step_under_an_independent_prior(observed: Tensor) -> None:
    """z (B, 2, 3) or (B, 6): the same numbers but for the count of units, and z as `encode` gives it."""

    def build(*shape: int) -> OutsideVae:
        def encode(x: Tensor) -> tuple[Tensor, Tensor]:
            mean = torch.cat([x, x[:, :1]], 1).reshape(-1, *shape)
            return mean, torch.full_like(mean, -0.5)

        def distortion(x: Tensor, z: Tensor) -> Tensor:
            assert z.shape[1:] == shape
            assert z.dtype == x.dtype
            return (x - z.flatten(1)[:, :5]).square().sum(1)

        return OutsideVae(encode, distortion)

    steps, flat = (diagnose(build(*shape), observed[:60]) for shape in ((2, 3), (6,)))
    assert steps.profile.kl.shape == (2, 3)
    torch.testing.assert_close(steps.profile.kl.flatten(), flat.profile.kl.flatten())
    different = {"active_units", "active_units_above_0.2", "latent_dim"}
    for name in steps.metrics.keys() - different:
        assert steps.metrics[name] == pytest.approx(flat.metrics[name], abs=1e-6), name


def test_a_silent_encoder_under_an_ar1_prior_sits_on_the_floor(tmp_path: Path) -> None:
    """mu = 0, sigma^2 = 1 - a^2 at the ends and (1 - a^2) / (1 + a^2) between them: 2.3137 nats, n = 7, a = .9."""
    alpha = 0.9
    variance = torch.full((7, 1), (1 - alpha**2) / (1 + alpha**2))
    variance[0] = variance[-1] = 1 - alpha**2

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(x), 7, 1), (0.5 * variance.log()).expand(len(x), 7, 1)

    def distortion(x: Tensor, z: Tensor) -> Tensor:  # heeds z, which means nothing
        return 0.5 * (x.sum(1) - z.sum((1, 2))).square()

    prior = AR1Prior(AR1PriorConfig(latent_dim=1, alpha=alpha))
    diagnosis = diagnose(OutsideVae(encode, distortion, prior), torch.randn(200, 5), name="noise")
    assert diagnosis.collapsed
    assert diagnosis.metrics["rate_nats"] == pytest.approx(2.3137, abs=1e-4)
    assert diagnosis.metrics["slack_nats"] == pytest.approx(0, abs=1e-5)
    assert diagnosis.metrics["mutual_information_nats"] == pytest.approx(0, abs=1e-6)
    assert diagnosis.metrics["marginal_kl_nats"] == pytest.approx(2.3137, abs=1e-4)
    assert diagnosis.metrics["active_units"] == 0
    torch.testing.assert_close(diagnosis.profile.kl, diagnosis.profile.committed, atol=1e-5, rtol=0)
    assert diagnosis.verdict.startswith("Collapsed: another example's z costs the decoder ")
    rate, decoder, encoder, marginal, units = diagnosis.reasons
    assert "on its floor: " in rate
    assert "more than the 2.31 that the prior commits." in rate
    assert "ignores z: shuffling costs " in decoder
    assert encoder.startswith("The encoder says the same of every example: z tells ")
    assert marginal.startswith("2.3137 ± 0.0000 nats of the rate tell nothing: ")
    assert units.startswith("0 of 1 latent dimensions move with the example")

    diagnosis.write(tmp_path)
    written = json.loads((tmp_path / "diagnosis.json").read_text())
    assert written["collapsed"] is True
    assert written["metrics"] == diagnosis.metrics
    assert torch.tensor(written["rate_by_step_and_dimension"]["kl_nats"]).sum() == pytest.approx(2.3137, abs=1e-4)
    figures = {path.name for path in tmp_path.glob("*.*g")}
    assert figures == {
        f"{name}.{kind}" for name in ("rate_by_step_and_dimension", "rate_by_position") for kind in ("png", "svg")
    }


# A VAE as a user writes one, without a thought of this project.


class DigitsVae(nn.Module):
    def __init__(self, latents: int, deaf: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 2 * latents))
        self.decoder = nn.Sequential(nn.Linear(latents, 64), nn.ReLU(), nn.Linear(64, 64))
        self.deaf = deaf

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return mu, logvar

    def reconstruction_loss(self, x: Tensor, z: Tensor) -> Tensor:
        logits = self.decoder(0 * z if self.deaf else z)
        return functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """Black or white pixels (1797, 64)."""
    return torch.from_numpy(load_digits().data > 8).float()


def trained(digits: Tensor, deaf: bool) -> DigitsVae:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = DigitsVae(4, deaf)
        optimizer = torch.optim.Adam(vae.parameters(), lr=5e-3)
        for x in chain.from_iterable([digits[:1500].split(100)] * 20):
            mu, logvar = vae.encode(x)
            z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
            kl = 0.5 * (logvar.exp() + mu**2 - 1 - logvar).sum(1)
            optimizer.zero_grad()
            (vae.reconstruction_loss(x, z) + kl).mean().backward()
            optimizer.step()
    return vae.eval()


def examined(vae: DigitsVae) -> OutsideVae:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = vae.encode(x)
        return mu, logvar / 2

    return OutsideVae(encode, vae.reconstruction_loss, dimensions=64)


def test_a_vae_of_digits_is_told_from_one_whose_decoder_is_deaf(digits: Tensor) -> None:
    heldout = digits[1500:]
    hearing, deaf = (diagnose(examined(trained(digits, deaf)), heldout, name="digits") for deaf in (False, True))
    assert not hearing.collapsed
    assert hearing.metrics["mutual_information_nats"] > 2
    assert hearing.metrics["active_units"] >= 3
    assert hearing.metrics["distortion_nats"] < deaf.metrics["distortion_nats"] - 3
    assert hearing.metrics["bits_per_dim"] < deaf.metrics["bits_per_dim"]
    assert deaf.collapsed
    assert deaf.metrics["shuffle_gap_nats"] == 0
    assert deaf.metrics["rate_nats"] < 0.1
    assert abs(deaf.metrics["mutual_information_nats"]) < 0.05
    assert "The decoder ignores z: shuffling costs 0.0000 ± 0.0000 nats an example" in " ".join(deaf.reasons)


def test_a_model_in_training_mode_is_noticed(digits: Tensor) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"encode answers otherwise when asked again .* evaluation mode"):
        diagnose(examined(DigitsVae(4, deaf=False).train()), digits)


# What an outside model may get wrong.

X = torch.zeros(6, 5)


def good_encode(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, :2], x[:, :2]


def good_distortion(x: Tensor, z: Tensor) -> Tensor:
    return z.square().sum(1)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda x: x, r"encode gave a Tensor: it must give two tensors"),
        (lambda x: (x, None), r"encode gave a tuple: it must give two tensors"),
        (lambda x: (x, x[:, :2]), r"mean \(6, 5\) and log_scale \(6, 2\) of 6 examples: both must be \(B, D\) or"),
        (lambda x: (x[0], x[0]), r"mean \(5,\) and log_scale \(5,\) of 6 examples"),
        (lambda x: (x[:3], x[:3]), r"mean \(3, 5\) and log_scale \(3, 5\) of 6 examples"),
        (lambda x: (x, x.log()), r"encode gave a log_scale with 30 of 30 values not finite: check"),
        (lambda x: (x / 0, x), r"encode gave a mean with 30 of 30 values not finite: check"),
        (lambda x: (x, x + 100), r"the posterior has a KL with 30 of 30 values not finite: log_scale is the log of"),
    ],
)
def test_an_encode_that_cannot_be_read_is_refused_in_one_line(encode: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        diagnose(OutsideVae(encode, good_distortion), X)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("distortion", "message"),
    [
        (lambda x, z: z.square().mean(), r"distortion gave shape \(\) for 6 examples: it must be \(B,\), nats of each"),
        (lambda x, z: z.square(), r"distortion gave shape \(6, 2\) for 6 examples"),
        (lambda x, z: 1.0, r"distortion gave a float for 6 examples"),
        (
            lambda x, z: x[:, 0].log(),
            r"distortion gave an answer with 6 of 6 values not finite: compute it from logits",
        ),
    ],
)
def test_a_distortion_that_cannot_be_read_is_refused_in_one_line(distortion: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        diagnose(OutsideVae(good_encode, distortion), X)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ([], {}, r"evaluation set is empty"),
        (X[:1], {}, r"a standard error needs at least 2"),
        ([(X, torch.zeros(6))], {}, r"a tuple in the data: give tensors .* \(x for x, _ in loader\)"),
        ([X, X[:, :4]], {}, r"examples of shape \(4,\) after \(5,\): give all of one shape"),
        (X, {"importance_samples": 0}, r"importance_samples=0: .* take 1 or more"),
        (X, {"information_examples": 1}, r"information_examples=1: a standard error needs 2 or more"),
    ],
)
def test_data_and_settings_that_tell_nothing_are_refused(data: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diagnose(OutsideVae(good_encode, good_distortion), data, **options)


def test_a_prior_of_another_size_or_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"D=2 latent dimensions for a prior of latent_dim=3: give both the same"):
        diagnose(OutsideVae(good_encode, good_distortion, AR1Prior(AR1PriorConfig(latent_dim=3, alpha=0.5))), X)
    auxiliary: Any = AuxiliaryPrior(AuxiliaryPriorConfig(latent_dim=2, hidden_size=4))
    with pytest.raises(ValueError, match=r"prior of type AuxiliaryPrior: give a StandardNormalPrior, "):
        OutsideVae(good_encode, good_distortion, auxiliary)
    with pytest.raises(ValueError, match=r"dimensions=0: an example has 1 or more"):
        OutsideVae(good_encode, good_distortion, dimensions=0)


def test_an_encode_whose_z_changes_shape_is_refused() -> None:
    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x[:, : int(x[0, 0])]
        return mean, mean

    shapes = [torch.full((4, 5), 2.0), torch.full((4, 5), 3.0)]
    with pytest.raises(ValueError, match=r"encode gave z of shape \(3,\) after \(2,\): give all examples one shape"):
        diagnose(OutsideVae(encode, good_distortion), shapes)
