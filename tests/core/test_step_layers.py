"""A linear layer that is laid out for being read once is the layer."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from delta_vae_core import StepLinear

LAYERS = [(384, 96), (96, 384), (128, 128), (513, 7), (3, 300), (1, 1)]


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", LAYERS)
@pytest.mark.parametrize("batch", [1, 2, 17])
def test_it_is_the_layer_in_every_layout(batch: int, sizes: tuple[int, int], bias: bool, threads: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(*sizes, bias=bias)
    x = torch.randn(batch, sizes[0])
    exact = F.linear(x.double(), linear.weight.double(), None if linear.bias is None else linear.bias.double())
    with torch.inference_mode():
        answer = StepLinear.of(linear, batch)(x)
    assert answer.shape == (batch, sizes[1])
    torch.testing.assert_close(answer, exact.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 5])
def test_in_other_precisions_the_weight_is_read_as_it_is(batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(40, 24).to(dtype)
    step, x = StepLinear.of(linear, batch), torch.randn(batch, 40, dtype=dtype)
    assert step.weight is linear.weight
    with torch.inference_mode():
        assert torch.equal(step(x), linear(x))


def test_one_row_is_split_between_threads_and_few_outputs_are_not(threads: int) -> None:
    wide, narrow = StepLinear.of(nn.Linear(8, 768), 1), StepLinear.of(nn.Linear(8, 96), 1)
    assert (wide.parts, narrow.parts) == (threads, 1)
