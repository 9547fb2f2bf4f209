"""Small VAEs of a source with a signal that is constant over time, trained at several values of information."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from delta_vae_core import DiagonalGaussian, standard_normal
from delta_vae_lab.estimates import mean, ratio
from delta_vae_lab.experiments.slack import cheapest_signal_price, slack_nats
from delta_vae_lab.information import mutual_information
from delta_vae_lab.randomness import generator
from delta_vae_priors import AR1Prior, AR1PriorConfig

NOISE = 1.0  # standard deviation of e_t; that of m is 1

# A signal grows slowly where it hardly pays: in the first fifth of training every value is at least this multiple of
# the threshold.
_FIRST, _FIRST_PART = 48.0, 0.2


@dataclass(frozen=True)
class Training:
    """The size of a training; `latent_steps` is T, of x and of z."""

    latent_steps: int
    hidden: int
    batch_size: int
    steps: int
    learning_rate: float


def draw(examples: int, steps: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """m (B,) and x (B, T): x_t = m + e_t, m ~ N(0, 1), e_t ~ N(0, NOISE^2)."""
    m = torch.randn(examples, generator=noise)
    return m, m[:, None] + NOISE * torch.randn(examples, steps, generator=noise)


def threshold(alpha: float, steps: int) -> float:
    """The value from which information pays: the price of the first nat over the nats of distortion that it saves.

    Of all that is linear in x its mean saves most, the largest eigenvalue of x's correlations: (T + v) / (1 + v) nats,
    v = NOISE^2.
    """
    return cheapest_signal_price(alpha, steps) * (1 + NOISE**2) / (steps + NOISE**2)


class SmallVAEs(nn.Module):
    """M VAEs side by side: z of model k is dimension k of one AR(1) prior, whose alpha = 0 is the standard normal.

    Each has an encoder of its own, x (T) -> tanh -> statistics (T, 2), and a linear decoder, x_t | z ~ N((z W)_t, u^2).
    They are trained on the same examples and share nothing else.
    """

    def __init__(self, alphas: Sequence[float], steps: int, hidden: int, noise: torch.Generator) -> None:
        super().__init__()

        def weight(scale: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(len(alphas), *shape, generator=noise))

        self.prior = AR1Prior(AR1PriorConfig(alpha=list(alphas)))
        self.into, self.into_bias = weight(steps**-0.5, steps, hidden), weight(0.0, 1, hidden)
        # Small, so that training starts near the floor and not on it.
        self.out, self.out_bias = weight(0.01 * hidden**-0.5, hidden, 2 * steps), weight(0.0, 1, 2 * steps)
        self.decoder, self.log_scale = weight(0.1 * steps**-0.5, steps, steps), weight(0.0, 1, 1)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """(B, T) -> (B, T, M)."""
        hidden = torch.baddbmm(self.into_bias, x.expand(len(self.into), *x.shape), self.into).tanh()
        statistics = torch.baddbmm(self.out_bias, hidden, self.out)  # (M, B, 2T)
        return self.prior.posterior(statistics.unflatten(2, (2, -1)).permute(1, 3, 2, 0).flatten(2))

    def distortion(self, x: Tensor, z: Tensor) -> Tensor:
        """-ln p(x | z) in nats: (B, T), (B, T, M) -> (B, M)."""
        guess = torch.bmm(z.permute(2, 0, 1), self.decoder)  # (M, B, T)
        return -DiagonalGaussian(guess, self.log_scale.expand_as(guess)).log_prob(x).sum(2).T


def train(size: Training, alphas: Sequence[float], multiples: Sequence[float], seed: int) -> SmallVAEs:
    """Minimise rate + value * distortion, value = multiple * threshold, by Adam with a learning rate that falls to 0.

    Model k has alphas[k] and multiples[k].
    """
    noise = generator(seed, "training")
    models = SmallVAEs(alphas, size.latent_steps, size.hidden, generator(seed, "initialisation"))
    optimizer = torch.optim.Adam(models.parameters(), lr=size.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, size.steps)
    thresholds = torch.tensor([threshold(alpha, size.latent_steps) for alpha in alphas])
    multiple = torch.tensor(multiples)
    for step in range(size.steps):
        value = thresholds * multiple.clamp_min(_FIRST if step < _FIRST_PART * size.steps else 0.0)
        _, x = draw(size.batch_size, size.latent_steps, noise)
        posterior = models.encode(x)
        rate = models.prior.kl(posterior).sum(1)
        distortion = models.distortion(x, posterior.sample(noise))
        optimizer.zero_grad()
        (rate + value * distortion).mean(0).sum().backward()
        optimizer.step()
        schedule.step()
    return models


def measure(posterior: DiagonalGaussian, alpha: float, m: Tensor, noise: torch.Generator) -> dict[str, float]:
    """Rate, slack, information and its price, of the posteriors (N, T) of examples with signals m (N,)."""
    N, T = posterior.mean.shape
    prior = AR1Prior(AR1PriorConfig(alpha=[alpha]))
    q = DiagonalGaussian(posterior.mean[..., None], posterior.log_scale[..., None])
    slack = slack_nats(q, prior)
    # Draws mirrored at the mean: of a small signal they leave little chance in the estimate but that of x.
    eps = standard_normal((N, T, 1), noise)
    everywhere = torch.ones(N, T, dtype=torch.bool)
    mirrored = [
        mutual_information(q, everywhere, z, prior.log_prob(z)).about_x
        for z in (q.sample(noise=eps), q.sample(noise=-eps))
    ]
    about_x = torch.stack(mirrored).mean(0)
    return {
        "examples": N,
        **mean(prior.kl(q).double().sum((1, 2))).named("rate_nats"),
        "committed_rate_nats": float(prior.committed_rate(T)),
        **mean(slack).named("slack_nats"),
        **mean(about_x).named("mutual_information_nats"),
        "signal_information_nats": signal_information(posterior, m),
        **ratio(slack, about_x).named("price"),
    }


def signal_information(posterior: DiagonalGaussian, m: Tensor) -> float:
    """-1/2 ln(1 - R^2) nats, R^2 of the best linear guess of m (N,) from z (N, T): at most I(m; z), m Gaussian."""
    mu, variance = posterior.mean.double(), (2 * posterior.log_scale.double()).exp().mean(0)
    mu, m = mu - mu.mean(0), (m - m.mean()).double()
    with_m = mu.T @ m / len(m)
    explained = with_m @ torch.linalg.solve(mu.T @ mu / len(m) + variance.diag(), with_m)
    return -0.5 * math.log1p(-float(explained / m.square().mean()))
