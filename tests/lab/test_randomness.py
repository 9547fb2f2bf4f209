"""Randomness: a number depends on where it is used, not on what was drawn before it or beside it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_vae_lab.randomness import derive_seed, latent_noise


def mask_of(lengths: list[int], steps: int) -> torch.Tensor:
    return torch.arange(steps) < torch.tensor(lengths)[:, None]


@settings(deadline=None)
@given(st.integers(), st.text(), st.lists(st.integers(), max_size=4))
def test_a_seed_is_one_that_every_generator_takes(seed: int, purpose: str, indices: list[int]) -> None:
    assert 0 <= derive_seed(seed, purpose, *indices) < 2**63
    torch.Generator().manual_seed(derive_seed(seed, purpose, *indices))


def test_a_seed_is_the_same_in_every_process_and_version() -> None:
    assert derive_seed(0, "latents", 1, 2) == 8069648176081687589


def test_seeds_of_different_places_differ() -> None:
    indices: list[list[int]] = [[], [0], [1], [1, 1], [11], [0, 1]]
    seeds = [derive_seed(seed, purpose, *where) for seed in (0, 1) for purpose in ("a", "b") for where in indices]
    assert len(set(seeds)) == 2 * 2 * len(indices)


def test_noise_is_the_rows_own_whatever_the_padding_and_the_batch() -> None:
    together = latent_noise(mask_of([3, 5, 2], 5), latent_dim=4, seed=7, step=9, rows=[0, 1, 2])
    alone = latent_noise(mask_of([2], 8), latent_dim=4, seed=7, step=9, rows=[2])
    assert torch.equal(together[2, :2], alone[0, :2])
    assert torch.equal(latent_noise(mask_of([3, 2], 3), 4, 7, 9, [0, 2])[1, :2], alone[0, :2])


def test_noise_is_zero_where_nothing_counts() -> None:
    noise = latent_noise(mask_of([3, 0], 5), latent_dim=2, seed=0, step=1, rows=[0, 1])
    assert noise.shape == (2, 5, 2)
    assert (noise[0, :3] != 0).all()
    assert (noise[0, 3:] == 0).all()
    assert (noise[1] == 0).all()


def test_noise_differs_between_rows_steps_and_seeds() -> None:
    mask = mask_of([6], 6)
    draws = [latent_noise(mask, 2, seed, step, [row]) for seed in (0, 1) for step in (1, 2) for row in (0, 1)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)


def test_noise_is_standard_normal() -> None:
    """Over 40,000 draws the mean's standard error is 0.005 and the standard deviation's 0.0035; five of each."""
    noise = latent_noise(mask_of([50] * 100, 50), latent_dim=8, seed=0, step=1, rows=range(100))
    assert abs(noise.mean()) < 0.025
    assert abs(noise.std() - 1) < 0.018


def test_the_global_random_state_is_untouched() -> None:
    before = torch.get_rng_state()
    latent_noise(mask_of([3], 3), 2, 0, 1, [0])
    assert torch.equal(before, torch.get_rng_state())
