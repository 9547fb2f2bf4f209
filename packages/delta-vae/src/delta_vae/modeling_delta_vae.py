"""`DeltaVaeModel`: any prior, encoder and decoder composed into a VAE, and its variational bound."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoModel
from transformers.utils import ModelOutput

from delta_vae.configuration_delta_vae import DeltaVaeConfig, is_installed
from delta_vae.objectives import negative_elbo
from delta_vae_core import DiagonalGaussian
from delta_vae_core.verified import VerifiedPreTrainedModel, weight_files


@dataclass
class DeltaVaeOutput(ModelOutput):
    """The parts of the bound, raw and in nats, each (B,) a sequence or image unless said otherwise.

    loss             scalar, the negative ELBO averaged over the batch; its gradient trains the auxiliary prior too
    rate             KL(q(z|x) || p(z)) against the training prior; against an LSTM its estimate at the one sample
    distortion       -ln p(x|z) at one sample of z
    committed_rate   what the rate cannot fall below
    kl               (B, T, D), the rate by step and dimension
    auxiliary_rate   the rate against the auxiliary prior, whose gradient reaches nothing but that prior
    latents          (B, T, D), the sample;  posterior  q(z|x);  mask  (B, T), the steps that count
    """

    loss: Tensor | None = None
    rate: Tensor | None = None
    distortion: Tensor | None = None
    committed_rate: Tensor | None = None
    kl: Tensor | None = None
    auxiliary_rate: Tensor | None = None
    latents: Tensor | None = None
    posterior: DiagonalGaussian | None = None
    mask: Tensor | None = None


class DeltaVaePreTrainedModel(VerifiedPreTrainedModel):
    """Loading and saving. A checkpoint that is incomplete or damaged is refused by name, never filled in silently."""

    config_class = DeltaVaeConfig
    config: DeltaVaeConfig
    base_model_prefix = ""
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    # type: ignore: theirs names every option; here they are passed on, and what comes back is looked at.
    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        wants_info = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(path, *args, output_loading_info=True, **kwargs)
        model, info = loaded
        missing = sorted(info["missing_keys"])
        if missing:
            raise ValueError(
                f"{path}: the checkpoint lacks {len(missing)} weights of {cls.__name__} (first: {missing[0]}): "
                "load it with the class and config that saved it"
            )
        return loaded if wants_info else model

    @classmethod
    def check_folder(cls, folder: Path, variant: str | None) -> None:
        super().check_folder(folder, variant)
        _check_checkpoint(folder, variant)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoModel") -> None:
        """For a class of one's own; those of this package are installed, not copied beside what is saved."""
        if not is_installed(cls):
            super().register_for_auto_class(auto_class)


