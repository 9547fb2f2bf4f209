"""What a text model writes: samples, reconstructions and interpolations, as text files that a person reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab.data.text_batches import collate
from delta_vae_lab.data.tokens import TokenizedText
from delta_vae_lab.samples import sample_sources
from delta_vae_lab.subject import evaluating


def write_text_samples(
    folder: Path,
    model: DeltaVaeForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    heldout: TokenizedText,
    *,
    data: str,
    generator: torch.Generator,
    count: int = 8,
    max_new_tokens: int = 64,
) -> None:
    """Write every kind of text that the model can: FOLDER/samples_*.txt, reconstructions.txt, interpolations.txt.

    Reconstructions are of the first `count` held-out sentences; half as many interpolations lead from each to the next.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = Writer(model, tokenizer, generator)
    longest = min(max_new_tokens, model.config.decoder.max_positions)
    with evaluating(model):
        for source, origin in sample_sources(model).items():
            title = f"{count} samples, {origin}; tokens drawn at temperature 1. Trained on {data}."
            _write(folder / f"samples_{source}.txt", title, writer.samples(source, count, longest))
        if model.prior is not None:
            title = f"Held-out sentences of {data}, each decoded again from its posterior mean, greedily."
            _write(folder / "reconstructions.txt", title, writer.reconstructions(heldout, count))
            title = (
                f"From a held-out sentence of {data} to the next: the arc between posterior means, decoded greedily."
            )
            _write(folder / "interpolations.txt", title, writer.interpolations(heldout, count // 2))


@dataclass(frozen=True)
class Writer:
    """Paragraphs of lines from a model in evaluation mode. The generator decides latents and tokens."""

    model: DeltaVaeForCausalLM
    tokenizer: PreTrainedTokenizerBase
    generator: torch.Generator

    def samples(self, source: str, count: int, max_new_tokens: int, temperature: float = 1.0) -> Iterator[list[str]]:
        """`count` texts; a "decoder" has no z, else it is from the "prior" or the "auxiliary" prior."""
        latents = None
        if source != "decoder":
            latents = self.model.sample_latents(count, max_new_tokens, self.generator, source)
        drawn = self.model.generate(
            latents=latents,
            num_sequences=count,
            generator=self.generator,
            do_sample=True,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
        )
        for ids in drawn:
            yield [self.text(ids)]

    def reconstructions(self, heldout: TokenizedText, count: int) -> Iterator[list[str]]:
        """A sentence and its reconstruction, as `reconstructed` gives them."""
        for sentence, text in self.reconstructed(heldout, count):
            yield [f"sentence:        {sentence}", f"reconstruction:  {text}"]

    def reconstructed(self, heldout: TokenizedText, count: int) -> Iterator[tuple[str, str]]:
        """A sentence, and what is decoded from its posterior mean. The z of the shorter ones goes on from the prior."""
        places = list(range(min(count, len(heldout))))
        batch = collate([heldout[i] for i in places], self.model.config.decoder.pad_token_id, places)
        batch = batch.to(self.model.device)
        decoded = self.model.reconstruct(batch.input_ids, batch.attention_mask, generator=self.generator)
        for sentence, ids in zip(batch.input_ids, decoded, strict=True):
            yield self.text(sentence), self.text(ids)

    def interpolations(self, heldout: TokenizedText, count: int, steps: int = 7) -> Iterator[list[str]]:
        """Two sentences, and the `steps` texts decoded on the way between them."""
        for first, second in pairwise(range(min(count + 1, len(heldout)))):
            start, way, end = self.interpolated(heldout, first, second, steps)
            lines = [f"{i / (steps - 1):.2f}  {text}" for i, text in enumerate(way)]
            yield [f"from  {start}", *lines, f"to    {end}"]

    def interpolated(self, heldout: TokenizedText, first: int, second: int, steps: int) -> tuple[str, list[str], str]:
        """The sentences of two places, and between them the `steps` texts decoded on the way."""
        start, end = (torch.from_numpy(heldout[place]).long().to(self.model.device) for place in (first, second))
        way = self.model.interpolate(start, end, steps, generator=self.generator)
        return self.text(start), [self.text(ids) for ids in way], self.text(end)

    def text(self, ids: Tensor) -> str:
        """On one line, up to its end of sentence; it says so if there is none. What cannot be printed is a �."""
        text = " ".join(str(self.tokenizer.decode(ids, skip_special_tokens=True)).split())
        text = "".join(character if character.isprintable() else "\ufffd" for character in text)
        ended = bool((ids == self.model.config.decoder.eos_token_id).any())
        return text if ended else f"{text} [no end in {len(ids) - 1} tokens]"


def _write(path: Path, title: str, entries: Iterable[list[str]]) -> None:
    paragraphs = ["\n".join(entry) for entry in entries]
    path.write_text("\n\n".join([title, *paragraphs]) + "\n", encoding="utf-8")
