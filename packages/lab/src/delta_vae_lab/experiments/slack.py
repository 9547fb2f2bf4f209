"""What information costs on paper: slack, rate beyond the committed rate, against I(x; z), under one AR(1) dimension.

For z_t | x ~ N(mu_t, s_t^2), S = diag s_t^2, and a prior of precision L = ar1_precision(alpha, T), in nats,

    slack = 1/2 E mu' L mu + 1/2 sum_t (L_tt s_t^2 - 1 - ln L_tt s_t^2)
    I(x; z) = 1/2 ln det(1 + S^-1/2 Cov(mu) S^-1/2)   for a Gaussian mu and constant S; no more for any other of its Cov
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from delta_vae_core import DiagonalGaussian
from delta_vae_priors import AR1Prior


def constant_signal_price(alpha: float, steps: int) -> float:
    """Slack by information of a small mu_t = c m, m ~ N(0, 1), at the scales that attain the committed rate; T >= 2.

    slack = c^2/2 [1 + (T-1)(1-a)/(1+a)],   I = 1/2 ln(1 + c^2 [2 + (T-2)(1+a^2)] / (1-a^2)): for any c the slack is
    this price times (e^2I - 1) / 2. For T -> infinity it is (1-a)^2 / (1+a^2).
    """
    a, T = alpha, steps
    return (1 + (T - 1) * (1 - a) / (1 + a)) * (1 - a * a) / (2 + (T - 2) * (1 + a * a))


def cheapest_signal_price(alpha: float, steps: int) -> float:
    """The same for the best mu_t = c w_t m: the least eigenvalue of L relative to its diagonal."""
    precision = ar1_precision(alpha, steps)
    scale = precision.diagonal().rsqrt()
    return float(torch.linalg.eigvalsh(scale[:, None] * precision * scale)[0])


def least_slack(alpha: float, steps: int, information: Sequence[float], signals: int) -> list[float]:
    """The least slack at which a Gaussian mu of `signals` independent parts carries each of these nats; nats.

    Given S, mu is best spread over the least eigenvalues l_i of S^1/2 L S^1/2, up to a common level (water-filling):
    E mu' L mu = sum_i (level - l_i), 2 I = sum_i ln(level / l_i), over the l_i below it. S is found by L-BFGS from the
    floor's, from the last one and from one at random.

    With `signals` = T, and as long as the curve is convex and no steeper than 1, no encoder at all gets below it: for
    p <= 1 the Gaussian mu of equal covariance, with E s_t^2 for s_t^2, has no more slack - p I.
    """
    precision = ar1_precision(alpha, steps)
    noise = torch.Generator().manual_seed(0)
    least, last = [], torch.zeros(steps, dtype=torch.float64)
    for nats in information:
        nearby, anywhere = torch.randn(2, steps, dtype=torch.float64, generator=noise)
        # Exactly at the floor's the eigenvalues of alpha = 0 are equal and none would be chosen.
        starts = (0.01 * nearby, last + 0.01 * nearby, 0.5 * anywhere)
        found = [_minimum(precision, nats, signals, start) for start in starts]
        slack, last = min(found, key=lambda one: one[0])
        least.append(slack)
    return least


def ar1_precision(alpha: float, steps: int) -> Tensor:
    """L of the AR(1) prior, float64: (1, 1 + a^2, ..., 1 + a^2, 1) and -a beside it, over 1 - a^2."""
    diagonal = torch.full((steps,), 1 + alpha**2, dtype=torch.float64)
    diagonal[0] = diagonal[-1] = 1.0
    beside = torch.full((steps - 1,), -alpha, dtype=torch.float64)
    return (diagonal.diag() + beside.diag(1) + beside.diag(-1)) / (1 - alpha**2)


def slack_nats(posterior: DiagonalGaussian, prior: AR1Prior) -> Tensor:
    """KL(q || p) less the committed rate, (N, T, 1) -> (N,) float64, under a prior of one dimension.

    In this form nothing cancels: a slack of 1e-5 nats beside a rate of 10 keeps its digits.
    """
    (alpha,) = prior.config.alphas
    mu, log_scale = posterior.mean.double().squeeze(2), posterior.log_scale.double()
    floor = prior.posterior(torch.zeros(1, mu.shape[1], 2)).log_scale.double()
    excess = 2 * (log_scale - floor)  # ln L_tt s_t^2
    return 0.5 * ((excess.expm1() - excess).sum((1, 2)) + (mu @ ar1_precision(alpha, mu.shape[1]) * mu).sum(1))


def _minimum(precision: Tensor, nats: float, signals: int, start: Tensor) -> tuple[float, Tensor]:
    """The least slack in nats found from a start, and where: 1/2 ln L_tt s_t^2, (T,)."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def slack() -> Tensor:
        s = x.exp() * precision.diagonal().rsqrt()
        eigenvalues = torch.linalg.eigvalsh(s[:, None] * precision * s)[:signals]
        log_levels = (2 * nats + eigenvalues.log().cumsum(0)) / torch.arange(1, len(eigenvalues) + 1)
        filled = int((log_levels > eigenvalues.log()).sum())
        signal = filled * log_levels[filled - 1].exp() - eigenvalues[:filled].sum()
        return 0.5 * (signal + ((2 * x).expm1() - 2 * x).sum())

    def closure() -> float:
        optimizer.zero_grad()
        value = slack()
        value.backward()
        return float(value.detach())

    optimizer.step(closure)
    return float(slack().detach()), x.detach()
