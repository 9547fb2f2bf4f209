"""Figure 1 of Razavi et al. 2019: what a correlated prior commits, and the factorised posterior that comes nearest.

The closed form of `delta_vae_priors` is set beside minima found without it: KL(q || p) of torch.distributions, p with
the full covariance alpha^|s-t|, is minimised over the means and log-scales of q from random starts, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from delta_vae_core import DiagonalGaussian, nats_to_bits
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.summaries import text_table
from delta_vae_lab.figures import BLUE, GREEN, PURPLE, STYLE, VERMILION
from delta_vae_lab.randomness import generator
from delta_vae_priors import AR1Prior, AR1PriorConfig, ar1_committed_rate

TITLE = "Figure 1: the committed rate by alpha and length"
TAKES: tuple[str, ...] = ()
SCALES = ("smoke", "small")

SHOWN_ALPHAS = (0.5, 0.8, 0.95)
# What the paper prints: nats of one dimension over 2 steps, and bits an image of 32 rows with alphas linear from 0.5.
PAPER_NATS = {(0.5, 2): 0.1438, (0.8, 2): 0.5108, (0.95, 2): 1.1640}
PAPER_BITS = {(8, 0.95): 79.44, (64, 0.99): 666.6}
IMAGE_ROWS = 32
CEILING_BITS = 0.5


@dataclass(frozen=True)
class Scale:
    """Lengths n of the curves, alphas along each, and random starts of every minimisation, a seed."""

    lengths: tuple[int, ...]
    points: int
    starts: int


_SCALES = {
    "smoke": Scale(lengths=(2, 7), points=10, starts=1),
    "small": Scale(lengths=(2, 7, 32, 128), points=100, starts=2),
}


def run(request: Request) -> dict[str, Any]:
    """Curves, minima found and check values; nats of one dimension, or bits where the name says so."""
    scale = _SCALES[request.scale]
    alphas = np.linspace(0, 0.99, scale.points).tolist()
    return {
        "curves": {
            "alphas": alphas,
            "lengths": [
                {"steps": n, "committed_rate_nats": [ar1_committed_rate([a], n) for a in alphas]} for n in scale.lengths
            ],
            "one_more_step_bits": [_one_more_step_bits(a) for a in alphas],
            "ceiling_bits": CEILING_BITS,
        },
        "minima": [_minimum(a, n, request.seeds, scale.starts) for n in scale.lengths for a in SHOWN_ALPHAS],
        "image_models": [_image_model(d, high, printed) for (d, high), printed in PAPER_BITS.items()],
    }


def render(result: Mapping[str, Any]) -> str:
    """Closed form, minimum found and the paper's value."""
    head = ("alpha", "n", "closed form", "least found", "most found", "AR1Prior.kl there", "the paper")
    rows = []
    for one in result["minima"]:
        found = one["found_nats"]
        values = (one["committed_rate_nats"], min(found), max(found), one["prior_kl_nats"])
        paper = "" if one["paper_nats"] is None else f"{one['paper_nats']:.4f}"
        rows.append((f"{one['alpha']:g}", str(one["steps"]), *(f"{value:.4f}" for value in values), paper))
    furthest = max(abs(f - one["committed_rate_nats"]) for one in result["minima"] for f in one["found_nats"])
    starts = len(result["minima"][0]["found_nats"])
    images = [
        f"alpha linear from 0.5 to {one['high']:g} in {one['latent_dim']} dimensions over {one['steps']} rows: "
        f"{one['committed_rate_bits']:.3f} bits an image; the paper prints {one['paper_bits']:g}"
        for one in result["image_models"]
    ]
    curves = result["curves"]
    top, added = curves["alphas"][-1], curves["one_more_step_bits"][-1]
    return "\n".join(
        [
            f"The least KL(q || p) of one dimension in nats; {starts} random starts each, seeds {_seeds(result)}",
            "",
            text_table(head, rows),
            "",
            f"furthest that a minimum found lies from the closed form: {furthest:.1e} nats",
            *images,
            f"one more step at alpha = {top:g} commits {added:.3f} bits; the ceiling is {curves['ceiling_bits']:g}",
        ]
    )


def figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """The committed rate by alpha and length; the prior of 2 steps and the factorised posterior nearest to it."""
    return {
        "committed_rate": _committed_rate(result),
        "prior_and_best_posterior": _prior_and_best_posterior(result),
    }


def _minimum(alpha: float, steps: int, seeds: Sequence[int], starts: int) -> dict[str, Any]:
    """min KL(q || p) over factorised q, found from random starts of every seed, beside the closed form."""
    t = torch.arange(steps, dtype=torch.float64)
    covariance = alpha ** (t[:, None] - t).abs()
    found = []
    for seed in seeds:
        noise = generator(seed, "start", steps)
        found += [
            _least_kl(covariance, torch.randn(2, steps, dtype=torch.float64, generator=noise)) for _ in range(starts)
        ]
    _, mean, log_scale = min(found, key=lambda one: one[0])
    at_it = DiagonalGaussian(mean[None, :, None], log_scale[None, :, None])
    entry: dict[str, Any] = {
        "alpha": alpha,
        "steps": steps,
        "committed_rate_nats": ar1_committed_rate([alpha], steps),
        "found_nats": [least for least, _, _ in found],
        "prior_kl_nats": float(AR1Prior(AR1PriorConfig(alpha=[alpha])).kl(at_it).double().sum()),
        "paper_nats": PAPER_NATS.get((alpha, steps)),
    }
    if steps == 2:
        entry |= {"prior_covariance": covariance.tolist(), "posterior_variance": (2 * log_scale).exp().tolist()}
    return entry


