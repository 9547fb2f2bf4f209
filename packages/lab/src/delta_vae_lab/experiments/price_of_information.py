"""The price of information: nats of slack, rate beyond the committed rate, that a nat of I(x; z) costs.

On paper, and of small VAEs trained on x_t = m + e_t, whose m is constant over time. Each minimises rate + value *
distortion, so that its value, the nats of rate that a nat of distortion is worth, says how much information it buys.
The I(x; z) measured is about all of x: about m and, where the value is high, about the noise e_t as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from delta_vae_core import DiagonalGaussian
from delta_vae_lab.estimates import Estimate, mean
from delta_vae_lab.experiments.constant_signal import NOISE, Training, draw, measure, threshold, train
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.slack import cheapest_signal_price, constant_signal_price, least_slack
from delta_vae_lab.experiments.summaries import Runs, by_model, errors, over_seeds, text_table
from delta_vae_lab.figures import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, STYLE, VERMILION
from delta_vae_lab.randomness import generator
from delta_vae_priors import price_of_information

TITLE = "The price of information: slack by alpha and I(x; z)"
TAKES: tuple[str, ...] = ()
SCALES = ("smoke", "small")

# In multiples of the value from which information pays: at the first none should be bought, at the second a little.
FLOOR, SMALLEST = 0.5, 1.5
# From a value of about 1 even white noise is worth encoding, and I(x; z) outgrows what log N examples can show.
LARGEST_VALUE = 0.5


@dataclass(frozen=True)
class Scale:
    """Alphas, multiples of the threshold, the training of each model and the examples that it is measured by."""

    alphas: tuple[float, ...]
    multiples: tuple[float, ...]
    training: Training
    heldout: int
    curve_points: int


_SCALES = {
    "smoke": Scale(
        alphas=(0.0, 0.9),
        multiples=(FLOOR, SMALLEST, 12.0),
        training=Training(latent_steps=8, hidden=16, batch_size=64, steps=200, learning_rate=0.02),
        heldout=200,
        curve_points=3,
    ),
    "small": Scale(
        alphas=(0.0, 0.4, 0.7, 0.9, 0.95, 0.99),
        multiples=(FLOOR, SMALLEST, 3.0, 6.0, 12.0, 48.0, 192.0),
        training=Training(latent_steps=32, hidden=32, batch_size=128, steps=2000, learning_rate=0.02),
        heldout=2000,
        curve_points=16,
    ),
}


def run(request: Request) -> dict[str, Any]:
    """Prices and curves on paper, and every model trained and measured at every seed."""
    scale = _SCALES[request.scale]
    T = scale.training.latent_steps
    alphas = np.linspace(0, 0.99, 100).tolist()
    information = np.geomspace(0.02, 4, scale.curve_points).tolist()
    runs = [one for seed in request.seeds for one in _train_and_measure(scale, seed)]
    return {
        "setting": asdict(scale) | {"noise": NOISE},
        "prices": {"alphas": alphas} | {name: [of(a, T) for a in alphas] for name, of in _PRICES.items()},
        "curves": [
            {
                "alpha": a,
                "information_nats": information,
                "one_signal_nats": least_slack(a, T, information, signals=1),
                "any_signals_nats": least_slack(a, T, information, signals=T),
            }
            for a in scale.alphas
        ],
        "runs": runs,
        "smallest_signals": [_smallest_signal(runs, a, T) for a in scale.alphas],
    }


def render(result: Mapping[str, Any]) -> str:
    """Prices on paper and measured, and the models that buy nothing."""
    T, models = result["setting"]["training"]["latent_steps"], by_model(result)
    head = ("alpha", "many steps", f"T = {T}, constant", f"T = {T}, cheapest", "measured", "at I(x; z)",
            "of it about m", "least there, one signal", "any signals")  # fmt: skip
    prices, floors = [], []
    for one in result["smallest_signals"]:
        alpha, runs, idle = f"{one['alpha']:g}", models[one["model"]], models[_model(one["alpha"], FLOOR)]
        limits, least = ([f"{one[name]:.3g}" for name in names] for names in (_PRICES, ("one_signal", "any_signals")))
        measured = [_shown(runs, name) for name in ("price", "mutual_information_nats", "signal_information_nats")]
        prices.append((alpha, *limits, *measured, *least))
        rates = [f"{_estimate(idle, name).value:.4f}" for name in ("committed_rate_nats", "rate_nats")]
        floors.append((alpha, *rates, *(_shown(idle, name) for name in ("slack_nats", "mutual_information_nats"))))
    return "\n".join(
        [
            _about(result),
            "",
            "Nats of slack a nat of I(x; z): for a small signal on paper, and of models that buy little,",
            f"their value {SMALLEST:g} times the least that buys any",
            text_table(head, prices),
            "",
            f"Nats an example of models that buy none, their value {FLOOR:g} times that",
            text_table(("alpha", "committed", "rate", "slack", "I(x; z)"), floors),
            "",
            f"{errors(result)}. About m: at least, by the best linear guess from z.",
        ]
    )


def figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """The price by alpha; and slack against information, on paper and measured."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 4.2), layout="constrained")
        figure.suptitle(f"{_about(result)}; {errors(result)}", x=0.01, ha="left")
        left, right = figure.subplots(1, 2)
        _price_by_alpha(left, result)
        _slack_by_information(right, result)
    return {"slack": figure}


