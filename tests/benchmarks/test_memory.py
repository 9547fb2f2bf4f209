"""Live bytes: of what was made and not freed, views and what is changed in place not twice."""

import torch

from benchmarks.memory import LiveBytes


def test_what_is_alive_is_counted_once() -> None:
    with LiveBytes() as memory:
        a = torch.zeros(1000)
        b = a + 1
        view = b[2:]
        a.add_(view.sum())
        del b
        assert memory.live in {8000, 8004}  # the sum, where it is not freed yet
        del view
        assert memory.live in {4000, 4004}
    assert 8000 <= memory.peak <= 8004


def test_what_the_gradient_needs_is_alive_until_it_is_there() -> None:
    """Of a product of x with itself, n times, each power but the last is kept."""
    x = torch.ones(1000, requires_grad=True)
    with LiveBytes() as memory:
        y = x
        for _ in range(5):
            y = y * x
        assert memory.live == 5 * 4000
        y.sum().backward()
        del y
    assert memory.live == 4000, "the gradient of x"


def test_what_was_there_before_counts_nothing() -> None:
    a = torch.zeros(1000)
    with LiveBytes() as memory:
        view = a.t()
        a.add_(1)
    assert (memory.peak, view.shape) == (0, (1000,))
