"""Any VAE, examined by what it answers: its posterior's parameters and its distortion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from delta_vae import DeltaVaeOutput
from delta_vae_core import DiagonalGaussian
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.modality import EXAMPLES, Modality
from delta_vae_lab.subject import evaluation_noise
from delta_vae_priors import StandardNormalPrior, StandardNormalPriorConfig
from delta_vae_priors.prior import WeightlessPrior

# How far an answer about an example may depend on the batch that it is in, relative to what such answers are.
_TOLERANCE = 1e-2


class OutsideVae:
    """A VAE by two functions, called without gradients; put what stands behind them into evaluation mode first.

    encode(inputs) -> (mean, log_scale) of q(z|x) = N(mean, exp(log_scale)^2): (B, D) each, or (B, T, D). A log-scale
    is half a log-variance. More axes, such as the (B, C, h, w) of an image VAE, are one step of all their elements.
    distortion(inputs, z) -> -ln p(x|z), (B,) nats, summed over an example's elements with every constant. z is of the
    shape and dtype of the means; the same inputs come again with other z.
    prior: one of ours without weights; N(0, I) if not given. What it says to be committed is committed only if `encode`
    keeps to its posterior family: of AR(1) every diagonal Gaussian is in it.
    dimensions: how many an example has, which bits/dim are shared out to. device: where both functions want tensors.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], tuple[Tensor, Tensor]],
        distortion: Callable[[Tensor, Tensor], Tensor],
        prior: WeightlessPrior | None = None,
        *,
        dimensions: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if prior is not None and not isinstance(prior, WeightlessPrior):
            raise ValueError(
                f"prior of type {type(prior).__name__}: give a StandardNormalPrior, AR1Prior or IndependentDeltaPrior"
            )
        if dimensions is not None and dimensions < 1:
            raise ValueError(f"dimensions={dimensions}: an example has 1 or more; or None where they mean nothing")
        self.encode: Callable[[Tensor], Any] = encode  # what they give is checked
        self.distortion: Callable[[Tensor, Tensor], Any] = distortion
        self.dimensions = dimensions
        self.device = torch.device(device)
        self.auxiliary_prior = None
        self._prior = prior
        self._like: Tensor | None = None  # of the shape, but for the batch, and of the dtype of the first means

    @property
    def prior(self) -> WeightlessPrior:
        """p(z); N(0, I) is of as many dimensions as the posterior turned out to have."""
        if self._prior is None:
            assert self._like is not None, "nothing is encoded yet"
            self._prior = StandardNormalPrior(StandardNormalPriorConfig(latent_dim=_steps(self._like.shape)[1]))
        return self._prior

    def evaluating(self) -> AbstractContextManager[Any]:
        return torch.no_grad()

    def batches(self, data: Tensor | Iterable[Tensor], batch_size: int = 64) -> Iterator[TensorBatch]:
        """The data in order: a tensor (N, ...), or batches (B, ...) of one shape each example."""
        shape, start = None, 0
        for inputs in data.split(batch_size) if isinstance(data, Tensor) else data:
            if not isinstance(inputs, Tensor) or inputs.dim() == 0:
                raise ValueError(
                    f"a {type(inputs).__name__} in the data: give tensors (B, ...); of a loader with labels, "
                    "give (x for x, _ in loader)"
                )
            shape = inputs.shape[1:] if shape is None else shape
            if inputs.shape[1:] != shape:
                raise ValueError(
                    f"examples of shape {tuple(inputs.shape[1:])} after {tuple(shape)}: give all of one shape; "
                    "pad sequences to one length"
                )
            if len(inputs):
                yield TensorBatch(inputs, list(range(start, start + len(inputs))), self.dimensions or 0)
            start += len(inputs)

    def targets(self, batch: Batch) -> Tensor:
        return batch.inputs()["inputs"]

    def bound(self, batch: Batch, seed: int) -> DeltaVaeOutput:
        inputs, first = self.targets(batch), self._like is None
        posterior = self._posterior(inputs)
        mask = torch.ones(posterior.mean.shape[:2], dtype=torch.bool, device=posterior.mean.device)
        prior: Any = self.prior
        kl = prior.kl(posterior, mask)
        _check_finite(kl, "the posterior has a KL", "log_scale is the log of a standard deviation; bound it")
        noise = evaluation_noise(mask.cpu(), posterior.mean.shape[2], seed, batch.rows)
        z = posterior.sample(noise=noise.to(posterior.mean.device))
        distortion = self._distortion(inputs, z)
        if first and len(inputs) > 1:
            self._check_independence(inputs, z, posterior, distortion)
        return DeltaVaeOutput(
            rate=kl.sum((1, 2)),
            distortion=distortion,
            committed_rate=prior.committed_rate(mask.sum(1)),
            kl=kl,
            latents=z,
            posterior=posterior,
            mask=mask,
        )

    def log_likelihood(self, x: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        return -self._distortion(x, z).cpu().double()

    def _posterior(self, inputs: Tensor) -> DiagonalGaussian:
        """What `encode` gives, checked, as (B, T, D) float32."""
        answer = self.encode(inputs)
        if not (isinstance(answer, tuple | list) and len(answer) == 2 and all(isinstance(a, Tensor) for a in answer)):
            raise ValueError(f"encode gave a {type(answer).__name__}: it must give two tensors, (mean, log_scale)")
        mean, log_scale = answer
        if mean.shape != log_scale.shape or mean.dim() < 2 or len(mean) != len(inputs):
            raise ValueError(
                f"encode gave mean {tuple(mean.shape)} and log_scale {tuple(log_scale.shape)} of {len(inputs)} "
                "examples: both must be (B, D) or (B, T, D), or both of one shape with more axes"
            )
        for name, value in (("mean", mean), ("log_scale", log_scale)):
            _check_finite(value, f"encode gave a {name}", "check the model's weights and how inputs are scaled")
        if self._like is None:
            latent_dim = _steps(mean.shape[1:])[1]
            if self._prior is not None and self._prior.config.latent_dim != latent_dim:
                raise ValueError(
                    f"encode gave D={latent_dim} latent dimensions for a prior of latent_dim="
                    f"{self._prior.config.latent_dim}: give both the same"
                )
            self._like = mean.new_empty(mean.shape[1:])
        if mean.shape[1:] != self._like.shape:
            raise ValueError(
                f"encode gave z of shape {tuple(mean.shape[1:])} after {tuple(self._like.shape)}: "
                "give all examples one shape"
            )
        shape = (len(mean), *_steps(mean.shape[1:]))
        return DiagonalGaussian(mean.detach().float().reshape(shape), log_scale.detach().float().reshape(shape))

    def _distortion(self, inputs: Tensor, z: Tensor) -> Tensor:
        """What `distortion` gives, checked: (B,) nats."""
        assert self._like is not None
        answer = self.distortion(inputs, z.reshape(-1, *self._like.shape).to(self._like.dtype))
        if not isinstance(answer, Tensor) or answer.shape != (len(inputs),):
            given = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
            raise ValueError(
                f"distortion gave {given} for {len(inputs)} examples: it must be (B,), nats of each example, "
                "summed over its elements and not over examples"
            )
        _check_finite(answer, "distortion gave an answer", "compute it from logits, and check the model's weights")
        return answer.detach()

    def _check_independence(self, inputs: Tensor, z: Tensor, posterior: DiagonalGaussian, distortion: Tensor) -> None:
        """Refuse answers that depend on the other examples or on chance: a model in training mode."""
        half = len(inputs) // 2
        alone, rest = self._posterior(inputs[:half]), inputs[:half]
        for name, again, before in (
            ("encode", alone.mean, posterior.mean),
            ("encode", alone.log_scale, posterior.log_scale),
            ("distortion", self._distortion(rest, z[:half]), distortion),
        ):
            scale = _TOLERANCE * before.abs().mean().item()
            if not torch.allclose(again, before[:half], rtol=_TOLERANCE, atol=scale):
                raise ValueError(
                    f"{name} answers otherwise when asked again about the first {half} examples: "
                    "put the model into evaluation mode (model.eval()), and draw nothing in it"
                )


@dataclass(frozen=True)
class TensorBatch:
    """Examples of an outside VAE, each with its place; `dimensions` of each one, 0 where not known."""

    tensor: Tensor
    rows: list[int]
    dimensions: int = 0

    @property
    def modality(self) -> Modality:
        return EXAMPLES

    @property
    def steps(self) -> Tensor:
        """(b, 1): how many there are only the encoder knows."""
        return torch.ones(len(self.rows), 1, dtype=torch.bool, device=self.tensor.device)

    @property
    def units(self) -> Tensor:
        """(b,), dimensions."""
        return torch.full((len(self.rows),), self.dimensions, device=self.tensor.device)

    def inputs(self) -> dict[str, Tensor]:
        return {"inputs": self.tensor}

    def to(self, device: torch.device | str) -> TensorBatch:
        return replace(self, tensor=self.tensor.to(device))

    def part(self, rows: slice) -> TensorBatch:
        return replace(self, tensor=self.tensor[rows], rows=self.rows[rows])


def _steps(shape: torch.Size) -> tuple[int, int]:
    """(T, D) of an example's z: (T, D) as they are, anything else as one step."""
    return (shape[0], shape[1]) if len(shape) == 2 else (1, shape.numel())


def _check_finite(values: Tensor, what: str, remedy: str) -> None:
    """Raise `ValueError` if any value is not a finite number."""
    broken = int((~values.isfinite()).sum())
    if broken:
        raise ValueError(f"{what} with {broken} of {values.numel()} values not finite: {remedy}")
