"""What holds for every prior: generators, precision, saving and loading."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from delta_vae_core import DiagonalGaussian, lengths_to_mask
from delta_vae_priors import (
    AR1Prior,
    AR1PriorConfig,
    AuxiliaryPrior,
    AuxiliaryPriorConfig,
    IndependentDeltaPrior,
    IndependentDeltaPriorConfig,
    LSTMPrior,
    LSTMPriorConfig,
    StandardNormalPrior,
    StandardNormalPriorConfig,
)

B, T, D = 3, 6, 2

ClosedFormPrior = AR1Prior | StandardNormalPrior
TrainingPrior = ClosedFormPrior | LSTMPrior
AnyPrior = TrainingPrior | AuxiliaryPrior
CLOSED_FORM_PRIORS: dict[str, Callable[[], ClosedFormPrior]] = {
    "ar1": lambda: AR1Prior(AR1PriorConfig(alpha=[0.9, 1 - 1e-4])),
    "independent delta": lambda: IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=D, delta=0.08)),
    "standard normal": lambda: StandardNormalPrior(StandardNormalPriorConfig(latent_dim=D)),
}
LSTM_PRIORS: dict[str, Callable[[], AnyPrior]] = {
    "lstm": lambda: LSTMPrior(LSTMPriorConfig(latent_dim=D, hidden_size=5)).eval(),
    "auxiliary": lambda: AuxiliaryPrior(AuxiliaryPriorConfig(latent_dim=D, hidden_size=5)).eval(),
}
TRAINING_PRIORS = CLOSED_FORM_PRIORS | {"lstm": LSTM_PRIORS["lstm"]}
ALL_PRIORS = CLOSED_FORM_PRIORS | LSTM_PRIORS
each_prior = pytest.mark.parametrize("build", ALL_PRIORS.values(), ids=ALL_PRIORS)
each_closed_form_prior = pytest.mark.parametrize("build", CLOSED_FORM_PRIORS.values(), ids=CLOSED_FORM_PRIORS)
each_lstm_prior = pytest.mark.parametrize("build", LSTM_PRIORS.values(), ids=LSTM_PRIORS)
each_training_prior = pytest.mark.parametrize("build", TRAINING_PRIORS.values(), ids=TRAINING_PRIORS)


@pytest.fixture
def z() -> Tensor:
    return torch.randn(B, T, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask() -> Tensor:
    return lengths_to_mask(torch.tensor([6, 3, 1]))


@pytest.fixture
def posterior() -> DiagonalGaussian:
    return DiagonalGaussian(*torch.randn(2, B, T, D, generator=torch.Generator().manual_seed(1)))


def answers(prior: AnyPrior, z: Tensor, posterior: DiagonalGaussian, mask: Tensor) -> list[Tensor]:
    """Everything that a prior is asked for."""
    found = [prior.kl(posterior, mask, z), prior.log_prob(z, mask)]
    found += [prior.complete(z, mask, torch.Generator().manual_seed(2)), prior.sample(2, 3, torch.Generator())]
    if not isinstance(prior, AuxiliaryPrior):
        q = prior.posterior(torch.cat((z, z), -1), mask)
        found += [prior.committed_rate(mask.sum(1)), q.mean, q.log_scale]
    return found


def assert_identical(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@each_prior
def test_shapes_and_units_of_the_answers(
    build: Callable[[], AnyPrior], z: Tensor, posterior: DiagonalGaussian, mask: Tensor
) -> None:
    kl, log_prob, completed, sample, *_ = answers(build(), z, posterior, mask)
    assert kl.shape == log_prob.shape == completed.shape == (B, T, D)
    assert sample.shape == (2, 3, D)


@each_prior
def test_a_generator_decides_and_the_global_state_is_untouched(
    build: Callable[[], AnyPrior], z: Tensor, mask: Tensor
) -> None:
    prior = build()
    before = torch.get_rng_state()
    draws = [
        draw(torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
        for draw in (lambda g: prior.sample(B, T, g), lambda g: prior.complete(z, mask, g))
    ]
    assert torch.equal(torch.get_rng_state(), before)
    assert_identical(draws[0:2], draws[2:4])
    assert not torch.equal(draws[0], draws[4])
    assert not torch.equal(draws[1], draws[5])


@each_prior
def test_without_a_generator_the_global_seed_decides(build: Callable[[], AnyPrior]) -> None:
    prior = build()
    torch.manual_seed(3)
    first = prior.sample(B, T)
    assert not torch.equal(prior.sample(B, T), first)
    torch.manual_seed(3)
    assert torch.equal(prior.sample(B, T), first)


@each_closed_form_prior
def test_no_cast_of_the_model_reaches_its_arithmetic(
    build: Callable[[], ClosedFormPrior], z: Tensor, posterior: DiagonalGaussian, mask: Tensor
) -> None:
    prior = build()
    exact = answers(prior, z, posterior, mask)
    nn.ModuleDict({"prior": prior}).to(torch.bfloat16)
    assert_identical(answers(prior, z, posterior, mask), exact)


@each_prior
def test_autocast_does_not_reach_its_arithmetic(
    build: Callable[[], AnyPrior], z: Tensor, posterior: DiagonalGaussian, mask: Tensor
) -> None:
    prior = build()
    exact = answers(prior, z, posterior, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_identical(answers(prior, z, posterior, mask), exact)


@each_prior
def test_bfloat16_latents_and_posteriors_are_answered_in_float32(
    build: Callable[[], AnyPrior], z: Tensor, posterior: DiagonalGaussian, mask: Tensor
) -> None:
    """And equal the answers to the same values given in float32."""
    prior = build()
    half = DiagonalGaussian(posterior.mean.bfloat16(), posterior.log_scale.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = answers(prior, z.bfloat16(), half, mask)
    full = DiagonalGaussian(half.mean.float(), half.log_scale.float())
    assert all(answer.dtype in (torch.float32, torch.float64) for answer in found)
    assert_identical(found, answers(prior, z.bfloat16().float(), full, mask))


@each_lstm_prior
def test_an_lstm_in_bfloat16_answers_in_float32(
    build: Callable[[], AnyPrior], z: Tensor, posterior: DiagonalGaussian, mask: Tensor
) -> None:
    """Its weights are cast with the model; densities and KL are taken in float32 of what the LSTM says."""
    torch.manual_seed(0)
    prior: Any = build()
    exact = answers(prior, z, posterior, mask)
    nn.ModuleDict({"prior": prior}).to(torch.bfloat16)
    assert prior(z).mean.dtype == prior(z).log_scale.dtype == torch.float32
    for found, expected in zip(answers(prior, z, posterior, mask), exact, strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@each_prior
def test_saved_and_loaded_it_answers_the_same(
    build: Callable[[], AnyPrior], z: Tensor, posterior: DiagonalGaussian, mask: Tensor, tmp_path: Path
) -> None:
    prior = build()
    prior.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is type(prior)
    assert not loaded.training
    assert_identical(answers(loaded, z, posterior, mask), answers(prior, z, posterior, mask))
    assert_identical(
        answers(type(prior).from_pretrained(tmp_path), z, posterior, mask), answers(prior, z, posterior, mask)
    )


@each_closed_form_prior
def test_a_prior_without_weights_is_its_config(build: Callable[[], ClosedFormPrior], tmp_path: Path) -> None:
    prior = build()
    prior.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == prior.config.model_type
    assert AutoConfig.from_pretrained(tmp_path).to_diff_dict() == prior.config.to_diff_dict()
    assert not prior.state_dict()


@each_prior
def test_one_process_of_many_saves(build: Callable[[], AnyPrior], tmp_path: Path) -> None:
    build().save_pretrained(tmp_path / "prior", is_main_process=False)
    assert not list(tmp_path.rglob("config.json"))


def test_a_loaded_config_can_be_overridden(tmp_path: Path) -> None:
    AR1Prior(AR1PriorConfig(alpha=[0.2, 0.4])).save_pretrained(tmp_path)
    assert AR1Prior.from_pretrained(tmp_path, alpha=[0.5, 0.6]).config.alpha == [0.5, 0.6]
    assert AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16).config.alpha == [0.2, 0.4]


@each_training_prior
def test_inference_first_and_training_later(build: Callable[[], TrainingPrior], mask: Tensor) -> None:
    """Nothing that inference mode made may be kept for the backward pass."""
    prior = build()
    statistics = torch.zeros(B, T, 2 * D, requires_grad=True)

    def kl(statistics: Tensor) -> Tensor:
        posterior = prior.posterior(statistics, mask)
        return prior.kl(posterior, mask, posterior.sample(torch.Generator().manual_seed(4)))

    with torch.inference_mode():
        kl(statistics)
        prior.sample(B, T)
    kl(statistics + 0.1).sum().backward()
    assert statistics.grad is not None
    assert statistics.grad[mask].abs().sum() > 0
    assert statistics.grad[~mask].eq(0).all()


@each_closed_form_prior
def test_a_closed_form_ignores_the_samples(
    build: Callable[[], ClosedFormPrior], z: Tensor, posterior: DiagonalGaussian, mask: Tensor
) -> None:
    prior = build()
    torch.testing.assert_close(prior.kl(posterior, mask, z), prior.kl(posterior, mask), rtol=0, atol=0)


@each_lstm_prior
def test_an_lstm_without_samples_is_refused(
    build: Callable[[], AnyPrior], posterior: DiagonalGaussian, mask: Tensor
) -> None:
    with pytest.raises(
        ValueError, match=r"latents=None: .* at samples of the posterior; give kl\(.*latents\)"
    ) as error:
        build().kl(posterior, mask)
    assert "\n" not in str(error.value)


@each_training_prior
def test_statistics_of_another_width_are_refused(build: Callable[[], TrainingPrior]) -> None:
    with pytest.raises(ValueError, match="statistics of width 6: a prior of latent_dim=2 needs 4; give"):
        build().posterior(torch.zeros(B, T, 6))


@each_training_prior
def test_committed_rate_takes_one_length_or_many(build: Callable[[], TrainingPrior]) -> None:
    prior = build()
    one, many = prior.committed_rate(T), prior.committed_rate(torch.tensor([T, 0, T]))
    assert one.shape == ()
    assert one.dtype == many.dtype == torch.float64
    assert many.tolist() == [float(one), 0.0, float(one)]
