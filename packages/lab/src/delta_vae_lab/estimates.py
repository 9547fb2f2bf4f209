"""Estimates over sequences, each with its standard error, and the importance-weighted bound; sums are in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mean, ratio or function of them, and its standard error over sequences."""

    value: float
    stderr: float

    @classmethod
    def of(cls, metrics: Mapping[str, float | int], name: str) -> Estimate:
        """The estimate that `named` wrote."""
        return cls(metrics[name], metrics[f"{name}_stderr"])

    def named(self, name: str) -> dict[str, float]:
        """`{name: value, name_stderr: standard error}`, as results.json has it."""
        return {name: self.value, f"{name}_stderr": self.stderr}

    def scaled(self, factor: float) -> Estimate:
        """The estimate in another unit."""
        return Estimate(self.value * factor, self.stderr * factor)

    def __str__(self) -> str:
        """`3.29 ± 0.10`: both to the second significant digit of the error, but to no more than four decimals."""
        digits = 1 - math.floor(math.log10(self.stderr)) if self.stderr > 0 and math.isfinite(self.stderr) else 4
        decimals = min(max(digits, 0), 4)
        return f"{self.value:,.{decimals}f} ± {self.stderr:,.{decimals}f}"


def mean(values: Tensor) -> Estimate:
    """Mean of (N,) independent values, and its standard error s / sqrt(N)."""
    values = _at_least_two(values)
    return Estimate(float(values.mean()), float(values.std() / math.sqrt(len(values))))


def ratio(numerator: Tensor, denominator: Tensor) -> Estimate:
    """R = sum y / sum n of paired (N,) values; error sd(y - R n) / (sqrt(N) mean n), to first order (Cochran 1977)."""
    y, n = _at_least_two(numerator), _at_least_two(denominator)
    value = y.sum() / n.sum()
    return Estimate(float(value), float((y - value * n).std() / (math.sqrt(len(y)) * n.mean())))


def perplexity(nats_per_unit: Estimate) -> Estimate:
    """exp(nats per token or word); its error by the delta method, exp(R) times the error of R."""
    value = float(torch.tensor(nats_per_unit.value, dtype=torch.float64).exp())
    return Estimate(value, value * nats_per_unit.stderr)


def importance_weighted_nll(log_weights: Tensor) -> Tensor:
    """-log 1/K sum_k w_k, in nats: log weights log p(x|z_k) p(z_k) / q(z_k|x), z_k ~ q, (K, B) -> (B,).

    In expectation no more than the negative ELBO, the mean of -log w_k, and no less than -log p(x). Burda et al. 2016.
    """
    samples = len(log_weights)
    if samples == 0:
        raise ValueError("importance_samples=0: the importance-weighted bound is a mean over samples; take 1 or more")
    return math.log(samples) - log_weights.double().logsumexp(0)


def _at_least_two(values: Tensor) -> Tensor:
    if len(values) < 2:
        raise ValueError(f"{len(values)} sequences: a standard error needs at least 2; evaluate on more")
    return values.detach().cpu().double()
