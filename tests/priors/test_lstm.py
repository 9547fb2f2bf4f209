"""The LSTM priors against an LSTM cell run by hand, step by step, and which gradients of them reach the model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from delta_vae_core import DiagonalGaussian, lengths_to_mask
from delta_vae_priors import AuxiliaryPrior, AuxiliaryPriorConfig, LSTMPrior, LSTMPriorConfig

B, T, D, H = 3, 5, 2, 6

PriorOfLSTM = LSTMPrior | AuxiliaryPrior


def build(kind: str, latent_dim: int = D, hidden_size: int = H) -> PriorOfLSTM:
    torch.manual_seed(0)
    if kind == "lstm":
        return LSTMPrior(LSTMPriorConfig(latent_dim=latent_dim, hidden_size=hidden_size)).eval()
    return AuxiliaryPrior(AuxiliaryPriorConfig(latent_dim=latent_dim, hidden_size=hidden_size)).eval()


def large(prior: PriorOfLSTM) -> PriorOfLSTM:
    """With a head large enough for every step to differ from N(0, 1)."""
    torch.manual_seed(1)
    nn.init.normal_(prior.head.weight, std=0.7)
    nn.init.normal_(prior.head.bias, std=0.3)
    return prior


@pytest.fixture(params=["lstm", "auxiliary"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def prior(kind: str) -> PriorOfLSTM:
    return large(build(kind))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def posterior(generator: torch.Generator) -> DiagonalGaussian:
    return DiagonalGaussian(*(0.5 * torch.randn(2, B, T, D, generator=generator)))


def by_hand(prior: PriorOfLSTM, z: Tensor) -> Normal:
    """p(z_t | z_{<t}) for every t of z (B, T, D), by an `LSTMCell` that is fed 0, z_1, ..., z_{T-1}."""
    cell = nn.LSTMCell(D, H)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in prior.lstm.state_dict().items()})
    state = (torch.zeros(len(z), H), torch.zeros(len(z), H))
    previous, statistics = torch.zeros_like(z[:, 0]), []
    for t in range(z.shape[1]):
        state = cell(previous, state)
        statistics.append(state[0] @ prior.head.weight.T + prior.head.bias)
        previous = z[:, t]
    mean, log_scale = torch.stack(statistics, 1).detach().chunk(2, dim=-1)
    return Normal(mean, log_scale.exp())


def test_log_prob_is_the_chain_rule(prior: PriorOfLSTM, generator: torch.Generator) -> None:
    z = torch.randn(B, T, D, generator=generator)
    torch.testing.assert_close(prior.log_prob(z), by_hand(prior, z).log_prob(z), rtol=1e-5, atol=1e-5)


def test_a_step_is_conditioned_on_those_before_it_alone(prior: PriorOfLSTM, generator: torch.Generator) -> None:
    z = torch.randn(1, T, D, generator=generator)
    for t in range(T):
        changed = z.clone()
        changed[:, t] += 1
        differs = (prior(changed).mean != prior(z).mean).any(-1)[0]
        assert differs.tolist() == [step > t for step in range(T)]


def test_the_expected_kl_is_the_kl(prior: PriorOfLSTM, posterior: DiagonalGaussian) -> None:
    """E_q sum_t KL(q(z_t) || p(z_t | z_{<t})) = E_q [ln q(z) - ln p(z)], by 20,000 draws, to four standard errors."""
    draws = 20_000
    q = Normal(posterior.mean[:1], posterior.scale[:1])
    torch.manual_seed(1)
    z = q.sample((draws,)).squeeze(1)
    rate = prior.kl(
        DiagonalGaussian(*(x[:1].expand(draws, -1, -1) for x in (posterior.mean, posterior.log_scale))), latents=z
    )
    log_ratio = q.log_prob(z) - by_hand(prior, z).log_prob(z)
    gap = (rate - log_ratio).sum((1, 2)).double()
    error = gap.std().item() / math.sqrt(draws)
    assert gap.mean().item() == pytest.approx(0, abs=4 * error)
    assert log_ratio.sum((1, 2)).mean().item() > 50 * error, "so many draws tell the KL from nothing"
    assert rate.min().item() >= -1e-6, "each term is itself a KL"


def gradients(prior: PriorOfLSTM, generator: torch.Generator) -> tuple[Tensor | None, Tensor | None]:
    """Of the rate by an encoder's statistics, and by the samples alone."""
    statistics = torch.randn(B, T, 2 * D, generator=generator, requires_grad=True)
    posterior = DiagonalGaussian(*statistics.chunk(2, dim=-1))
    latents = posterior.sample(generator)
    latents.retain_grad()
    prior.kl(posterior, latents=latents).sum().backward()
    for name, weight in prior.named_parameters():
        assert weight.grad is not None, name
        assert float(weight.grad.abs().max()) > 0, name
    return statistics.grad, latents.grad


