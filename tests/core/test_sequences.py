"""Right-padded sequences, against plain Python lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from delta_vae_core import check_right_padded, flip, lengths_to_mask

STEPS = 6
deterministic = settings(derandomize=True, deadline=None, max_examples=50)
some_lengths = st.lists(st.integers(0, STEPS), min_size=1, max_size=4)


def mask_of(lengths: list[int]) -> Tensor:
    return torch.tensor([[1] * n + [0] * (STEPS - n) for n in lengths])


def ramp(batch: int, features: tuple[int, ...]) -> Tensor:
    """Values that are all different: (batch, STEPS, *features)."""
    shape = (batch, STEPS, *features)
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


@deterministic
@given(lengths=some_lengths, features=st.sampled_from([(), (3,), (2, 2)]), as_bool=st.booleans())
def test_flip_reverses_each_row_within_its_length(lengths: list[int], features: tuple[int, ...], as_bool: bool) -> None:
    x = ramp(len(lengths), features)
    mask = mask_of(lengths).bool() if as_bool else mask_of(lengths)
    by_hand = [row[:n][::-1] + row[n:] for row, n in zip(x.tolist(), lengths, strict=True)]
    assert flip(x, mask).tolist() == by_hand
    assert flip(flip(x, mask), mask).tolist() == x.tolist()


def test_flip_without_a_mask_reverses_everything() -> None:
    x = ramp(2, (3,))
    assert flip(x).tolist() == [row[::-1] for row in x.tolist()]


def test_flip_passes_gradients_back_to_where_they_came_from() -> None:
    x = torch.zeros(1, STEPS, requires_grad=True)
    (flip(x, mask_of([4])) * torch.arange(1.0, STEPS + 1)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[4.0, 3.0, 2.0, 1.0, 5.0, 6.0]]


@deterministic
@given(lengths=some_lengths)
def test_lengths_and_masks(lengths: list[int]) -> None:
    mask = lengths_to_mask(torch.tensor(lengths), STEPS)
    assert mask.dtype == torch.bool
    assert mask.tolist() == mask_of(lengths).bool().tolist()
    assert torch.equal(lengths_to_mask(torch.tensor(lengths)), mask[:, : max(lengths)])


@deterministic
@given(lengths=some_lengths)
def test_right_padding_is_accepted(lengths: list[int]) -> None:
    check_right_padded(mask_of(lengths))
    check_right_padded(mask_of(lengths).bool())
    check_right_padded(mask_of(lengths)[:, :1])


@pytest.mark.parametrize("row", [[0, 1, 1], [1, 0, 1], [0, 0, 1]])
def test_left_padding_and_holes_are_refused(row: list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"mask row 1 has a one after a zero: pad on the right \(tokenizer\.padding_side"
    ):
        check_right_padded(torch.tensor([[1, 1, 0], row]))
