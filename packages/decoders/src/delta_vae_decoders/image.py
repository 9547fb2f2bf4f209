"""The image decoder: a causal pixel stack that attends over the latents of the rows."""

# Like every config module: no `from __future__ import annotations`.
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from delta_vae_core import PixelConfig, PixelPreTrainedModel, PixelStack, check_images, checked, require, scaled
from delta_vae_decoders.likelihoods import CategoricalPixels, DiscretizedLogisticMixture

PixelLikelihood = DiscretizedLogisticMixture | CategoricalPixels


@checked
class ImageDecoderConfig(PixelConfig):
    """`latent_dim` 0 is the decoder without latents, the baseline: the same class, less the attention over z.

    `likelihood`: "mixture" (of `components` discretised logistics, the paper's) or "categorical" (over the levels).
    `latent_attention`: "causal" (row r sees z_{<=r}) or "full" (all z, with the non-causal encoder). `add_latents` also
    adds a projection of z_r to the input of row r.
    """

    model_type = "delta_vae_image_decoder"
    likelihood: str = "mixture"
    components: int = 10
    latent_attention: str = "causal"
    add_latents: bool = False

    def validate_decoder(self) -> None:
        known = self.likelihood in ("mixture", "categorical")
        require(self.likelihood, "likelihood", known, "use 'mixture' or 'categorical'")
        require(self.components, "components", self.components >= 1, "must be at least 1")
        known = self.latent_attention in ("causal", "full")
        require(self.latent_attention, "latent_attention", known, "use 'causal' or 'full'")


class ImageDecoder(PixelPreTrainedModel):
    """p(x_{r,c} | earlier pixels, z_{<=r}) for x (B, C, H, W) and z (B, T, D), one latent a row: T = H."""

    config_class = ImageDecoderConfig
    config: ImageDecoderConfig

    def __init__(self, config: ImageDecoderConfig) -> None:
        super().__init__(config)
        self.latent_embedding = (
            nn.Linear(config.latent_dim, config.hidden_size, bias=False)
            if config.latent_dim and config.add_latents
            else None
        )
        self.stack = PixelStack(config, "strict", config.latent_dim, config.latent_attention)
        self.head = nn.Linear(config.hidden_size, self._head_bias().numel())
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.head:
            # Small behind a layer norm: training starts from the bias, which is near the uniform distribution.
            init.normal_(module.weight, std=0.1 * module.in_features**-0.5)
            init.copy_(module.bias, self._head_bias())

    def _head_bias(self) -> Tensor:
        if self.config.likelihood == "mixture":
            return DiscretizedLogisticMixture.initial_parameters(self.config.components, self.config.channels)
        return torch.zeros(self.config.channels * self.config.levels, device="cpu")

    def forward(self, x: Tensor, latents: Tensor | None = None, mask: Tensor | None = None) -> PixelLikelihood:
        """The likelihood of x (B, C, H, W), integers 0 ... levels - 1; there is no `mask` to give."""
        if mask is not None:
            raise ValueError("a mask was given with images: leave it out, every pixel counts")
        check_images(x, self.config.image_shape, self.config.levels)
        return self.read(scaled(x, self.config.levels).to(self.dtype), latents)

    def read(self, pixels: Tensor, latents: Tensor | None = None) -> PixelLikelihood:
        """The same for (B, C, H, W) in [-1, 1]."""
        row_input = None
        if self.config.latent_dim:
            latents = self._checked_latents(latents, pixels)
            row_input = None if self.latent_embedding is None else self.latent_embedding(latents)
        elif latents is not None:
            raise ValueError("latents were given to a decoder with latent_dim=0: leave them out")
        return self._likelihood(self.stack(pixels, latents, row_input))

    def _likelihood(self, hidden: Tensor) -> PixelLikelihood:
        # In bfloat16 a mean in [-1, 1] would be as coarse as the 256 levels.
        with torch.autocast(hidden.device.type, enabled=False):
            dtype = torch.promote_types(hidden.dtype, torch.float32)
            weight, bias = self.head.weight.to(dtype), self.head.bias.to(dtype)
            parameters = F.linear(hidden.permute(0, 2, 3, 1).to(dtype), weight, bias)
        kind = DiscretizedLogisticMixture if self.config.likelihood == "mixture" else CategoricalPixels
        return kind.from_parameters(parameters, self.config.channels, self.config.levels)

    def _checked_latents(self, latents: Tensor | None, pixels: Tensor) -> Tensor:
        size, needed = self.config.latent_dim, (pixels.shape[0], self.config.height, self.config.latent_dim)
        if latents is None:
            raise ValueError(f"no latents were given to a decoder with latent_dim={size}: pass (B, T, {size})")
        if tuple(latents.shape) != needed:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} for images {tuple(pixels.shape)}: "
                f"the decoder needs {needed}, one latent a row"
            )
        return latents.to(pixels.dtype)
