"""The image encoder: a causal pixel stack on the rotated image, so that a row sees itself and what is below."""

# Like every config module: no `from __future__ import annotations`.
import torch
from torch import Tensor, nn
from transformers import initialization as init

from delta_vae_core import (
    EncoderOutput,
    PixelConfig,
    PixelPreTrainedModel,
    PixelStack,
    check_images,
    checked,
    require,
    rotate,
    scaled,
)


@checked
class ImageEncoderConfig(PixelConfig):
    """`direction`: "anticausal" (z_r sees rows >= r, the paper's encoder) or "none" (z_r sees all of x, its ablation).

    `statistics_std` is the standard deviation of the statistics at initialisation, as in the text encoder: small, so
    that training starts near the committed rate, and not 0.
    """

    model_type = "delta_vae_image_encoder"
    direction: str = "anticausal"
    statistics_std: float | int = 0.05

    def validate_direction(self) -> None:
        require(self.direction, "direction", self.direction in ("anticausal", "none"), "use 'anticausal' or 'none'")
        require(self.latent_dim, "latent_dim", self.latent_dim >= 1, "an encoder needs at least one latent dimension")


class ImageEncoder(PixelPreTrainedModel):
    """x (B, C, H, W) levels -> statistics (B, T, 2D), one step a row: T = H.

    Razavi et al. 2019 pad a row and a column so that a strict stack sees the pixel itself; an inclusive stack sees the
    same pixels, without the padding. Non-causal statistics are linear in the pooled features of two passes of the same
    stack, over the image and over the rotated one: the encoder keeps the decoder's blueprint and, but for the last
    layer, the anti-causal encoder's parameters, so that the ablation compares what is seen and not what is built.
    """

    config_class = ImageEncoderConfig
    config: ImageEncoderConfig

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__(config)
        self.stack = PixelStack(config, "inclusive")
        passes = 2 if config.direction == "none" else 1
        self.norm = nn.LayerNorm(config.hidden_size)
        self.statistics = nn.Linear(passes * config.hidden_size, 2 * config.latent_dim)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.statistics:
            # Behind a layer norm the features have unit variance.
            init.normal_(module.weight, std=self.config.statistics_std * module.in_features**-0.5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> EncoderOutput:
        """x (B, C, H, W), integers 0 ... levels - 1. Images are not padded: there is no `mask` to give."""
        if mask is not None:
            raise ValueError("a mask was given with images: leave it out, every pixel counts")
        check_images(x, self.config.image_shape, self.config.levels)
        statistics = self.read(scaled(x, self.config.levels).to(self.dtype))
        return EncoderOutput(statistics=statistics, mask=torch.ones_like(statistics[:, :, 0], dtype=torch.bool))

    def read(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> statistics (B, T, 2D)."""
        features = [rotate(self.stack(rotate(pixels)))]
        if self.config.direction == "none":
            features.append(self.stack(pixels))
        # The mean over a row is smaller than its pixels; the norm undoes that.
        pooled = [self.norm(part.mean(3).transpose(1, 2)) for part in features]
        return self.statistics(torch.cat(pooled, dim=-1))
