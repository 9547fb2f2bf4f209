"""A model that was saved with its tokenizer or image processor, and the held-out data that it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_core.verified import verify_local
from delta_vae_lab.data import (
    ImageSplits,
    TokenizedText,
    heldout_batches,
    heldout_image_batches,
    load_images,
    load_text,
    load_tokenizer,
    tokenize,
    word_count,
)
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.data.image_splits import Levels

SavedModel = DeltaVaeForCausalLM | DeltaVaeForImageGeneration


@dataclass(frozen=True)
class Examples:
    """The first examples of a split, in the order of the data and as the model reads them: tokens or levels.

    fingerprint: of all the data. words: the running words of sentences.
    """

    content: TokenizedText | Levels
    pad_token_id: int | None
    name: str
    fingerprint: dict[str, Any]
    words: int | None = None

    def __len__(self) -> int:
        return len(self.content)

    def batches(self, batch_size: int) -> list[Batch]:
        """Each example once; a batch's rows are places in the data."""
        if isinstance(self.content, TokenizedText):
            assert self.pad_token_id is not None
            return list(heldout_batches(self.content, batch_size, self.pad_token_id))
        return list(heldout_image_batches(self.content, batch_size))


@dataclass(frozen=True)
class Heldout:
    """Batches of held-out examples, where they are from, and, of text, its running words."""

    batches: Sequence[Batch]
    name: str
    fingerprint: dict[str, Any]
    words: int | None = None


def load_model(name: str) -> SavedModel:
    """The model of a folder, or of a name on the Hub, on the first GPU if there is one."""
    kind = DeltaVaeForImageGeneration if hasattr(_config(name).decoder, "image_shape") else DeltaVaeForCausalLM
    try:
        model: Any = kind.from_pretrained(name)
    except RuntimeError as error:  # of transformers, for weights of another shape
        raise ValueError(f"{name}: its weights do not fit its config.json; copy or download both again") from error
    placed: SavedModel = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return placed


def load_heldout(
    name: str, model: SavedModel, data: str, *, examples: int | None = None, batch_size: int = 64
) -> Heldout:
    """The first `examples` of the held-out part of `data`, read as the model `name` reads it; None is all."""
    if examples is not None and examples < 2:
        raise ValueError(f"examples={examples}: a standard error needs 2 or more; or leave it out for all")
    found = load_examples(name, model, data, examples=examples)
    return Heldout(found.batches(batch_size), found.name, found.fingerprint, found.words)


def load_examples(
    name: str, model: SavedModel, data: str, *, split: str = "heldout", examples: int | None = None
) -> Examples:
    """The first `examples` of a part of `data`, read as the model `name` reads it; None is all."""
    if examples is not None and examples < 1:
        raise ValueError(f"examples={examples}: must be at least 1; or leave it out for all")
    if split not in ("heldout", "train"):
        raise ValueError(f"split={split!r}: is not a part of the data; choose heldout or train")
    if isinstance(model, DeltaVaeForImageGeneration):
        return _image_examples(name, data, split, examples)
    return _text_examples(name, model, data, split, examples)


def _config(name: str) -> DeltaVaeConfig:
    if not name.strip():
        raise ValueError(f"model {name!r}: is no folder and no name; give the model/ of a run, or a name on the Hub")
    if Path(name).is_dir() and not Path(name, "config.json").is_file():
        raise ValueError(f"{name}: has no config.json; give the folder that save_pretrained wrote, the model/ of a run")
    verify_local(name, "", ["config.json"])
    hub_name = name.count("/") == 1 and not Path(name).is_absolute()  # the owner's may be that of a folder here too
    if not hub_name:
        _check_beside(name)
    try:
        config, _ = PreTrainedConfig.get_config_dict(name)
    except OSError:
        _check_beside(name)
        raise ValueError(
            f"{name}: neither the folder of a model nor the name of one on the Hub that was reached; "
            "give the model/ of a run"
        ) from None
    if not isinstance(config, dict):
        raise ValueError(f"{name}: its config.json is no JSON object; copy or download the checkpoint again")  # noqa: TRY004 - a user's file
    if config.get("model_type") != DeltaVaeConfig.model_type:
        raise ValueError(
            f"{name}: a model of type {config.get('model_type')!r}, not {DeltaVaeConfig.model_type!r}; "
            "any other VAE is examined in Python, by delta_vae_lab.doctor.diagnose of an OutsideVae; "
            "here give the model/ of a run"
        )
    return DeltaVaeConfig.from_pretrained(name)


def _check_beside(name: str) -> None:
    """Raise `ValueError`, with the folders that are there, where only the last part of a path is not."""
    beside = Path(name).parent
    if beside != Path() and beside.is_dir() and not Path(name).exists():
        there = ", ".join(sorted(folder.name for folder in beside.iterdir() if folder.is_dir())[:5]) or "no folder"
        raise ValueError(f"{name}: there is no such folder; {beside} has {there}") from None


def load_processor(name: str) -> DeltaVaeImageProcessor:
    """The image processor beside a model's weights."""
    try:
        return DeltaVaeImageProcessor.from_pretrained(name)
    except OSError:
        raise ValueError(f"{name}: has no preprocessor_config.json; give the model/ of a run") from None


def check_images_of(processor: DeltaVaeImageProcessor, name: str, images: ImageSplits, data: str) -> None:
    """Raise `ValueError` unless the images of `data` have the size and the values that the model `name` takes."""
    theirs = (*images.shape, images.levels)
    ours = (processor.channels, processor.height, processor.width, processor.input_levels)
    if theirs != ours:
        raise ValueError(
            f"data {data!r} has images of {_size(*theirs)}; {name} is a model of {_size(*ours)}: give data of its kind"
        )


def _image_examples(name: str, data: str, split: str, examples: int | None) -> Examples:
    processor = load_processor(name)
    square = processor.height == processor.width
    try:  # as `data.size` of a run; the name of the data says so if any is resized
        images = load_images(data, size=processor.height if square and data != "builtin" else None)
    except ValueError as error:
        raise ValueError(f"{name} is a model of images: {error}") from error
    check_images_of(processor, name, images, data)
    levels = images.train if split == "train" else images.heldout
    return Examples(
        processor.quantize(levels[:examples]), None, images.name, {**images.fingerprint, "levels": processor.levels}
    )


def _text_examples(name: str, model: DeltaVaeForCausalLM, data: str, split: str, examples: int | None) -> Examples:
    tokenizer = load_tokenizer(name)
    try:
        text = load_text(data)
    except ValueError as error:
        raise ValueError(f"{name} is a model of text: {error}") from error
    sentences = list(text.training_sentences(examples)) if split == "train" else text.heldout[:examples]
    return Examples(
        tokenize(tokenizer, sentences, max_length=model.config.decoder.max_positions),
        tokenizer.pad_token_id,
        text.name,
        text.fingerprint,
        words=sum(map(word_count, sentences)),
    )


def _size(channels: int, height: int, width: int, levels: int) -> str:
    return f"{channels} x {height} x {width} at {levels} levels"