def test_the_auxiliary_prior_trains_and_nothing_else_does(generator: torch.Generator) -> None:
    assert gradients(large(build("auxiliary")), generator) == (None, None)


def test_the_lstm_prior_trains_the_encoder_too(generator: torch.Generator) -> None:
    """Through the posterior of every step, and through every sample that later steps are conditioned on."""
    by_statistics, by_latents = gradients(large(build("lstm")), generator)
    assert by_statistics is not None
    assert by_latents is not None
    assert by_statistics.ne(0).all()
    assert by_latents[:, :-1].ne(0).all()
    assert by_latents[:, -1].eq(0).all()


def test_the_gradient_is_that_of_the_kl(posterior: DiagonalGaussian) -> None:
    """By the means, on average over 20,000 draws, that of ln q(z) - ln p(z) on the same; to five standard errors."""
    prior, draws = large(build("lstm")), 20_000
    noise = torch.randn(draws, T, D, generator=torch.Generator().manual_seed(2))

    def gradient(by_samples: bool) -> Tensor:
        mean = posterior.mean[:1].expand(draws, -1, -1).clone().requires_grad_()
        q = DiagonalGaussian(mean, posterior.log_scale[:1].expand(draws, -1, -1))
        z = q.sample(noise=noise)
        (q.log_prob(z) - prior.log_prob(z) if by_samples else prior.kl(q, latents=z)).sum().backward()
        assert mean.grad is not None
        return mean.grad.double()

    exact, sampled = gradient(by_samples=False), gradient(by_samples=True)
    gap = exact - sampled
    error = gap.std(0) / math.sqrt(draws)
    assert (gap.mean(0).abs() < 5 * error).all()
    assert (exact.mean(0).abs() > 10 * error).any(), "so many draws tell the gradient from nothing"


def test_the_two_have_one_checkpoint_layout(tmp_path: Path) -> None:
    """The auxiliary prior's names, which published checkpoints have."""
    names = {f"lstm.{part}_{side}_l0" for part in ("weight", "bias") for side in ("ih", "hh")}
    names |= {"head.weight", "head.bias"}
    assert build("lstm").state_dict().keys() == build("auxiliary").state_dict().keys() == names
    build("auxiliary").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "delta_vae_auxiliary_prior"


def test_the_auxiliary_prior_is_no_prior_to_train_with() -> None:
    assert not isinstance(build("auxiliary"), LSTMPrior)
    assert not hasattr(AuxiliaryPrior, "posterior")


def test_masked_steps_count_nothing(prior: PriorOfLSTM, posterior: DiagonalGaussian) -> None:
    lengths = torch.tensor([5, 2, 0])
    mask = lengths_to_mask(lengths)
    z = posterior.mean
    kl, log_prob = prior.kl(posterior, mask, z), prior.log_prob(z, mask)
    for row, length in enumerate(lengths.tolist()):
        alone = DiagonalGaussian(posterior.mean[row : row + 1, :length], posterior.log_scale[row : row + 1, :length])
        if length:
            torch.testing.assert_close(kl[row : row + 1, :length], prior.kl(alone, latents=z[row : row + 1, :length]))
            torch.testing.assert_close(log_prob[row : row + 1, :length], prior.log_prob(z[row : row + 1, :length]))
        assert kl[row, length:].eq(0).all()
        assert log_prob[row, length:].eq(0).all()


