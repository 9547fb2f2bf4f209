"""How examples and decodings of a kind of data are put on a page: sentences as text, images as data: URIs."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_lab.data import load_tokenizer
from delta_vae_lab.randomness import generator
from delta_vae_lab.saved_model import SavedModel, load_processor
from delta_vae_lab.text_samples import Writer

AT_ONCE = 128  # sentences or images decoded together


class Medium(Protocol):
    """What the explorer asks of a kind of data. Latents are complete, (M, T, D), for M examples and their mask (M, T).

    how: in words, how `decoded` decodes. pooled: whether examples differ in length, so that only what is pooled over
    their steps can be compared.
    """

    @property
    def how(self) -> str: ...

    @property
    def pooled(self) -> bool: ...

    def shown(self, x: Tensor) -> list[str]:
        """Targets (N, ...) of a `Record`: each one's text or picture."""
        ...

    def pieces(self, x: Tensor) -> list[str] | None:
        """The text of every predicted token of (n,), of which each has its latent step; None for images."""
        ...

    def decoded(self, latents: Tensor, mask: Tensor) -> list[list[str]]:
        """V variants of the latents, (V, M, T, D) -> V x M decodings, of which only z makes the difference."""
        ...

    def drawn(self, latents: Tensor, mask: Tensor, count: int) -> list[list[str]]:
        """`count` draws at temperature 1 from each z: M x count."""
        ...

    def size(self, steps: int) -> int:
        """About as many bytes as a decoding of so many steps takes on the page."""
        ...


@dataclass(frozen=True)
class TextMedium:
    """Sentences: decoded greedily, and compared by their latents' mean over steps."""

    model: DeltaVaeForCausalLM
    tokenizer: PreTrainedTokenizerBase
    seed: int
    how: str = "decoded greedily, so that only z changes"
    pooled: bool = True

    def shown(self, x: Tensor) -> list[str]:
        return [self._text(ids) for ids in x]

    def pieces(self, x: Tensor) -> list[str]:
        eos = self.model.config.decoder.eos_token_id
        texts = (str(self.tokenizer.decode([token])) if token != eos else "⟨end⟩" for token in x.tolist())
        return ["".join(character if character.isprintable() else "\ufffd" for character in text) for text in texts]

    def decoded(self, latents: Tensor, mask: Tensor) -> list[list[str]]:
        count = latents.shape[1]
        texts: list[str] = []
        for z, counted in _together(latents.flatten(0, 1), mask.repeat(len(latents), 1)):
            texts += map(self._text, self.model.decode(z, **self._latent_mask(counted)))
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def drawn(self, latents: Tensor, mask: Tensor, count: int) -> list[list[str]]:
        chance = generator(self.seed, "explorer", 0)
        texts: list[str] = []
        for z, counted in _together(latents.repeat_interleave(count, 0), mask.repeat_interleave(count, 0)):
            ids = self.model.decode(z, do_sample=True, generator=chance, **self._latent_mask(counted))
            texts += map(self._text, ids)
        return [texts[start : start + count] for start in range(0, len(texts), count)]

    def size(self, steps: int) -> int:
        return 6 * steps

    def _latent_mask(self, mask: Tensor) -> dict[str, Tensor]:
        return {"latent_mask": mask} if self.model.config.decoder.latent_attention == "full" else {}

    def _text(self, ids: Tensor) -> str:
        return Writer(self.model, self.tokenizer, torch.Generator()).text(ids)


@dataclass(frozen=True)
class ImageMedium:
    """Images: an example's decodings are all drawn with the same noise, and compared by all latents."""

    model: DeltaVaeForImageGeneration
    processor: DeltaVaeImageProcessor
    seed: int
    how: str = "drawn at temperature 1 with the same noise each time, so that only z changes"
    pooled: bool = False

    def shown(self, x: Tensor) -> list[str]:
        return list(map(_data_uri, self.processor.postprocess(x)))

    def pieces(self, x: Tensor) -> None:
        return None

    def decoded(self, latents: Tensor, mask: Tensor) -> list[list[str]]:
        # The noise of a row is that of its place in the call: each variant is a call of its own, seeded as the others.
        variants = tqdm(latents, desc="decoding", unit=" variants", disable=not sys.stderr.isatty())
        return [self._drawn(z, generator(self.seed, "explorer", 1)) for z in variants]

    def drawn(self, latents: Tensor, mask: Tensor, count: int) -> list[list[str]]:
        chance = generator(self.seed, "explorer", 0)
        images: list[str] = []
        for z in latents.repeat_interleave(count, 0).split(AT_ONCE):
            images += self._drawn(z, chance)
        return [images[start : start + count] for start in range(0, len(images), count)]

    def size(self, steps: int) -> int:
        pixels = self.processor.height * self.processor.width * self.processor.channels
        return 100 + pixels * 4 // 3  # a PNG of noise, in base64

    def _drawn(self, latents: Tensor, chance: torch.Generator) -> list[str]:
        return self.shown(self.model.decode(latents, generator=chance, progress=False))


def medium_of(name: str, model: SavedModel, seed: int) -> Medium:
    """That of the model, with the tokenizer or image processor saved beside it."""
    if isinstance(model, DeltaVaeForImageGeneration):
        return ImageMedium(model, load_processor(name), seed)
    return TextMedium(model, load_tokenizer(name), seed)


def _together(*tensors: Tensor) -> Iterator[Sequence[Tensor]]:
    return zip(*(tensor.split(AT_ONCE) for tensor in tensors), strict=True)


def _data_uri(image: Image.Image) -> str:
    png = io.BytesIO()
    image.save(png, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
