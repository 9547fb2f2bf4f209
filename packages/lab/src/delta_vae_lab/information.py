"""What the latents know: mutual information I(x; z) with q(z) the mixture over the evaluation set, and active units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from delta_vae_core import DiagonalGaussian


@dataclass(frozen=True)
class Information:
    """Estimates of information by sequence, (N,) nats each, float64: their means are the estimates. None is clamped.

    about_x: log q(z_i|x_i) - log q(z_i), whose mean estimates I(x; z), x uniform over the evaluation set.
    given_length: log q(z_i|x_i) - log q(z_i|n_i), the part of it that is not about the length n: I(x; z | n).
    cap, given_length_cap: the largest values the two means can take, log N and the mean of log N_n, N_n the number of
    sequences as long. An estimate near its cap is a lower bound on what a larger evaluation set would show.
    """

    about_x: Tensor
    given_length: Tensor
    cap: float
    given_length_cap: float


def mutual_information(
    posterior: DiagonalGaussian, mask: Tensor, latents: Tensor, prior_log_prob: Tensor, chunk: int = 1024
) -> Information:
    """I(x; z) = E log q(z|x) - E log q(z) with q(z) = 1/N sum_j q(z|x_j), over all N sequences of the evaluation set.

    Beyond its own length n_j a posterior goes on as the prior does, which lets sequences of different lengths share one
    mixture and leaves KL(q(z|x) || p(z)) what it was, so that rate = I(x; z) + KL(q(z) || p(z)):

        q(z_1..T | x_j) = prod_{t <= n_j} N(z_t; mu_jt, s_jt^2) prod_{t > n_j} p(z_t | z_<t)

    posterior: (N, T, D), whatever at steps that mask (N, T), right-padded, leaves out.
    latents: (N, T, D), z_i ~ q(z|x_i) to the last step: `prior.complete(z, mask)`.
    prior_log_prob: (N, T, D) nats, `prior.log_prob(latents, all_true)`: log p(z_it | z_i,<t).
    chunk: rows of the (N, N) table of log q(z_i|x_j) held at a time.
    """
    lengths = mask.sum(1).cpu()
    log_alike = lengths.bincount()[lengths].double().log()
    log_q = _log_density(posterior, mask, latents, prior_log_prob)
    about_x, given_length = [], []
    for rows in torch.arange(len(lengths)).split(chunk):
        table = log_q(rows)  # log q(z_i|x_j): (rows, N)
        own = table.gather(1, rows[:, None]).squeeze(1)
        other_length = lengths[rows, None] != lengths
        about_x.append(own - table.logsumexp(1) + math.log(len(lengths)))
        given_length.append(own - table.masked_fill(other_length, -math.inf).logsumexp(1) + log_alike[rows])
    return Information(
        about_x=torch.cat(about_x),
        given_length=torch.cat(given_length),
        cap=math.log(len(lengths)),
        given_length_cap=float(log_alike.mean()),
    )


def active_units(mean: Tensor, mask: Tensor, threshold: float) -> int:
    """Latent dimensions, of D, with Var_x(E_q[z]) > threshold (Burda et al. 2016): (N, T, D), (N, T) -> count.

    The variance is over sequences at one step, pooled over steps (within-step sums of squares over their degrees of
    freedom). A posterior mean that moves with t alone, whatever x, is thus not active; and the last steps, which few
    sequences reach, need no count of their own. The usual thresholds are for priors of variance about 1: all but a
    trained LSTM, whose scale is its own.
    """
    beyond = ~mask.bool().cpu().unsqueeze(-1)
    count = mask.sum(0).cpu()
    mean = mean.detach().cpu().double().masked_fill(beyond, 0.0)
    deviation = (mean - mean.sum(0) / count.clamp(min=1)[:, None]).masked_fill(beyond, 0.0)
    variance = deviation.square().sum((0, 1)) / (count - 1).clamp(min=0).sum()
    return int((variance > threshold).sum())


def _log_density(
    posterior: DiagonalGaussian, mask: Tensor, latents: Tensor, prior_log_prob: Tensor
) -> Callable[[Tensor], Tensor]:
    """Rows i -> log q(z_i|x_j) of every j, (rows, N) nats.

    The quadratic form of the Gaussian part is two matrix products, in float64 because its terms, of the order of
    T D mu^2 / s^2, cancel; the part beyond n_j depends on j through n_j alone and is read from a table of sums.
    """
    lengths = mask.sum(1).cpu()
    beyond = ~mask.bool().cpu().unsqueeze(-1)
    mu = posterior.mean.detach().cpu().double().masked_fill(beyond, 0.0)
    log_s = posterior.log_scale.detach().cpu().double().masked_fill(beyond, 0.0)
    z = latents.detach().cpu().double().flatten(1)
    precision = (-2 * log_s).exp().masked_fill(beyond, 0.0)
    constant = (-0.5 * mu**2 * precision - log_s - 0.5 * math.log(2 * math.pi)).masked_fill(beyond, 0.0).sum((1, 2))
    by_step = prior_log_prob.detach().cpu().double().sum(2)
    tail = functional.pad(by_step.flip(1).cumsum(1).flip(1), (0, 1))  # tail[i, n] = log p(z_i,>n | z_i,<=n): (N, T + 1)

    def log_q(rows: Tensor) -> Tensor:
        quadratic = -0.5 * z[rows] ** 2 @ precision.flatten(1).T + z[rows] @ (mu * precision).flatten(1).T
        return quadratic + constant + tail[rows][:, lengths]

    return log_q
