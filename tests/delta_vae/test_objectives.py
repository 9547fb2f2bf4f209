"""Objectives against hand-computed values."""

import pytest
import torch

from delta_vae.objectives import beta_elbo, cyclical_annealing, free_bits, linear_annealing, negative_elbo

RATE, DISTORTION = torch.tensor([1.0, 4.0]), torch.tensor([10.0, 20.0])
KL = torch.tensor([[[0.1, 0.9], [0.5, 0.0]], [[2.0, 0.0], [0.0, 0.0]]])
MASK = torch.tensor([[True, True], [True, False]])


def test_negative_elbo_and_beta() -> None:
    assert negative_elbo(RATE, DISTORTION).tolist() == [11.0, 24.0]
    assert beta_elbo(RATE, DISTORTION, 0.5).tolist() == [10.5, 22.0]


def test_free_bits_by_dimension_and_by_step() -> None:
    per_dimension = free_bits(KL, DISTORTION, 0.3, "dimension", MASK)
    torch.testing.assert_close(per_dimension, DISTORTION + torch.tensor([0.3 + 0.9 + 0.5 + 0.3, 2.0 + 0.3]))
    per_step = free_bits(KL, DISTORTION, 0.8, "step", MASK)
    torch.testing.assert_close(per_step, DISTORTION + torch.tensor([1.0 + 0.8, 2.0]))
    torch.testing.assert_close(free_bits(KL, DISTORTION, 0.0, "step"), negative_elbo(KL.sum((1, 2)), DISTORTION))


def test_free_bits_leave_no_gradient_below_the_floor() -> None:
    kl = KL.clone().requires_grad_()
    free_bits(kl, DISTORTION, 0.3, "dimension", MASK).sum().backward()
    assert kl.grad.tolist() == [[[0, 1], [1, 0]], [[1, 0], [0, 0]]]


def test_annealing() -> None:
    assert [linear_annealing(step, 4) for step in (0, 1, 4, 9)] == [0.0, 0.25, 1.0, 1.0]
    assert linear_annealing(3, 0) == 1.0
    # Two cycles of 10 steps, up over the first half of each.
    weights = [cyclical_annealing(step, 20, cycles=2, ramp=0.5) for step in (0, 1, 5, 9, 10, 11, 19, 20, 50)]
    assert weights == pytest.approx([0, 0.2, 1, 1, 0, 0.2, 1, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-0.1, "step"), r"floor_nats=-0.1: free bits need"), ((0.1, "token"), r"per='token': apply free bits per")],
)
def test_wrong_free_bits_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        free_bits(KL, DISTORTION, *arguments)
