"""Every prior on sequences of any length: of no steps, of one, padded, and in a batch of one or none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

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

PRIORS = {
    "ar1": lambda: AR1Prior(AR1PriorConfig(alpha=[0.9, 1 - 1e-7])),
    "independent delta": lambda: IndependentDeltaPrior(IndependentDeltaPriorConfig(latent_dim=2, delta=0.08)),
    "standard normal": lambda: StandardNormalPrior(StandardNormalPriorConfig(latent_dim=2)),
    "lstm": lambda: LSTMPrior(LSTMPriorConfig(latent_dim=2, hidden_size=5)).eval(),
    "auxiliary": lambda: AuxiliaryPrior(AuxiliaryPriorConfig(latent_dim=2, hidden_size=5)).eval(),
}
each_prior = pytest.mark.parametrize("build", PRIORS.values(), ids=PRIORS)


@each_prior
@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.uint8, torch.float32])
@pytest.mark.parametrize("steps", [1, 5])
def test_a_row_of_any_length_is_answered_as_alone(build: Callable, dtype: torch.dtype, steps: int) -> None:
    """Every length from 0 to all, in a mask of any type; alone in a batch of one, without padding or a mask."""
    prior, lengths = build(), torch.arange(steps + 1)
    mask = lengths_to_mask(lengths, steps).to(dtype)
    statistics = torch.randn(len(lengths), steps, 4, generator=torch.Generator().manual_seed(0))
    z = statistics[..., :2]

    def answers(rows: slice, steps: int, mask: Tensor | None) -> list[Tensor]:
        given, own = z[rows, :steps], statistics[rows, :steps]
        posterior = DiagonalGaussian(*own.chunk(2, -1))
        if not isinstance(prior, AuxiliaryPrior):
            posterior = prior.posterior(own, mask)
        return [posterior.mean, posterior.log_scale, prior.kl(posterior, mask, given), prior.log_prob(given, mask)]

    together = answers(slice(None), steps, mask)
    for row, length in enumerate(lengths.tolist()):
        for all_rows, alone in zip(together, answers(slice(row, row + 1), length, None), strict=True):
            torch.testing.assert_close(all_rows[row : row + 1, :length], alone)
        assert all(values[row, length:].eq(0).all() for values in together[2:])
    completed = prior.complete(z, mask, torch.Generator().manual_seed(0))
    assert torch.equal(completed[mask.bool()], z[mask.bool()])
    full = torch.ones_like(mask)
    for masked, bare in zip(answers(slice(None), steps, full), answers(slice(None), steps, None), strict=True):
        assert torch.equal(masked, bare)


@each_prior
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_a_sequence_of_no_steps_has_no_nats(build: Callable, batch: int) -> None:
    prior, z = build(), torch.zeros(batch, 0, 2)
    mask = torch.ones(batch, 0, dtype=torch.bool)
    assert prior.kl(DiagonalGaussian(z, z), mask, z).sum((1, 2)).tolist() == [0.0] * batch
    assert prior.log_prob(z, mask).shape == prior.complete(z, mask).shape == prior.sample(batch, 0).shape == z.shape
    if not isinstance(prior, AuxiliaryPrior):
        assert prior.posterior(torch.zeros(batch, 0, 4), mask).mean.shape == z.shape
        assert prior.committed_rate(mask.sum(1)).tolist() == [0.0] * batch


@each_prior
@pytest.mark.parametrize("row", [[0, 1, 1], [1, 0, 1], [0, 0, 1]])
def test_a_mask_that_is_not_padded_on_the_right_is_refused_by_name(build: Callable, row: list[int]) -> None:
    prior, mask, z = build(), torch.tensor([[1, 1, 1], row]), torch.zeros(2, 3, 2)
    asked = [
        lambda: prior.kl(DiagonalGaussian(z, z), mask, z),
        lambda: prior.log_prob(z, mask),
        lambda: prior.complete(z, mask),
    ]
    for ask in asked:
        with pytest.raises(ValueError, match="mask row 1 has a one after a zero: pad on the right") as error:
            ask()
        assert "\n" not in str(error.value)
