"""What information costs: closed forms and optima against other ways to them, and models that are trained to buy it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from delta_vae_core import DiagonalGaussian
from delta_vae_lab.experiments.constant_signal import (
    NOISE,
    SmallVAEs,
    Training,
    draw,
    measure,
    signal_information,
    threshold,
    train,
)
from delta_vae_lab.experiments.price_of_information import SCALES, figures, render, run
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.slack import (
    ar1_precision,
    cheapest_signal_price,
    constant_signal_price,
    least_slack,
    slack_nats,
)
from delta_vae_priors import AR1Prior, AR1PriorConfig, StandardNormalPrior, StandardNormalPriorConfig


def covariance(alpha: float, steps: int) -> Tensor:
    t = torch.arange(steps, dtype=torch.float64)
    return alpha ** (t[:, None] - t).abs()


def least_kl(alpha: float, steps: int) -> float:
    """1/2 (sum_t ln L_tt - ln det L)."""
    precision = covariance(alpha, steps).inverse()
    return float(0.5 * (precision.diagonal().log().sum() - precision.logdet()))


def slack_and_information(alpha: float, gain: Tensor, scale: Tensor) -> tuple[float, float]:
    """Of z | y ~ N(gain y, diag scale^2), y standard normal: E KL less the floor, and I(y; z), in nats."""
    steps, signals = gain.shape
    prior = MultivariateNormal(torch.zeros(steps, dtype=torch.float64), covariance(alpha, steps))
    kl = [
        kl_divergence(MultivariateNormal(sign * math.sqrt(signals) * gain[:, i], scale_tril=scale.diag()), prior)
        for i in range(signals)
        for sign in (-1, 1)  # a quadratic function of y has its mean over these points
    ]
    marginal = gain @ gain.T + scale.square().diag()
    information = 0.5 * (marginal.logdet() - 2 * scale.log().sum())
    return float(torch.stack(kl).mean()) - least_kl(alpha, steps), float(information)


def floor_scale(alpha: float, steps: int) -> Tensor:
    return covariance(alpha, steps).inverse().diagonal().rsqrt()


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.9, 0.99])
@pytest.mark.parametrize("steps", [2, 5, 32])
def test_the_price_of_a_constant_signal(alpha: float, steps: int) -> None:
    """At any c, slack = price (e^2I - 1) / 2."""
    ones = torch.ones(steps, 1, dtype=torch.float64)
    for c in (1e-3, 0.5):
        slack, information = slack_and_information(alpha, c * ones, floor_scale(alpha, steps))
        price = constant_signal_price(alpha, steps)
        assert slack == pytest.approx(price * math.expm1(2 * information) / 2, rel=1e-5)


@pytest.mark.parametrize(("alpha", "limit"), [(0.0, 1.0), (0.4, 0.31), (0.9, 0.0055)])
def test_of_many_steps_the_price_is_that_of_the_paper_on_prices(alpha: float, limit: float) -> None:
    """(1 - a)^2 / (1 + a^2): 1, .31, .0055; the ends count less and less."""
    assert constant_signal_price(alpha, 10**6) == pytest.approx((1 - alpha) ** 2 / (1 + alpha**2), rel=1e-3)
    assert constant_signal_price(alpha, 10**6) == pytest.approx(limit, rel=0.01)
    assert cheapest_signal_price(alpha, 1000) == pytest.approx(limit, rel=0.01)
    assert constant_signal_price(alpha, 32) >= cheapest_signal_price(alpha, 32) - 1e-12


def test_the_cheapest_signal_is_no_dearer_than_any_other() -> None:
    alpha, steps = 0.8, 6
    random = torch.randn(200, steps, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    prices = []
    for w in random:
        slack, information = slack_and_information(alpha, 1e-3 * w, floor_scale(alpha, steps))
        prices.append(slack / information)
    cheapest = cheapest_signal_price(alpha, steps)
    assert min(prices) >= cheapest - 1e-6
    assert least_slack(alpha, steps, [1e-4], signals=1)[0] == pytest.approx(1e-4 * cheapest, rel=1e-3)


def test_without_correlation_a_nat_costs_a_nat() -> None:
    for signals in (1, 5):
        assert least_slack(0.0, 5, [0.1, 1.0, 4.0], signals) == pytest.approx([0.1, 1.0, 4.0], rel=1e-6)


@pytest.mark.parametrize("signals", [1, 4])
def test_no_posterior_is_below_the_least_slack(signals: int) -> None:
    """Gains and scales at random, near the floor's and far from it."""
    alpha, steps, generator = 0.7, 4, torch.Generator().manual_seed(signals)
    found = []
    for spread in (0.05, 0.3, 1.0):
        for _ in range(6):
            gain = spread * torch.randn(steps, signals, dtype=torch.float64, generator=generator)
            noise = spread * torch.randn(steps, dtype=torch.float64, generator=generator)
            found.append(slack_and_information(alpha, gain, floor_scale(alpha, steps) * noise.exp()))
    found.sort(key=lambda one: one[1])
    least = least_slack(alpha, steps, [information for _, information in found], signals)
    for (slack, _), bound in zip(found, least, strict=True):
        assert bound <= slack + 1e-9