def _least_kl(covariance: Tensor, start: Tensor) -> tuple[float, Tensor, Tensor]:
    """The least KL(q || N(0, covariance)) in nats, by L-BFGS from means and log-scales (2, n), and where it lies."""
    prior = MultivariateNormal(torch.zeros(len(covariance), dtype=torch.float64), covariance, validate_args=False)
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=1000, tolerance_grad=1e-9, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def kl() -> Tensor:
        mean, log_scale = x
        return kl_divergence(MultivariateNormal(mean, scale_tril=log_scale.exp().diag(), validate_args=False), prior)

    def closure() -> float:
        optimizer.zero_grad()
        value = kl()
        value.backward()
        return float(value.detach())

    optimizer.step(closure)
    mean, log_scale = x.detach()
    return float(kl().detach()), mean, log_scale


def _image_model(latent_dim: int, high: float, printed: float) -> dict[str, Any]:
    """A prior of the paper's image models: committed bits an image, ours and as printed."""
    rate_nats = ar1_committed_rate(AR1PriorConfig.linear(latent_dim, 0.5, high).alphas, IMAGE_ROWS)
    return {
        "latent_dim": latent_dim,
        "high": high,
        "steps": IMAGE_ROWS,
        "committed_rate_bits": nats_to_bits(rate_nats),
        "paper_bits": printed,
    }


def _one_more_step_bits(alpha: float) -> float:
    """1/2 log2(1 + alpha^2): what a step between the ends adds."""
    return nats_to_bits(0.5 * math.log1p(alpha * alpha))


def _committed_rate(result: Mapping[str, Any]) -> Figure:
    """Rate by alpha for every length, the minima found upon it; and the same a step, under its ceiling."""
    curves = result["curves"]
    alphas = np.asarray(curves["alphas"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.4), layout="constrained")
        figure.suptitle(
            f"AR(1) prior, one dimension: closed form (lines) and least KL found (dots), seeds {_seeds(result)}",
            x=0.01,
            ha="left",
        )
        whole, a_step = figure.subplots(1, 2)
        for one, colour in zip(curves["lengths"], (BLUE, VERMILION, GREEN, PURPLE), strict=False):
            n, rate = one["steps"], np.asarray(one["committed_rate_nats"])
            found = [(m["alpha"], min(m["found_nats"])) for m in result["minima"] if m["steps"] == n]
            above = alphas > 0  # a logarithmic axis has no 0
            whole.plot(alphas[above], rate[above], color=colour, label=f"n = {n}")
            a_step.plot(alphas, nats_to_bits(1.0) * rate / n, color=colour, label=f"n = {n}")
            whole.plot(*zip(*found, strict=True), "o", color=colour, markersize=4)
            a_step.plot(
                *zip(*((a, nats_to_bits(r) / n) for a, r in found), strict=True), "o", color=colour, markersize=4
            )
        whole.set(yscale="log", ylim=(1e-3, None), ylabel="nats", title="Committed rate")
        a_step.plot(
            alphas, curves["one_more_step_bits"], color="black", linestyle="--", label="what one more step adds"
        )
        a_step.axhline(
            curves["ceiling_bits"], color="black", linewidth=0.8, linestyle=":", label="ceiling of one more step"
        )
        a_step.set(ylim=(0, 1), ylabel="bits a step", title="The same, divided by n")
        for axis in (whole, a_step):
            axis.set(xlim=(0, 1), xlabel="alpha")
            axis.legend()
    return figure


def _prior_and_best_posterior(result: Mapping[str, Any]) -> Figure:
    """Contours at 1 and 2 standard deviations of p(z_1, z_2) and of the factorised q that comes nearest to it."""
    pairs = [one for one in result["minima"] if one["steps"] == 2]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.8), layout="constrained")
        figure.suptitle(
            f"AR(1) prior of 2 steps and the nearest factorised posterior, at 1 and 2 standard deviations; "
            f"least KL of {len(pairs[0]['found_nats'])} starts, seeds {_seeds(result)}",
            x=0.01,
            ha="left",
        )
        for axis, one in zip(figure.subplots(1, len(pairs), sharex=True, sharey=True), pairs, strict=True):
            _contours(axis, np.asarray(one["prior_covariance"]), color=BLUE, label="prior p")
            _contours(axis, np.diag(one["posterior_variance"]), color=VERMILION, label="posterior q")
            axis.set(xlim=(-2.3, 2.3), ylim=(-2.3, 2.3), aspect="equal", xlabel="$z_1$", ylabel="$z_2$")
            axis.set_title(f"alpha = {one['alpha']:g}: KL = {min(one['found_nats']):.4f} nats")
            axis.label_outer()
        axis.legend(loc="lower right")
    return figure


def _contours(axis: Axes, covariance: np.ndarray, color: str, label: str) -> None:
    """Ellipses of N(0, covariance) at 1 and 2 standard deviations."""
    variances, directions = np.linalg.eigh(covariance)
    angle = math.degrees(math.atan2(directions[1, 1], directions[0, 1]))
    for deviations in (1, 2):
        across, along = 2 * deviations * np.sqrt(variances)
        ellipse = Ellipse((0, 0), along, across, angle=angle, fill=False, edgecolor=color, linewidth=1.5)
        ellipse.set_label(label if deviations == 1 else "")
        axis.add_patch(ellipse)


def _seeds(result: Mapping[str, Any]) -> str:
    return ", ".join(map(str, result["seeds"]))
