"""Standard errors against closed forms and against the spread over repeated data sets."""

import math

import pytest
import torch

from delta_vae_lab.estimates import Estimate, mean, perplexity, ratio


def test_mean_of_four_values_by_hand() -> None:
    estimate = mean(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert estimate.value == 2.5
    assert estimate.stderr == pytest.approx(math.sqrt(5 / 3 / 4))


def test_ratio_is_of_the_sums_not_the_mean_of_the_ratios() -> None:
    estimate = ratio(torch.tensor([2.0, 30.0]), torch.tensor([1.0, 10.0]))
    assert estimate.value == pytest.approx(32 / 11)
    residual = 2 - 32 / 11
    assert estimate.stderr == pytest.approx(math.sqrt(2 * residual**2) / (math.sqrt(2) * 5.5))


def test_a_constant_ratio_has_no_error_however_the_lengths_vary() -> None:
    tokens = torch.tensor([3, 9, 27])
    estimate = ratio(2.5 * tokens, tokens)
    assert estimate.value == 2.5
    assert estimate.stderr == pytest.approx(0, abs=1e-12)


def test_ratio_and_perplexity_errors_are_the_spread_over_data_sets() -> None:
    """4,000 data sets of 50 sentences: the reported error is the standard deviation seen, within 5 %."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 40, (4000, 50), generator=generator)
    nats = 3.0 * tokens + torch.randn(4000, 50, generator=generator) * 2 * tokens.sqrt()
    estimates = [ratio(y, n) for y, n in zip(nats, tokens, strict=True)]
    perplexities = [perplexity(estimate) for estimate in estimates]
    for group in (estimates, perplexities):
        seen = torch.tensor([estimate.value for estimate in group]).std()
        reported = torch.tensor([estimate.stderr for estimate in group]).mean()
        assert float(reported) == pytest.approx(float(seen), rel=0.05)


def test_sums_are_in_float64() -> None:
    values = torch.full((100_000,), 0.1) + torch.arange(100_000) % 2 * 1e-3
    assert mean(values).value == pytest.approx(float(values.double().mean()), rel=1e-14)


def test_an_error_needs_two_sequences() -> None:
    with pytest.raises(ValueError, match="1 sequences.*at least 2"):
        mean(torch.ones(1))


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(3.2875, 0.1012), "3.29 ± 0.10"),
        (Estimate(78.04, 0.94), "78.04 ± 0.94"),
        (Estimate(0.0059, 0.00312), "0.0059 ± 0.0031"),
        (Estimate(204.7, 23.4), "205 ± 23"),
        (Estimate(0.0, 0.0), "0.0000 ± 0.0000"),
        (Estimate(12345.6, 7.8), "12,345.6 ± 7.8"),
    ],
)
def test_text_shows_two_digits_of_the_error(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text


def test_named_as_results_json_has_it() -> None:
    assert Estimate(1.0, 0.5).named("rate_nats") == {"rate_nats": 1.0, "rate_nats_stderr": 0.5}