def test_the_least_slack_is_reached_by_descent_on_gains_and_scales() -> None:
    """min slack - I / 2 over a full gain and scales lies on the curve, as does the slope there."""
    alpha, steps, price = 0.8, 4, 0.5
    precision = covariance(alpha, steps).inverse()
    x = torch.randn(steps, steps + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (0.3 * x).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def both() -> tuple[Tensor, Tensor]:
        gain, variance = x[:, 1:], (2 * x[:, 0]).exp() / precision.diagonal()
        relative = precision.diagonal() * variance
        slack = 0.5 * ((gain.T @ precision @ gain).trace() + (relative - 1 - relative.log()).sum())
        return slack, 0.5 * ((gain @ gain.T + variance.diag()).logdet() - variance.log().sum())

    def closure() -> float:
        optimizer.zero_grad()
        slack, information = both()
        loss = slack - price * information
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    slack, information = (float(one.detach()) for one in both())
    assert information > 0.5
    on_it, beyond = least_slack(alpha, steps, [information, information + 1e-3], signals=steps)
    assert on_it == pytest.approx(slack, abs=1e-7)
    assert (beyond - on_it) / 1e-3 == pytest.approx(price, rel=1e-2)


def test_slack_never_falls_short_of_information_by_more_than_the_floor() -> None:
    """rate = I(x; z) + KL(q(z) || p(z)) >= I: slack >= I - committed rate, equal where q(z) = p(z)."""
    alpha, steps = 0.6, 5
    nats = [0.5, 2.0, 6.0]
    least = least_slack(alpha, steps, nats, signals=steps)
    assert all(slack >= i - least_kl(alpha, steps) - 1e-9 for slack, i in zip(least, nats, strict=True))
    assert least[-1] == pytest.approx(nats[-1] - least_kl(alpha, steps), abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.99])
def test_slack_is_kl_less_the_floor(alpha: float) -> None:
    steps, generator = 6, torch.Generator().manual_seed(0)
    mean, log_scale = 0.5 * torch.randn(2, 3, steps, 1, dtype=torch.float64, generator=generator)
    prior = MultivariateNormal(torch.zeros(steps, dtype=torch.float64), covariance(alpha, steps))
    posterior = MultivariateNormal(mean[..., 0], torch.diag_embed((2 * log_scale[..., 0]).exp()))
    expected = kl_divergence(posterior, prior) - least_kl(alpha, steps)
    found = slack_nats(DiagonalGaussian(mean, log_scale), AR1Prior(AR1PriorConfig(alpha=[alpha])))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ar1_precision(alpha, steps).inverse(), covariance(alpha, steps))


def test_a_slack_far_smaller_than_the_rate_keeps_its_digits() -> None:
    """mu_t = 1e-4 at the floor's scales under alpha .99: c^2/2 [1 + (T-1)(1-a)/(1+a)] = 6e-9 nats, of a rate of 12."""
    prior = AR1Prior(AR1PriorConfig(alpha=[0.99]))
    statistics = torch.zeros(1, 32, 2)
    statistics[..., 0] = 1e-4
    (found,) = slack_nats(prior.posterior(statistics), prior)
    assert float(found) == pytest.approx(1e-8 / 2 * (1 + 31 * 0.01 / 1.99), rel=1e-5)


