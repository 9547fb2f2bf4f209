"""A text decoder of one GRU conditioned on the latents, whose cache is the key-value cache of transformers."""

# No `from __future__ import annotations` where there is a config: its types would not be checked.
from typing import cast

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import CacheLayerMixin

from delta_vae_core import StrictConfig, check_token_ids, checked, require
from delta_vae_decoders import CategoricalLikelihood


@checked
class GRUDecoderConfig(StrictConfig):
    """`hidden_size` H of the GRU; `max_positions` is where generation ends if nothing else ends it."""

    model_type = "seasonal_latents_gru_decoder"
    vocab_size: int = 8192
    hidden_size: int = 256
    latent_dim: int = 8
    max_positions: int = 512
    bos_token_id: int = 0
    eos_token_id: int = 1
    pad_token_id: int = 2

    @property
    def latent_attention(self) -> str:
        """Step t reads z_{<=t} and no later ones."""
        return "causal"

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the cache: the GRU's states."""
        return 1

    def validate_sizes(self) -> None:
        for name in ("vocab_size", "hidden_size", "latent_dim", "max_positions"):
            require(getattr(self, name), name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(self, name)
            require(token, name, 0 <= token < self.vocab_size, f"must be a token of vocab_size={self.vocab_size}")


class GRUDecoder(PreTrainedModel):
    """p(x_t | x_{<t}, z_{<=t}) for x (B, L) and z (B, T, D), T = L: h_t = GRU(h_{t-1}, [x_{t-1}, z_t])."""

    config_class = GRUDecoderConfig
    config: GRUDecoderConfig

    def __init__(self, config: GRUDecoderConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.gru = nn.GRU(config.hidden_size + config.latent_dim, config.hidden_size, batch_first=True)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        bound = self.config.hidden_size**-0.5
        if isinstance(module, nn.GRU | nn.Linear):
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.embedding = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.head = new_embeddings

    def forward(self, x: Tensor, latents: Tensor | None = None, mask: Tensor | None = None) -> CategoricalLikelihood:
        """The likelihood of the tokens x (B, L): it reads BOS and x up to the last but one. Padding comes after."""
        start = x.new_full((x.shape[0], 1), self.config.bos_token_id)
        return self.read(torch.cat((start, x[:, :-1]), dim=1), latents)

    def read(
        self,
        tokens: Tensor | None = None,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        last: int = 0,
    ) -> CategoricalLikelihood:
        """What follows each of `tokens` (B, L), the first of them BOS; or `tokens` follow what `cache` holds.

        `latents` (B, L, D) are those of `tokens`. `last` > 0 gives the likelihood of only as many tokens, from the end.
        """
        if inputs_embeds is None:
            assert tokens is not None, "give token ids or their embeddings"
            check_token_ids(tokens, self.config.vocab_size)
            inputs_embeds = self.embedding(tokens)
        needed = (*inputs_embeds.shape[:2], self.config.latent_dim)
        if latents is None or latents.shape != needed:
            found = "none" if latents is None else f"shape {tuple(latents.shape)}"
            raise ValueError(f"latents: got {found}, but the decoder needs {needed}, one a predicted token")
        state = _last_state(cache)
        hidden, _ = self.gru(torch.cat((inputs_embeds, latents.to(inputs_embeds.dtype)), dim=-1), state)
        if cache is not None:
            states = hidden[:, None]
            cache.update(states, states[..., :0], 0)
        return CategoricalLikelihood(self.head(hidden[:, -last:] if last else hidden))


def _last_state(cache: Cache | None) -> Tensor | None:
    """h after what the cache has read, (1, B, H): the states are kept as the keys of one head, (B, 1, L, H)."""
    read = int(cache.get_seq_length()) if cache is not None else 0
    if cache is None or not read:
        return None
    keys = cast(CacheLayerMixin, cache.layers[0]).keys
    assert keys is not None
    return keys[:, 0, read - 1][None].contiguous()
