"""Drawing text token by token from BOS, with the decoder's weights and caches laid out for it."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import LongTensor, Tensor
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

# What can be asked of `generate` here; with anything else it goes its own way.
PLAIN_SETTINGS = {
    "generation_config",
    "latents",
    "latent_mask",
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
    "min_length",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "eos_token_id",
    "pad_token_id",
    "num_return_sequences",
    "logits_processor",
    "stopping_criteria",
}


def draw_step_by_step(
    model: Any,
    input_ids: Tensor,
    *,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    **inputs: Any,
) -> Tensor:
    """The decoding loop of `GenerationMixin.generate` for greedy and random draws: (B, 1) BOS -> (B, L + 1) token ids.

    The same tokens as `generate(use_cache=True)` gives from the same random state, up to rounding of the logits.
    `latents` and `latent_mask` are among `inputs`: what this signature named would not be repeated for several draws.
    """
    batch, most = len(input_ids), generation_config.max_length - 1
    next_logits = model.decoder.step_by_step(batch, most, inputs.get("latents"), inputs.get("latent_mask"))
    ends = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    pad = generation_config._pad_token_tensor if ends else None
    ids = input_ids.new_empty(batch, most + 1)
    ids[:, :1] = input_ids
    drawing = torch.ones(batch, dtype=torch.bool, device=ids.device)
    for length in range(1, most + 1):
        logits: Any = next_logits(ids[:, length - 1]).float()
        scores = logits
        for process in logits_processor:  # the list, called, would look up each one's signature
            scores = process(cast("LongTensor", ids[:, :length]), scores)
        drawn = torch.multinomial(scores.softmax(-1), 1)[:, 0] if generation_config.do_sample else scores.argmax(-1)
        ids[:, length] = drawn if pad is None else torch.where(drawing, drawn, pad)
        drawing = drawing & ~stopping_criteria(ids[:, : length + 1], None)
        if not bool(drawing.any()):
            return ids[:, : length + 1].clone()
    return ids