def test_completion_keeps_what_is_given_and_draws_the_rest_from_the_forward_law(
    prior: PriorOfLSTM, generator: torch.Generator
) -> None:
    """What is drawn, standardised by hand given all steps before it, is white. Five standard errors."""
    draws = 20_000
    given = torch.randn(draws, T, D, generator=generator)
    lengths = torch.tensor([0, 1, 3, 5]).repeat_interleave(draws // 4)
    mask = lengths_to_mask(lengths, T)
    z = prior.complete(given, mask, generator)
    torch.testing.assert_close(z[mask], given[mask], rtol=0, atol=0)
    p = by_hand(prior, z)
    white = ((z - p.mean) / p.stddev).double()
    for length in (0, 1, 3):
        drawn = white[lengths == length, length:].flatten(1)
        tolerance = 5 * math.sqrt(2 / len(drawn))
        size = drawn.shape[1]
        torch.testing.assert_close(drawn.mean(0), torch.zeros(size).double(), rtol=0, atol=tolerance)
        torch.testing.assert_close(drawn.T @ drawn / len(drawn), torch.eye(size).double(), rtol=0, atol=tolerance)


def test_samples_follow_the_forward_law(prior: PriorOfLSTM, generator: torch.Generator) -> None:
    draws = 20_000
    z = prior.sample(draws, T, generator)
    assert z.shape == (draws, T, D)
    p = by_hand(prior, z)
    white = ((z - p.mean) / p.stddev).flatten(1)
    tolerance = 5 * math.sqrt(2 / draws)
    torch.testing.assert_close(white.mean(0), torch.zeros(T * D), rtol=0, atol=tolerance)
    torch.testing.assert_close(white.T @ white / draws, torch.eye(T * D), rtol=0, atol=tolerance)


def test_it_starts_near_the_unit_normal(kind: str, generator: torch.Generator) -> None:
    p = build(kind, hidden_size=128)(torch.randn(B, T, D, generator=generator))
    assert float(p.mean.detach().abs().max()) < 0.2
    assert float(p.log_scale.detach().abs().max()) < 0.2


def test_fitted_to_a_slow_process_it_takes_back_what_the_training_prior_charges(
    kind: str, generator: torch.Generator
) -> None:
    """On draws of an AR(1) process the negative log-likelihood falls from that of N(0, 1) to near the entropy."""
    alpha, steps = 0.9, 8
    t = torch.arange(steps)
    root = torch.linalg.cholesky(alpha ** (t[:, None] - t).abs().float())
    prior = build(kind, latent_dim=1, hidden_size=16)
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
    for _ in range(150):
        z = (torch.randn(128, steps, generator=generator) @ root.T)[..., None]
        loss = -prior.log_prob(z).sum((1, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = (torch.randn(4000, steps, generator=generator) @ root.T)[..., None]
    nll = -prior.log_prob(z).sum((1, 2)).mean().item()
    independent = 0.5 * steps * math.log(2 * math.pi * math.e)
    entropy = independent + 0.5 * (steps - 1) * math.log1p(-(alpha**2))
    assert entropy - 0.2 < nll < entropy + 0.25 * (independent - entropy)


@pytest.mark.gpu
@pytest.mark.parametrize("source", [None, torch.Generator()], ids=["no generator", "generator on the CPU"])
def test_samples_are_drawn_where_the_weights_are(prior: PriorOfLSTM, source: torch.Generator | None) -> None:
    nn.Module.to(prior, "cuda")
    assert prior.sample(B, T, source).device.type == "cuda"


@pytest.mark.parametrize("wrong", [{"latent_dim": 0}, {"hidden_size": 0}], ids=str)
@pytest.mark.parametrize("config", [LSTMPriorConfig, AuxiliaryPriorConfig])
def test_a_wrong_config_is_refused(config: type[LSTMPriorConfig], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{config.__name__}: \w+=0: must be at least 1"):
        config(**wrong)
