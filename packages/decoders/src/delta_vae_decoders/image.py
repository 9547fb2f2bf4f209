"""The image decoder: a causal pixel stack that attends over the latents of the rows."""

# Like every config module: no `from __future__ import annotations`.
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from delta_vae_core import (
    PixelConfig,
    PixelPreTrainedModel,
    PixelStack,
    PixelSteps,
    check_images,
    checked,
    evaluation_mode,
    layers_as_built,
    require,
    scaled,
)
from delta_vae_decoders.pixel_likelihoods import (
    CategoricalPixels,
    DiscretizedLogisticMixture,
    PixelLikelihood,
    check_temperature,
)
from delta_vae_decoders.pixel_sampling import FullReading, draw_pixels


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
        latents, row_input = self._conditioning(latents, pixels.shape[0], pixels.dtype)
        return self._likelihood(self.stack(pixels, latents, row_input).permute(0, 2, 3, 1))

    def sample(
        self,
        num_images: int = 1,
        latents: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        use_cache: bool = True,
        progress: bool | None = None,
    ) -> Tensor:
        """Draw x (B, C, H, W) from p(x | z) given z (B, T, D), B = `num_images`: levels, uint8 where at most 256.

        A pixel is constant work apart from attention; without `use_cache` it is a whole `read`, for the same images up
        to rounding. Meanwhile dropout and autocast are off. `temperature` is that of the likelihood's `sample`.
        `progress` shows a bar; None shows one for images of 1,024 pixels and more where standard error is a terminal.
        """
        require(num_images, "num_images", num_images >= 1, "draw at least 1")
        check_temperature(temperature)
        _, height, width = self.config.image_shape
        with evaluation_mode(self), torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            latents, row_input = self._conditioning(latents, num_images, self.dtype)
            predict: Callable[[Tensor | None], PixelLikelihood]
            if use_cache and not layers_as_built(self):
                raise ValueError(
                    "use_cache=True: layers of the decoder were replaced or carry hooks (an adapter, quantisation, "
                    "offloading), which it would pass by; merge or remove them, or use use_cache=False"
                )
            if use_cache:
                predict = self._predict_from(PixelSteps(self.stack, num_images, latents, row_input))
            else:
                blank = torch.zeros(num_images, *self.config.image_shape, dtype=self.dtype, device=self.device)
                predict = FullReading(lambda pixels: self.read(pixels, latents), blank)
            drawn = draw_pixels(
                predict,
                height,
                width,
                self.config.levels,
                temperature=temperature,
                generator=generator,
                progress=progress,
            )
        return drawn.clone()  # autograd takes no tensor that was made in inference mode

    def _predict_from(self, steps: PixelSteps) -> Callable[[Tensor | None], PixelLikelihood]:
        weight, bias = self._head()

        def predict(last: Tensor | None) -> PixelLikelihood:
            parameters = F.linear(steps(last).to(weight.dtype), weight, bias)
            return self._from_parameters(parameters.view(len(parameters), 1, 1, -1))

        return predict

    def _likelihood(self, hidden: Tensor) -> PixelLikelihood:
        """From features (B, H, W, hidden)."""
        with torch.autocast(hidden.device.type, enabled=False):
            weight, bias = self._head()
            parameters = F.linear(hidden.to(weight.dtype), weight, bias)
        return self._from_parameters(parameters)

    def _head(self) -> tuple[Tensor, Tensor]:
        # In bfloat16 a mean in [-1, 1] would be as coarse as the 256 levels.
        dtype = torch.promote_types(self.head.weight.dtype, torch.float32)
        return self.head.weight.to(dtype), self.head.bias.to(dtype)

    def _from_parameters(self, parameters: Tensor) -> PixelLikelihood:
        kind = DiscretizedLogisticMixture if self.config.likelihood == "mixture" else CategoricalPixels
        return kind.from_parameters(parameters, self.config.channels, self.config.levels)

    def _conditioning(
        self, latents: Tensor | None, batch: int, dtype: torch.dtype
    ) -> tuple[Tensor | None, Tensor | None]:
        """The latents as the stack reads them, and what they add to the input of every row."""
        size, needed = self.config.latent_dim, (batch, self.config.height, self.config.latent_dim)
        if not size:
            if latents is not None:
                raise ValueError("latents were given to a decoder with latent_dim=0: leave them out")
            return None, None
        if latents is None:
            raise ValueError(f"no latents were given to a decoder with latent_dim={size}: pass (B, T, {size})")
        if latents.dim() == 3 and latents.shape[1] != needed[1]:
            raise ValueError(f"{latents.shape[1]} latents for {needed[1]} rows: pass {needed}, one latent a row")
        if tuple(latents.shape) != needed:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} for {batch} images: "
                f"the decoder needs {needed}, one latent a row"
            )
        latents = latents.to(dtype)
        return latents, None if self.latent_embedding is None else self.latent_embedding(latents)