def test_what_a_posterior_of_known_information_is_measured_at() -> None:
    """z_t | x ~ N(c m, s_t^2) at the floor's scales: I = 1/2 ln(1 + c^2 sum 1 / s_t^2), all of it about m."""
    alpha, steps, c = 0.9, 8, 0.2
    m = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    scale = floor_scale(alpha, steps).float()
    posterior = DiagonalGaussian((c * m)[:, None].expand(-1, steps), scale.log().expand(3000, -1))
    found = measure(posterior, alpha, m, torch.Generator().manual_seed(1))
    information = 0.5 * math.log1p(c * c * float(scale.pow(-2).sum()))
    slack = constant_signal_price(alpha, steps) * math.expm1(2 * information) / 2
    for name, expected in (
        ("mutual_information_nats", information),
        ("slack_nats", slack),
        ("price", slack / information),
    ):
        assert found[name] == pytest.approx(expected, abs=4 * found[f"{name}_stderr"])
        assert found[f"{name}_stderr"] < 0.04 * expected
    assert found["rate_nats"] == pytest.approx(found["committed_rate_nats"] + found["slack_nats"], abs=1e-5)
    assert found["committed_rate_nats"] == pytest.approx(least_kl(alpha, steps))
    assert signal_information(posterior, m) == pytest.approx(information, rel=0.01)
    assert signal_information(posterior, torch.randn(3000, generator=torch.Generator().manual_seed(2))) < 0.01


def test_the_mean_of_x_saves_most_distortion_a_nat() -> None:
    """Small codes of x save an eigenvalue of its correlations a nat; the threshold takes the largest."""
    steps, variance = 8, NOISE**2
    correlations = (torch.ones(steps, steps) + variance * torch.eye(steps)) / (1 + variance)
    most = float(torch.linalg.eigvalsh(correlations)[-1])
    assert threshold(0.9, steps) == pytest.approx(cheapest_signal_price(0.9, steps) / most, rel=1e-5)
    m, x = draw(20_000, steps, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.corrcoef(x.T), correlations, atol=0.03, rtol=0)
    torch.testing.assert_close((x.mean(1) - m).var(), torch.tensor(variance / steps), atol=0.01, rtol=0)


@pytest.fixture
def models() -> SmallVAEs:
    return SmallVAEs([0.0, 0.9, 0.9], 4, 5, torch.Generator().manual_seed(0))


def test_models_share_nothing(models: SmallVAEs) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    posterior = models.encode(x)
    loss = models.prior.kl(posterior).sum(1) + models.distortion(x, posterior.sample(torch.Generator().manual_seed(2)))
    loss[:, 1].sum().backward()
    for parameter in models.parameters():
        assert parameter.grad is not None
        assert not parameter.grad[[0, 2]].any()
        assert parameter.grad[1].any()


def test_alpha_0_is_the_ordinary_vae(models: SmallVAEs) -> None:
    posterior = models.encode(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)))
    own = DiagonalGaussian(posterior.mean[..., :1], posterior.log_scale[..., :1])
    ordinary = StandardNormalPrior(StandardNormalPriorConfig(latent_dim=1)).kl(own)
    torch.testing.assert_close(models.prior.kl(posterior)[..., :1], ordinary)


def test_an_encoder_and_a_decoder_by_hand(models: SmallVAEs) -> None:
    x, z = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
    statistics = torch.tanh(x @ models.into[1] + models.into_bias[1]) @ models.out[1] + models.out_bias[1]
    mean, log_scale = statistics[:, :4], statistics[:, 4:] + floor_scale(0.9, 4).float().log()
    posterior = models.encode(x)
    torch.testing.assert_close(posterior.mean[..., 1], mean)
    torch.testing.assert_close(posterior.log_scale[..., 1], log_scale)
    likelihood = Normal(z @ models.decoder[1], models.log_scale[1].exp())
    distortion = models.distortion(x, z[..., None].expand(-1, -1, 3))
    torch.testing.assert_close(distortion[:, 1], -likelihood.log_prob(x).sum(1))


