"""The text decoder: an autoregressive Transformer that attends over the latents."""

# Like every config module: no `from __future__ import annotations`.
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache

from delta_vae_core import (
    StepLinear,
    TransformerConfig,
    TransformerPreTrainedModel,
    TransformerStack,
    TransformerSteps,
    check_token_ids,
    checked,
    layers_as_built,
    require,
)
from delta_vae_decoders.likelihoods import CategoricalLikelihood, LinearCategoricalLikelihood, TokenLikelihood


@checked
class TextDecoderConfig(TransformerConfig):
    """`latent_dim` 0 is the decoder without latents, the baseline: the same class, less the attention over z.

    `latent_attention`: "causal" (step t sees z_{<=t}) or "full" (all z, with the non-causal encoder). `add_latents`
    also adds a projection of z_t to the input embedding at t.
    """

    model_type = "delta_vae_text_decoder"
    latent_attention: str = "causal"
    add_latents: bool = False
    bos_token_id: int = 0
    eos_token_id: int = 1
    pad_token_id: int = 2
    tie_word_embeddings: bool = True

    @property
    def num_hidden_layers(self) -> int:
        """Number of key-value caches: one a layer for the tokens, one a layer for causally masked latents."""
        return self.num_layers * (2 if self.latent_dim and self.latent_attention == "causal" else 1)

    def validate_decoder(self) -> None:
        known = self.latent_attention in ("causal", "full")
        require(self.latent_attention, "latent_attention", known, "use 'causal' or 'full'")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(self, name)
            require(token, name, 0 <= token < self.vocab_size, f"must be a token of vocab_size={self.vocab_size}")


class TextDecoder(TransformerPreTrainedModel):
    """p(x_t | x_{<t}, z_{<=t}) for x (B, L) and z (B, T, D), T = L."""

    config_class = TextDecoderConfig
    config: TextDecoderConfig
    _tied_weights_keys = {"head.weight": "embedding.weight"}  # noqa: RUF012 - the form transformers reads

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.latent_embedding = (
            nn.Linear(config.latent_dim, config.hidden_size, bias=False)
            if config.latent_dim and config.add_latents
            else None
        )
        self.stack = TransformerStack(config, "causal", config.latent_dim, config.latent_attention)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.embedding = value

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.head = new_embeddings

    def forward(self, x: Tensor, latents: Tensor | None = None, mask: Tensor | None = None) -> TokenLikelihood:
        """The likelihood of the tokens x (B, L), mask (B, L): it reads BOS and x up to the last but one."""
        start = x.new_full((x.shape[0], 1), self.config.bos_token_id)
        return self.read(torch.cat((start, x[:, :-1]), dim=1), latents, latent_mask=mask)

    def read(
        self,
        tokens: Tensor | None = None,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        last: int = 0,
    ) -> TokenLikelihood:
        """What follows each of `tokens` (B, L), the first of them BOS; or `tokens` follow what `cache` holds.

        `latents`: one for each of `tokens` where the attention over them is causal, else all of them, of which
        `latent_mask` (B, T) says what counts. `last` > 0 gives the likelihood of only as many tokens, from the end.
        """
        if inputs_embeds is None:
            assert tokens is not None, "give token ids or their embeddings"
            check_token_ids(tokens, self.config.vocab_size)
            inputs_embeds = self.embedding(tokens)
        if self.config.latent_dim:
            latents = self._checked_latents(latents, *inputs_embeds.shape[:2]).to(inputs_embeds.dtype)
            if self.latent_embedding is not None:
                inputs_embeds = inputs_embeds + self.latent_embedding(self._aligned(latents, inputs_embeds, cache))
        elif latents is not None:
            raise ValueError("latents were given to a decoder with latent_dim=0: leave them out")
        hidden = self.stack(inputs_embeds, None, latents, latent_mask, cache)
        hidden = hidden[:, -last:] if last else hidden
        if layers_as_built(self.head):
            return LinearCategoricalLikelihood(hidden, self.head.weight)
        return CategoricalLikelihood(self.head(hidden))

    def step_by_step(
        self, batch: int, steps: int, latents: Tensor | None = None, latent_mask: Tensor | None = None
    ) -> Callable[[Tensor], Tensor]:
        """For drawing at most `steps` tokens: a function of the last ones (B,), BOS first, to the next logits (B, V).

        `latents` (B, T, D), T = steps where the attention over them is causal, and `latent_mask` are those of the whole
        sequence. The logits are `read`'s up to rounding. Call it in evaluation mode, under `torch.no_grad`, where
        `layers_as_built`.
        """
        shift: tuple[Tensor, ...] | None = None
        if self.config.latent_dim:
            latents = self._checked_latents(latents, batch, steps).to(self.dtype)
            if self.latent_embedding is not None:
                shift = self.latent_embedding(latents).unbind(1)
        run = TransformerSteps(self.stack, batch, steps, latents, latent_mask)
        table, head = self.embedding.weight, StepLinear.of(self.head, batch)

        def next_logits(tokens: Tensor) -> Tensor:
            x = F.embedding(tokens, table)
            return head(run(x if shift is None else x + shift[run.step]))

        return next_logits

    def _checked_latents(self, latents: Tensor | None, batch: int, steps: int) -> Tensor:
        size = self.config.latent_dim
        if latents is None:
            raise ValueError(f"no latents were given to a decoder with latent_dim={size}: pass (B, T, {size})")
        aligned = self.config.latent_attention == "full" or latents.shape[1] == steps
        if latents.dim() != 3 or latents.shape[0] != batch or latents.shape[2] != size or not aligned:
            raise ValueError(
                f"latents of shape {tuple(latents.shape)} for tokens {(batch, steps)}: "
                f"the decoder needs {(batch, steps, size)}, one latent a predicted token"
            )
        return latents

    def _aligned(self, latents: Tensor, embeddings: Tensor, cache: Cache | None) -> Tensor:
        if self.config.latent_attention == "causal":
            return latents
        past = int(cache.get_seq_length()) if cache is not None else 0
        return latents[:, past : past + embeddings.shape[1]]
