"""`DeltaVaeForCausalLM`: the text delta-VAE, with `generate`, `reconstruct` and `interpolate`.

`input_ids` (B, L + 1) are BOS x_1 ... x_n EOS, padded on the right. What is predicted is x = input_ids[:, 1:], EOS
included, with one latent for each: T = L. Input position i reads token i and z_{<=i}, and predicts token i + 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin
from transformers.generation import GenerationMode

from delta_vae.drawing import PLAIN_SETTINGS, draw_step_by_step
from delta_vae.latents import check_latents
from delta_vae.modeling_delta_vae import DeltaVaeModel, DeltaVaeOutput, spherical_interpolation
from delta_vae_core import DiagonalGaussian, check_right_padded, layers_as_built
from delta_vae_decoders import TextDecoder


@dataclass
class DeltaVaeCausalLMOutput(DeltaVaeOutput):
    """`DeltaVaeOutput`, or the decoder's answer: `logits` (B, L, V) and the key-value cache."""

    logits: Tensor | None = None
    past_key_values: Cache | None = None


class DeltaVaeForCausalLM(DeltaVaeModel, GenerationMixin):
    """A text delta-VAE. Called on sequences it gives the bound; asked for logits it is the decoder p(x_t | x_<t, z)."""

    main_input_name = "input_ids"

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.decoder.get_output_embeddings()

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the tables of encoder and decoder alike; the decoder's is returned."""
        if self.encoder is not None:
            self.encoder.resize_token_embeddings(new_num_tokens, *args, **kwargs)
        return self.decoder.resize_token_embeddings(new_num_tokens, *args, **kwargs)

    def targets(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What is predicted: tokens (B, L) and their mask (B, L), from input_ids and attention_mask (B, L + 1)."""
        if input_ids.dim() != 2 or input_ids.shape[1] < 2:
            raise ValueError(f"input_ids of shape {tuple(input_ids.shape)}: give (batch, BOS ... EOS), at least 2 long")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask of shape {tuple(mask.shape)} for input_ids {tuple(input_ids.shape)}; give the same"
            )
        bos = self.config.decoder.bos_token_id
        if input_ids.device.type != "cpu" or torch.compiler.is_compiling():  # no look at the values, which would wait
            torch._assert_async((mask[:, 1:] <= mask[:, :-1]).all(), "attention_mask: pad on the right")
            torch._assert_async((input_ids[:, 0] == bos).all(), "input_ids: every sequence starts with BOS")
        else:
            check_right_padded(mask)
            if bool((input_ids[:, 0] != bos).any()):
                raise ValueError(
                    f"a sequence starts with token {int(input_ids[input_ids[:, 0] != bos][0, 0])}, not with BOS={bos}: "
                    "use the model's own tokenizer, with add_special_tokens=True"
                )
        return input_ids[:, 1:], mask[:, 1:].bool()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | None = None,
        return_dict: bool | None = None,
    ) -> DeltaVaeCausalLMOutput:
        """The bound on sequences (see `targets`); or, with `latents`, a cache or `logits_to_keep`, next-token logits.

        `latents` (B, L, D) belong to the positions of `input_ids` and, where attention over them is full, may be more,
        of which `latent_mask` (B, T) says what counts; `logits_to_keep` 0 means all positions.
        """
        if return_dict is False:
            raise ValueError("return_dict=False: outputs are named here; read output.loss and so on")
        if latents is None and past_key_values is None and not use_cache and logits_to_keep is None:
            bound = super().forward(*self.targets(input_ids, attention_mask), noise, generator)
            return DeltaVaeCausalLMOutput(**bound)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        likelihood = self.decoder.read(input_ids, latents, latent_mask, past_key_values, last=logits_to_keep or 0)
        return DeltaVaeCausalLMOutput(logits=likelihood.logits, past_key_values=past_key_values)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> DiagonalGaussian:
        """q(z|x), (B, T, D), one latent a predicted token."""
        return super().encode(*self.targets(input_ids, attention_mask))

    def decode(self, latents: Tensor, **kwargs: Any) -> Tensor:
        """Token ids (B, up to T + 1), greedily unless told otherwise, from latents (B, T, D)."""
        return self.generate(latents=latents, **({"do_sample": False} | kwargs))

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        inputs: Tensor | None = None,
        *,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
        num_sequences: int = 1,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """`GenerationMixin.generate` given latents (B, T, D); (B, L + 1) token ids, BOS first.

        Without `inputs` it starts from BOS, `num_sequences` times or once for each of `latents`. Without `latents` they
        are drawn from the auxiliary prior, else the prior: those of a prompt's own positions too, for z given a prompt
        is not known. Where attention over latents is full they tell the length, and `latent_mask` (B, T) says what
        counts. `generator` decides latents and tokens, and then leaves torch's global random state as it was.
        """
        inputs = kwargs.pop("input_ids", inputs)
        attention_mask = kwargs.pop("attention_mask", None)
        if attention_mask is not None and not bool(attention_mask.all()):
            raise ValueError("attention_mask with zeros: prompts of different lengths are generated in separate calls")
        if (
            inputs is not None
            and inputs.shape[1] > 1
            and bool((inputs[:, -1] == self.config.decoder.eos_token_id).any())
        ):
            raise ValueError("the prompt ends with EOS, after which nothing follows: leave its last token out")
        check_latents(latents, num_sequences)
        if inputs is None:
            batch = num_sequences if latents is None else latents.shape[0]
            inputs = torch.full((batch, 1), self.config.decoder.bos_token_id, device=self.device)
        if self.config.latent_dim:
            needed = self._latent_steps(inputs.shape[1], latents, kwargs)
            if latents is None:
                latents = self.sample_latents(inputs.shape[0], needed, generator)
            if latents.shape[1] < needed:
                raise ValueError(
                    f"{latents.shape[1]} latents for {needed} steps: pass at least {needed}, "
                    f"or ask for at most {latents.shape[1] - inputs.shape[1] + 1} new tokens"
                )
            kwargs["latents"] = latents[:, :needed]
            if latent_mask is not None:
                kwargs["latent_mask"] = latent_mask[:, :needed]
        elif latents is not None:
            raise ValueError("latents were given to a model with latent_dim=0: leave them out")
        if "custom_generate" not in kwargs and self._draws_step_by_step(inputs, kwargs):
            kwargs["custom_generate"] = draw_step_by_step
        with _seeded(generator):
            return super().generate(inputs, **kwargs)  # type: ignore[misc,return-value]

    def _draws_step_by_step(self, inputs: Tensor, kwargs: dict[str, Any]) -> bool:
        """Whether `draw_step_by_step` can do what is asked: greedy or random draws from BOS by our own decoder."""
        settings = kwargs.get("generation_config") or self.generation_config
        return (
            isinstance(self.decoder, TextDecoder)
            and layers_as_built(self.decoder)
            and not self.training
            and inputs.shape[1] == 1
            and kwargs.keys() <= PLAIN_SETTINGS
            and settings.get_generation_mode() in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH)
            and settings.use_cache is not False
            and not settings.return_dict_in_generate
        )

    def _latent_steps(self, prompt: int, latents: Tensor | None, kwargs: dict[str, Any]) -> int:
        """Positions that will be read; where no length is asked for, one is set: all latents, or all positions."""
        settings = kwargs.get("generation_config") or self.generation_config
        new = kwargs.get("max_new_tokens", settings.max_new_tokens)
        length = kwargs.get("max_length", settings.max_length)
        if new is None and length is not None:
            new = length - prompt
        if new is None:
            steps = self.config.decoder.max_positions if latents is None else latents.shape[1]
            new = kwargs["max_new_tokens"] = steps - prompt + 1
        if new < 1:
            raise ValueError(
                f"a prompt of {prompt} tokens leaves {new} to generate: raise max_length or pass more latents"
            )
        return prompt + new - 1

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        latents: Tensor | None = None,
        latent_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The tokens that the cache has not read, with their latents."""
        past = int(past_key_values.get_seq_length()) if past_key_values is not None else 0
        if latents is not None and self.config.decoder.latent_attention == "causal":
            latents = latents[:, past : input_ids.shape[1]]
        return {
            "input_ids": input_ids[:, past:],
            "latents": latents,
            "latent_mask": latent_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }

    @torch.no_grad()
    def reconstruct(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Decode the posterior's mean, or a sample; beyond a sequence's own end the latents go on from the prior."""
        _, mask = self.targets(input_ids, attention_mask)
        posterior = self.encode(input_ids, attention_mask)
        latents = posterior.sample(generator) if sample else posterior.mean
        if self.config.decoder.latent_attention == "full":
            kwargs["latent_mask"] = mask
        return self.decode(self.prior.complete(latents, mask, generator), generator=generator, **kwargs)

    @torch.no_grad()
    def interpolate(
        self,
        first: Tensor,
        second: Tensor,
        steps: int = 5,
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Decode `steps` points on the arc between the posterior means of two sequences, (L + 1) ids each.

        What follows a sequence's EOS is padding. The shorter one's latents go on from the prior to the longer's length.
        """
        if steps < 2:
            raise ValueError(f"steps={steps}: an interpolation has at least its 2 ends; ask for 2 or more")
        means = [self.encode(self._to_eos(ids)[None]).mean for ids in (first, second)]
        longest = max(mean.shape[1] for mean in means)
        ends = []
        for mean in means:
            padded = nn.functional.pad(mean, (0, 0, 0, longest - mean.shape[1]))
            mask = torch.arange(longest, device=mean.device)[None] < mean.shape[1]
            ends.append(self.prior.complete(padded, mask, generator)[0])
        return self.decode(spherical_interpolation(ends[0], ends[1], steps), generator=generator, **kwargs)

    def _to_eos(self, ids: Tensor) -> Tensor:
        ids = ids.flatten()
        ends = (ids[1:] == self.config.decoder.eos_token_id).nonzero()
        return ids[: int(ends[0]) + 2] if len(ends) else ids


@contextlib.contextmanager
def _seeded(generator: torch.Generator | None) -> Iterator[None]:
    """Within, torch's global random state follows from `generator`; afterwards it is as before."""
    if generator is None:
        yield
        return
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # manual_seed seeds every one
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        yield
