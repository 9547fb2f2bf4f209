"""From a rate to the alpha that commits it, and what is said where that alpha is a bad idea."""

import math
import re
import warnings

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from delta_vae_core import bits_to_nats
from delta_vae_priors import AR1PriorConfig, ar1_committed_rate, solve_alpha

deterministic = settings(derandomize=True, deadline=None, max_examples=300)


@deterministic
@given(rate=st.floats(1e-9, 100.0), steps=st.integers(2, 1024), latent_dim=st.integers(1, 64))
def test_the_alpha_commits_the_rate(rate: float, steps: int, latent_dim: int) -> None:
    """Rate -> alpha -> rate, wherever alpha is not so near 1 that it is advised against."""
    assume(ar1_committed_rate([0.995] * latent_dim, steps) > rate)
    alpha = solve_alpha(rate, steps, latent_dim)
    assert 0 < alpha < 1
    # By hand, T - 2 times 1/2 ln(1 + a^2) and -1/2 ln(1 - a^2).
    by_hand = latent_dim * ((steps - 2) * 0.5 * math.log1p(alpha**2) - 0.5 * math.log1p(-(alpha**2)))
    assert by_hand == pytest.approx(rate, rel=1e-9)


@deterministic
@given(alpha=st.floats(1e-4, 0.99), steps=st.integers(2, 1024), latent_dim=st.integers(1, 64))
def test_the_rate_of_an_alpha_gives_it_back(alpha: float, steps: int, latent_dim: int) -> None:
    rate = ar1_committed_rate([alpha] * latent_dim, steps)
    assert solve_alpha(rate, steps, latent_dim) == pytest.approx(alpha, rel=1e-9)


@pytest.mark.parametrize(("unit", "nats"), [("bits", 8 * math.log(2)), ("nats", 8.0)])
def test_a_config_asks_for_a_rate_in_either_unit(unit: str, nats: float) -> None:
    config = AR1PriorConfig.from_committed_rate(**{unit: 8.0}, steps=16, latent_dim=4)
    assert len(set(config.alphas)) == 1
    assert ar1_committed_rate(config.alphas, 16) == pytest.approx(nats, rel=1e-12)


@pytest.mark.parametrize("units", [{}, {"bits": 1.0, "nats": 1.0}])
def test_exactly_one_unit(units: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one of the two units"):
        AR1PriorConfig.from_committed_rate(**units, steps=4, latent_dim=2)


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_no_rate_is_an_ordinary_vae(steps: int) -> None:
    assert solve_alpha(0.0, steps, 3) == 0.0


def test_the_paper_s_example_of_a_bad_idea() -> None:
    """40 bits from 4 steps of 2 dimensions: 1/2 ln(1 / (1 - a^2)) would have to bring nearly all of it."""
    with pytest.raises(
        ValueError,
        match=r"committed_rate=40 bits \(27\.73 nats\) needs alpha=0\.9999999999982 with 4 steps and 2 dimensions; "
        r"use at least 16 dimensions or 42 steps",
    ):
        AR1PriorConfig.from_committed_rate(bits=40, steps=4, latent_dim=2)


def test_an_alpha_near_one_is_warned_of() -> None:
    rate = ar1_committed_rate([0.998] * 3, 10)
    with pytest.warns(UserWarning, match=r"needs alpha=0\.9980 with 10 steps and 3 dimensions; use at least"):
        assert solve_alpha(rate, 10, 3) == pytest.approx(0.998)


@pytest.mark.parametrize(
    ("rate", "steps", "latent_dim", "message"),
    [
        (3.0, 1, 4, "steps=1: a single latent step commits nothing; use at least 2 steps"),
        (3.0, 0, 4, "steps=0"),
        (-2.0, 8, 4, r"-2\.0 nats: ask for a finite rate of at least 0"),
        (math.nan, 8, 4, "nan nats"),
        (math.inf, 8, 4, "inf nats"),
        (3.0, 8, 0, "latent_dim=0: a committed rate needs at least one latent dimension"),
    ],
)
def test_what_cannot_be_committed_is_refused(rate: float, steps: int, latent_dim: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_alpha(rate, steps, latent_dim)


@deterministic
@given(bits=st.floats(1.0, 1e5), steps=st.integers(2, 64), latent_dim=st.integers(1, 16))
def test_the_remedy_is_true(bits: float, steps: int, latent_dim: int) -> None:
    """The suggested dimensions, or the suggested steps, bring alpha down to 0.95; one fewer would not."""
    rate = bits_to_nats(bits)
    assume(ar1_committed_rate([0.996] * latent_dim, steps) < rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, UserWarning), match="needs alpha") as said:
            solve_alpha(rate, steps, latent_dim)
    remedy = re.search(r"at least (\d+) dimensions or (\d+) steps \(alpha=0\.95\)", str(said.value))
    assert remedy is not None
    more_dims, more_steps = map(int, remedy.groups())
    assert more_dims > latent_dim
    assert more_steps > steps
    assert solve_alpha(rate, steps, more_dims) <= 0.95 + 1e-12
    assert solve_alpha(rate, more_steps, latent_dim) <= 0.95 + 1e-12
    assert ar1_committed_rate([0.95] * (more_dims - 1), steps) < rate
    assert ar1_committed_rate([0.95] * latent_dim, more_steps - 1) < rate
