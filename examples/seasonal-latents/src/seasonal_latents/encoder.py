"""An anti-causal encoder of any causal backbone of transformers: GPT-2, Llama, Mamba, yours, run from the end."""

# No `from __future__ import annotations` where there is a config: its types would not be checked.
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, GPT2Config, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from delta_vae_core import EncoderOutput, StrictConfig, check_token_ids, checked, flip, require


@checked
class BackboneEncoderConfig(StrictConfig):
    """`backbone`: a causal text model's config, or a dict with its `model_type`; GPT-2 of 4 layers if left out.

    `statistics_std` is the standard deviation of the head's weights: small, so that training starts near the committed
    rate, and not 0, since nothing can be learned from latents that carry nothing.
    """

    model_type = "seasonal_latents_backbone_encoder"
    sub_configs = {"backbone": AutoConfig}  # noqa: RUF012 - the form transformers reads
    backbone: PreTrainedConfig | dict[str, Any] | None = None
    latent_dim: int = 8
    statistics_std: float | int = 0.01

    def __post_init__(self, **kwargs: Any) -> None:
        if self.backbone is None:
            self.backbone = GPT2Config(n_layer=4, n_head=4, n_embd=256)
        elif isinstance(self.backbone, dict):
            self.backbone = AutoConfig.for_model(**self.backbone)
        super().__post_init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """Of the backbone; `DeltaVaeConfig` holds it against the decoder's."""
        return int(self.backbone.vocab_size)  # type: ignore[union-attr]

    def validate_latent_dim(self) -> None:
        require(self.latent_dim, "latent_dim", self.latent_dim >= 1, "an encoder needs at least one latent dimension")


class BackboneEncoder(PreTrainedModel):
    """x (B, L) tokens -> statistics (B, T, 2D), T = L; those of step t are made of x_{>=t} alone."""

    config_class = BackboneEncoderConfig
    config: BackboneEncoderConfig
    _supports_sdpa = True

    def __init__(self, config: BackboneEncoderConfig) -> None:
        super().__init__(config)
        self.backbone = AutoModel.from_config(config.backbone)
        self.statistics = nn.Linear(config.backbone.hidden_size, 2 * config.latent_dim)  # type: ignore[union-attr]
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.statistics:
            init.normal_(module.weight, std=self.config.statistics_std)
            init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """The backbone's, whose config holds the vocabulary's size."""
        return self.backbone.resize_token_embeddings(*args, **kwargs)

    def forward(
        self, x: Tensor | None = None, mask: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> EncoderOutput:
        """x (B, L) token ids (or their embeddings, (B, L, H)) and mask (B, L), padding on the right.

        Each row is reversed within its own length: its padding stays behind it, where a causal model never looks.
        """
        if inputs_embeds is None:
            assert x is not None, "give token ids or their embeddings"
            check_token_ids(x, self.config.vocab_size)
            inputs_embeds = self.get_input_embeddings()(x)
        if mask is None:
            mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
        hidden = self.backbone(inputs_embeds=flip(inputs_embeds, mask), use_cache=False).last_hidden_state
        return EncoderOutput(statistics=self.statistics(flip(hidden, mask)), mask=mask.bool())