class DeltaVaeModel(DeltaVaePreTrainedModel):
    """-ln p(x) <= distortion + rate, with KL(q || p) >= committed rate for every setting of the parameters."""

    def __init__(self, config: DeltaVaeConfig) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.encoder) if config.encoder is not None else None
        self.prior = AutoModel.from_config(config.prior) if config.prior is not None else None
        self.decoder = AutoModel.from_config(config.decoder)
        auxiliary = config.auxiliary_prior
        self.auxiliary_prior = AutoModel.from_config(auxiliary) if auxiliary is not None else None
        self.post_init()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> DeltaVaeOutput:
        """The bound on x: tokens (B, L), of which `mask` (B, L) says what counts, or an image's levels (B, C, H, W).

        z is one sample of the posterior, made from `noise` (B, T, D) if given, else drawn from `generator`.
        """
        if self.encoder is None:
            distortion = _distortion(self.decoder(x, None, mask).log_prob(x), mask)
            nothing = torch.zeros_like(distortion)
            return DeltaVaeOutput(
                loss=distortion.mean(), rate=nothing, distortion=distortion, committed_rate=nothing, mask=mask
            )
        encoded = self.encoder(x, mask)
        posterior = self.prior.posterior(encoded.statistics, encoded.mask)
        if noise is not None and noise.shape != posterior.mean.shape:
            raise ValueError(f"noise of shape {tuple(noise.shape)}: z needs {tuple(posterior.mean.shape)}")
        latents = posterior.sample(generator, noise)
        kl = self.prior.kl(posterior, encoded.mask, latents)
        rate = kl.sum((1, 2))
        distortion = _distortion(self.decoder(x, latents, mask).log_prob(x), mask)
        loss, auxiliary_rate = negative_elbo(rate, distortion).mean(), None
        if self.auxiliary_prior is not None:
            auxiliary_rate = self.auxiliary_prior.kl(posterior, encoded.mask, latents).sum((1, 2))
            # Adds nothing to the value, and to the gradients only the auxiliary prior's own.
            loss = loss + (auxiliary_rate - auxiliary_rate.detach()).mean()
        return DeltaVaeOutput(
            loss=loss,
            rate=rate,
            distortion=distortion,
            committed_rate=self.prior.committed_rate(encoded.mask.sum(1)).to(rate.dtype),
            kl=kl,
            auxiliary_rate=auxiliary_rate,
            latents=latents,
            posterior=posterior,
            mask=encoded.mask,
        )

    def encode(self, x: Tensor, mask: Tensor | None = None) -> DiagonalGaussian:
        """q(z|x), (B, T, D)."""
        self._need_latents("encode")
        encoded = self.encoder(x, mask)  # type: ignore[misc]
        return self.prior.posterior(encoded.statistics, encoded.mask)

    @torch.no_grad()
    def sample_latents(
        self, batch: int, steps: int, generator: torch.Generator | None = None, source: str | None = None
    ) -> Tensor:
        """(batch, steps, D) from the "auxiliary" prior where there is one (the default), else from the "prior"."""
        self._need_latents("sample_latents")
        if source is None:
            source = "prior" if self.auxiliary_prior is None else "auxiliary"
        if source not in ("auxiliary", "prior"):
            raise ValueError(f"source={source!r}: draw latents from 'auxiliary' or 'prior'")
        prior = self.prior if source == "prior" else self.auxiliary_prior
        if prior is None:
            raise ValueError("source='auxiliary': this model has no auxiliary prior; use source='prior'")
        return prior.sample(batch, steps, generator, self.device)

    def _need_latents(self, what: str) -> None:
        if self.encoder is None:
            raise ValueError(
                f"{what}: this model has no latents (latent_dim=0); use a model with a prior and an encoder"
            )


def spherical_interpolation(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """cos(w pi/2) a + sin(w pi/2) b for w from 0 to 1: (T, D) twice -> (steps, T, D).

    The weights' squares sum to 1, so between two independent draws of a Gaussian process with mean 0, such as the AR(1)
    prior, every point is again a draw of it; a straight line would shrink its variance.
    """
    angle = torch.linspace(0, torch.pi / 2, steps, device=a.device)[:, None, None]
    return angle.cos() * a + angle.sin() * b


def _distortion(log_prob: Tensor, mask: Tensor | None) -> Tensor:
    """-ln p(x|z) of tokens or pixels, (B, L) -> (B,), over what the mask counts."""
    if mask is not None:
        log_prob = torch.where(mask.bool(), log_prob, 0.0)
    return -log_prob.sum(1)


def _check_checkpoint(folder: Path, variant: str | None) -> None:
    """Raise `ValueError`, naming the file, unless the folder's config and weights are there and whole."""
    config = folder / "config.json"
    weights, index = (folder / name for name in weight_files(variant))
    if not config.is_file():
        raise ValueError(f"{config}: not found; give the folder that save_pretrained wrote")
    _read_json(config)
    shards = [weights]
    if index.is_file() and not weights.is_file():
        try:
            shards = [folder / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"{index}: damaged (no weight_map); copy or download the checkpoint again") from None
    for shard in shards:
        if not shard.is_file():
            raise ValueError(f"{shard}: not found; the checkpoint is incomplete, copy or download it again")
        try:
            with safe_open(shard, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{shard}: damaged or truncated ({error}); copy or download it again") from None


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: damaged ({error}); copy or download the checkpoint again") from None
