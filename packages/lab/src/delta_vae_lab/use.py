"""What the command line does with a saved model: sample, reconstruct, interpolate, and evaluate it.

Text is printed, or written to a text file; images are drawn as one PNG grid. With the same seed the latents, tokens and
pixels are those of the model's own methods, given `torch.Generator().manual_seed(seed)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_lab.data import TokenizedText, load_tokenizer
from delta_vae_lab.evaluation import check_limits, evaluate
from delta_vae_lab.image_grid import Block, draw_grid
from delta_vae_lab.image_samples import Painter
from delta_vae_lab.run_folder import describe_device, provenance
from delta_vae_lab.samples import sample_sources
from delta_vae_lab.saved_model import SavedModel, load_examples, load_heldout, load_model, load_processor
from delta_vae_lab.sections import RunConfig
from delta_vae_lab.subject import evaluating
from delta_vae_lab.text_samples import Writer
from delta_vae_lab.verdict import render_table

MAX_NEW_TOKENS = 64
MOST_DRAWN = 1_000_000


def run_sample(
    model: str,
    *,
    count: int = 8,
    source: str | None = None,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    seed: int = 0,
    output: Path | None = None,
    as_json: bool = False,
) -> None:
    """Draw `count` texts or images; `source` as in `sample_latents`, of a decoder without latents None."""
    _check_count(count)
    saved = load_model(model)
    source, origin = _source(saved, source)
    target = _target(output, saved, "samples")
    maker = _maker(model, saved, seed)
    with evaluating(saved):
        if isinstance(maker, Painter):
            if max_new_tokens is not None:
                raise ValueError(f"max_new_tokens={max_new_tokens}: {model} is a model of images; leave it out")
            blocks = maker.samples(source, count, temperature)
            caption = f"{model}, seed {seed}; pixels drawn at temperature {temperature:g}"
            _draw(f"{_counted(count, 'sample')}, {origin}", caption, blocks, target, as_json)
            return
        if not 0 < temperature < float("inf"):
            raise ValueError(
                f"temperature={temperature}: tokens are drawn at a finite number above 0 (1: the model's own); give one"
            )
        longest = _max_new_tokens(maker.model, max_new_tokens)
        texts = [text for (text,) in maker.samples(source, count, longest, temperature)]
    _tell(texts, texts, target, as_json)


def run_reconstruct(
    model: str, data: str, *, count: int = 8, seed: int = 0, output: Path | None = None, as_json: bool = False
) -> None:
    """Decode the posterior means of the first `count` held-out examples, beside these."""
    _check_count(count)
    saved = _with_latents(model)
    target = _target(output, saved, "reconstructions")
    found = load_examples(model, saved, data, examples=count)
    maker = _maker(model, saved, seed)
    with evaluating(saved):
        if isinstance(maker, Painter):
            what = "Held-out images, each beside what is decoded from its posterior mean"
            blocks = maker.reconstructions(_levels(found.content))
            _draw(what, _caption(model, found.name, seed), blocks, target, as_json)
            return
        pairs = list(maker.reconstructed(_tokens(found.content), count))
    entries = [{"sentence": sentence, "reconstruction": text} for sentence, text in pairs]
    _tell([f"sentence:        {a}\nreconstruction:  {b}" for a, b in pairs], entries, target, as_json)


def run_interpolate(
    model: str,
    data: str,
    *,
    first: int = 0,
    second: int = 1,
    steps: int = 7,
    seed: int = 0,
    output: Path | None = None,
    as_json: bool = False,
) -> None:
    """Decode `steps` points on the arc between the posterior means of two held-out examples, counted from 0."""
    if steps < 2:
        raise ValueError(f"steps={steps}: an interpolation has at least its 2 ends; ask for 2 or more")
    for name, place in (("first", first), ("second", second)):
        if place < 0:
            raise ValueError(f"{name}={place}: held-out examples are counted from 0; give 0 or more")
    saved = _with_latents(model)
    target = _target(output, saved, "interpolation")
    found = load_examples(model, saved, data, examples=max(first, second) + 1)
    for name, place in (("first", first), ("second", second)):
        if place >= len(found):
            raise ValueError(f"{name}={place}: {found.name} has {len(found)} held-out examples; count them from 0")
    maker = _maker(model, saved, seed)
    with evaluating(saved):
        if isinstance(maker, Painter):
            what = f"From held-out image {first} to image {second}: the arc between their posterior means, decoded"
            blocks = maker.interpolations(_levels(found.content)[[first, second]], steps)
            _draw(what, _caption(model, found.name, seed), blocks, target, as_json)
            return
        start, way, end = maker.interpolated(_tokens(found.content), first, second, steps)
    lines = [f"{i / (steps - 1):.2f}  {text}" for i, text in enumerate(way)]
    content = {"from": start, "decoded": way, "to": end}
    _tell(["\n".join([f"from  {start}", *lines, f"to    {end}"])], content, target, as_json)


def run_evaluate(
    model: str,
    data: str,
    *,
    importance_samples: int = 64,
    importance_examples: int | None = None,
    examples: int | None = None,
    words: bool = True,
    seed: int = 0,
    as_json: bool = False,
) -> None:
    """Print the estimates of `evaluate` for a saved model on held-out data; `words`: perplexity a word too, of text."""
    check_limits(importance_samples, importance_examples=importance_examples)
    saved = load_model(model)
    heldout = load_heldout(model, saved, data, examples=examples)
    metrics = evaluate(
        saved,
        heldout.batches,
        words=heldout.words if words else None,
        seed=seed,
        importance_samples=importance_samples,
        importance_examples=importance_examples,
    )
    if not as_json:
        print(render_table(metrics, data=heldout.name, seed=seed))
        return
    result = {
        "model": model,
        **provenance(RunConfig(seed=seed), describe_device(saved.device, 1)),
        "data": {"name": heldout.name, **heldout.fingerprint},
        "metrics": metrics,
    }
    print(json.dumps(result, indent=2, allow_nan=False))


def check_new_file(path: Path) -> None:
    """Raise `ValueError` unless a file of that name may be made: nothing that exists is overwritten."""
    if path.exists():
        raise ValueError(f"{path}: exists and is not overwritten; move it away, or give another --output")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}; make it, or give another --output")


def _check_count(count: int) -> None:
    if not 1 <= count <= MOST_DRAWN:
        raise ValueError(f"count={count}: ask for 1 or more, at most {MOST_DRAWN:,}")


def _with_latents(name: str) -> SavedModel:
    model = load_model(name)
    if model.prior is None:
        raise ValueError(f"{name}: has no latents (latent_dim=0); give a model with a prior and an encoder")
    return model


def _source(model: SavedModel, asked: str | None) -> tuple[str, str]:
    """The source of z that was asked for, else the best that the model has, by name and in words."""
    sources = sample_sources(model)
    if asked is None:
        return next((name, sources[name]) for name in ("auxiliary", "prior", "decoder") if name in sources)
    if asked not in sources or asked == "decoder":
        there = "none, for it has no latents; leave --source out" if model.prior is None else " and ".join(sources)
        raise ValueError(f"source={asked!r}: is not one of this model's priors; there is {there}")
    return asked, sources[asked]


def _max_new_tokens(model: DeltaVaeForCausalLM, asked: int | None) -> int:
    most: int = model.config.decoder.max_positions
    if asked is None:
        return min(MAX_NEW_TOKENS, most)
    if not 1 <= asked <= most:
        raise ValueError(f"max_new_tokens={asked}: this model writes 1 to {most} tokens; ask for as many")
    return asked


def _maker(name: str, model: SavedModel, seed: int) -> Writer | Painter:
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model, DeltaVaeForImageGeneration):
        return Painter(model, load_processor(name), generator)
    return Writer(model, load_tokenizer(name), generator)


def _tokens(content: Any) -> TokenizedText:
    assert isinstance(content, TokenizedText)
    return content


def _levels(content: Any) -> Any:
    assert isinstance(content, np.ndarray)
    return content


def _target(output: Path | None, model: SavedModel, stem: str) -> Path | None:
    """The file to write: in OUTPUT if that is a folder; None for text that is only printed."""
    of_images = isinstance(model, DeltaVaeForImageGeneration)
    if output is None and not of_images:
        return None
    name = f"{stem}.png" if of_images else f"{stem}.txt"
    path = Path(name) if output is None else output / name if output.is_dir() else output
    if (path.suffix.lower() == ".png") is not of_images:
        what = "images are written as one .png" if of_images else "this is a model of text, which is no .png"
        raise ValueError(f"{path}: {what}; give another --output")
    check_new_file(path)
    return path


def _caption(model: str, data: str, seed: int) -> str:
    return f"{model} on {data}, seed {seed}; pixels drawn at temperature 1"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count > 1 else ''}"


def _draw(title: str, caption: str, blocks: Sequence[Block], target: Path | None, as_json: bool) -> None:
    """Write the grid, and say where."""
    assert target is not None
    grid = draw_grid(title, caption, blocks)
    partial = target.with_name(f"{target.name}.partial")
    grid.save(partial, format="png", optimize=True)
    partial.replace(target)
    print(json.dumps({"written": str(target)}) if as_json else f"Written to {target}.")


def _tell(
    paragraphs: Sequence[str], content: Sequence[Any] | Mapping[str, Any], target: Path | None, as_json: bool
) -> None:
    """Print the paragraphs, or the content as JSON; or write them to the file."""
    text = json.dumps(content, indent=2, ensure_ascii=False) if as_json else "\n\n".join(paragraphs)
    if target is None:
        print(text)
        return
    partial = target.with_name(f"{target.name}.partial")
    partial.write_text(f"{text}\n", encoding="utf-8")
    partial.replace(target)
    print(json.dumps({"written": str(target)}) if as_json else f"Written to {target}.")