def test_models_buy_what_pays_and_no_more() -> None:
    """Below the threshold nothing; at 12 times it a signal, at no less than the least and far less than a nat a nat."""
    alpha, steps = 0.9, 8
    size = Training(latent_steps=steps, hidden=16, batch_size=128, steps=600, learning_rate=0.02)
    trained = train(size, [alpha, alpha], [0.5, 12.0], seed=0)
    m, x = draw(1000, steps, torch.Generator().manual_seed(0))
    with torch.no_grad():
        posterior = trained.encode(x)
    idle, bought = (
        measure(DiagonalGaussian(posterior.mean[..., k], posterior.log_scale[..., k]), alpha, m, torch.Generator())
        for k in (0, 1)
    )
    assert idle["slack_nats"] < 1e-3
    assert abs(idle["mutual_information_nats"]) < 0.03
    information = bought["mutual_information_nats"]
    (least,) = least_slack(alpha, steps, [information], signals=steps)
    assert information > 0.4
    assert bought["signal_information_nats"] > 0.6 * information
    assert least / information - 3 * bought["price_stderr"] < bought["price"] < 2 * least / information < 0.2


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    assert "smoke" in SCALES
    request = Request(scale="smoke", seeds=(0, 1), output=Path())
    found = {"experiment": "price-of-information", "scale": "smoke", "seeds": [0, 1]} | run(request)
    read: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return read


def test_smoke(result: dict[str, Any]) -> None:
    names = [f"alpha-{alpha}-value-{value}" for alpha in ("0", "0.9") for value in ("0.5", "1.5", "12")]
    names.remove("alpha-0-value-12")  # a value of 2.7: white noise would be encoded
    assert [(run["model"], run["seed"]) for run in result["runs"]] == [
        (name, seed) for seed in (0, 1) for name in names
    ]
    for one in result["runs"]:
        heldout = one["heldout"]
        assert heldout["examples"] == 200
        assert heldout["slack_nats"] >= 0
        assert heldout["rate_nats"] == pytest.approx(heldout["committed_rate_nats"] + heldout["slack_nats"], abs=1e-5)
        assert one["value"] == pytest.approx(one["value_over_threshold"] * threshold(one["alpha"], 8))
    for prices in result["curves"]:
        assert (np.diff(prices["any_signals_nats"]) > 0).all()
        assert np.all(np.subtract(prices["one_signal_nats"], prices["any_signals_nats"]) >= -1e-9)
    again = run(Request(scale="smoke", seeds=(1,), output=Path()))["runs"]
    assert json.loads(json.dumps(again)) == [one for one in result["runs"] if one["seed"] == 1]


def test_the_table_has_what_was_measured_beside_what_is_known(result: dict[str, Any]) -> None:
    table = render(result)
    assert "200 held-out examples, 200 training steps, seeds 0, 1" in table
    assert "T = 8, constant" in table
    rows = [line.split() for line in table.splitlines()]
    (price,) = (row for row in rows if row[:2] == ["0.9", "0.00552"])
    both = [one["heldout"]["price"] for one in result["runs"] if one["model"] == "alpha-0.9-value-1.5"]
    assert float(price[4]) == pytest.approx(sum(both) / 2, rel=0.01)
    assert float(price[6]) == pytest.approx(abs(both[0] - both[1]) / 2, rel=0.5), "one digit"


def test_a_single_seed_has_no_errors(result: dict[str, Any]) -> None:
    single = result | {"seeds": [0], "runs": [one for one in result["runs"] if one["seed"] == 0]}
    assert "±" not in render(single)
    figures(single)["slack"].draw_without_rendering()


def test_the_figure_is_drawn_from_the_result_alone(result: dict[str, Any]) -> None:
    (figure,) = figures(result).values()
    figure.draw_without_rendering()
    left, right = figure.axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in (*left.get_lines(), *right.get_lines())}
    np.testing.assert_array_equal(lines["constant signal, T = 8"], result["prices"]["constant_signal"])
    np.testing.assert_array_equal(lines["alpha = 0.9"], result["curves"][1]["any_signals_nats"])
    assert "seeds 0, 1" in str(figure.get_suptitle())
