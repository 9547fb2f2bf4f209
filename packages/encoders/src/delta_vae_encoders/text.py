"""The text encoder: a Transformer that reads the present and the future, or everything."""

# Like every config module: no `from __future__ import annotations`.
import torch
from torch import Tensor, nn
from transformers import initialization as init

from delta_vae_core import (
    EncoderOutput,
    TransformerConfig,
    TransformerPreTrainedModel,
    TransformerStack,
    check_token_ids,
    checked,
    require,
)


@checked
class TextEncoderConfig(TransformerConfig):
    """`direction`: "anticausal" (z_t sees x_{>=t}, the paper's encoder) or "none" (z_t sees all of x, its ablation).

    `statistics_std` is the standard deviation of the statistics at initialisation: small, so that training starts near
    the committed rate, and not 0, since nothing can be learned from latents that carry nothing.
    """

    model_type = "delta_vae_text_encoder"
    direction: str = "anticausal"
    statistics_std: float | int = 0.05

    def validate_direction(self) -> None:
        require(self.direction, "direction", self.direction in ("anticausal", "none"), "use 'anticausal' or 'none'")
        require(self.latent_dim, "latent_dim", self.latent_dim >= 1, "an encoder needs at least one latent dimension")


class TextEncoder(TransformerPreTrainedModel):
    """x (B, L) tokens -> statistics (B, T, 2D) with T = L, and the step mask."""

    config_class = TextEncoderConfig
    config: TextEncoderConfig

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.stack = TransformerStack(config, config.direction)
        self.statistics = nn.Linear(config.hidden_size, 2 * config.latent_dim)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.statistics:
            # Behind a layer norm the features have unit variance.
            init.normal_(module.weight, std=self.config.statistics_std * self.config.hidden_size**-0.5)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.embedding = value

    def forward(
        self, x: Tensor | None = None, mask: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> EncoderOutput:
        """x (B, L) token ids (or their embeddings, (B, L, H)) and mask (B, L), padding on the right."""
        if inputs_embeds is None:
            assert x is not None, "give token ids or their embeddings"
            check_token_ids(x, self.config.vocab_size)
            inputs_embeds = self.embedding(x)
        if mask is None:
            mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
        return EncoderOutput(statistics=self.statistics(self.stack(inputs_embeds, mask)), mask=mask.bool())