_PRICES = {
    "limit": lambda alpha, _: price_of_information(alpha),
    "constant_signal": constant_signal_price,
    "cheapest_signal": cheapest_signal_price,
}


def _train_and_measure(scale: Scale, seed: int) -> list[dict[str, Any]]:
    """A run for each model of a seed, all measured on the same held-out examples."""
    T = scale.training.latent_steps
    chosen = [(a, n) for a in scale.alphas for n in scale.multiples if n * threshold(a, T) < LARGEST_VALUE]
    models = train(scale.training, [a for a, _ in chosen], [n for _, n in chosen], seed)
    m, x = draw(scale.heldout, T, generator(seed, "heldout"))
    noise = generator(seed, "heldout latents")
    with torch.no_grad():
        posterior = models.encode(x)
        distortion = models.distortion(x, posterior.sample(noise))
    runs = []
    for k, (alpha, multiple) in enumerate(chosen):
        own = DiagonalGaussian(posterior.mean[..., k], posterior.log_scale[..., k])
        runs.append(
            {
                "model": _model(alpha, multiple),
                "seed": seed,
                "alpha": alpha,
                "value": multiple * threshold(alpha, T),
                "value_over_threshold": multiple,
                "heldout": mean(distortion[:, k]).named("distortion_nats") | measure(own, alpha, m, noise),
            }
        )
    return runs


def _model(alpha: float, multiple: float) -> str:
    return f"alpha-{alpha:g}-value-{multiple:g}"


def _smallest_signal(runs: Runs, alpha: float, steps: int) -> dict[str, Any]:
    """Of the models of an alpha that buy, the one that buys least; and the prices on paper, the last two at its I."""
    model = _model(alpha, SMALLEST)
    information = _estimate([run for run in runs if run["model"] == model], "mutual_information_nats").value
    signals = {"one_signal": 1, "any_signals": steps}
    return {
        "alpha": alpha,
        "model": model,
        **{name: of(alpha, steps) for name, of in _PRICES.items()},
        **{name: least_slack(alpha, steps, [information], n)[0] / information for name, n in signals.items()},
    }


def _price_by_alpha(axis: Axes, result: Mapping[str, Any]) -> None:
    prices, T = result["prices"], result["setting"]["training"]["latent_steps"]
    models, smallest = by_model(result), result["smallest_signals"]
    axis.plot(prices["alphas"], prices["limit"], color=BLACK, linestyle="--", label="many steps: (1 - a)² / (1 + a²)")
    axis.plot(prices["alphas"], prices["constant_signal"], color=BLUE, label=f"constant signal, T = {T}")
    alphas = [one["alpha"] for one in smallest]
    _bars(axis, alphas, [_estimate(models[one["model"]], "price") for one in smallest], VERMILION, "trained")
    least = [one["one_signal"] for one in smallest]
    axis.plot(alphas, least, "_", color=BLACK, markersize=9, label="least at their I(x; z), one signal")
    axis.set(yscale="log", xlabel="alpha", ylabel="slack / I(x; z)", title="Price of information, small signals")
    axis.legend()


def _slack_by_information(axis: Axes, result: Mapping[str, Any]) -> None:
    for curve, colour in zip(result["curves"], (BLACK, SKY, GREEN, ORANGE, VERMILION, PURPLE), strict=False):
        alpha, nats = curve["alpha"], curve["information_nats"]
        axis.plot(nats, curve["any_signals_nats"], color=colour, label=f"alpha = {alpha:g}")
        axis.plot(nats, curve["one_signal_nats"], color=colour, linestyle=":")
        bought = [
            runs
            for runs in by_model(result).values()
            if runs[0]["alpha"] == alpha and runs[0]["value_over_threshold"] > 1
        ]
        information = [_estimate(runs, "mutual_information_nats") for runs in bought]
        _bars(axis, information, [_estimate(runs, "slack_nats") for runs in bought], colour)
    axis.set(xscale="log", yscale="log", xlim=(0.02, 5), ylim=(3e-6, 10), xlabel="I(x; z), nats", ylabel="slack, nats")
    axis.set_title("Trained (dots), least (lines), least with one signal (dotted)")
    axis.legend(ncols=2)


def _bars(
    axis: Axes, x: list[Estimate] | list[float], y: list[Estimate], colour: str, label: str | None = None
) -> None:
    """Points with their errors, where they have any."""
    across = [one if isinstance(one, Estimate) else Estimate(one, 0.0) for one in x]
    axis.errorbar(
        [one.value for one in across],
        [one.value for one in y],
        np.nan_to_num([one.stderr for one in y]),
        np.nan_to_num([one.stderr for one in across]),
        color=colour,
        fmt="o",
        markersize=4,
        label=label,
    )


def _estimate(runs: Runs, name: str) -> Estimate:
    found = over_seeds(runs, name)
    assert found is not None
    return found


def _shown(runs: Runs, name: str) -> str:
    """Three digits of the mean over seeds and one of its error, for these span orders of magnitude."""
    found = _estimate(runs, name)
    return f"{found.value:.3g}" if math.isnan(found.stderr) else f"{found.value:.3g} ± {found.stderr:.1g}"


def _about(result: Mapping[str, Any]) -> str:
    setting, seeds = result["setting"], result["seeds"]
    training = setting["training"]
    return (
        f"x_t = m + e_t over {training['latent_steps']} steps, {setting['heldout']:,} held-out examples, "
        f"{training['steps']:,} training steps, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    )
