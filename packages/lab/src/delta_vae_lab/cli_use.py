"""Verbs of `delta-vae` that use a saved model: sample, reconstruct, interpolate, encode, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from delta_vae_lab.options import Data, Debug, Json, Model, Seed, verb

commands = typer.Typer()

SAMPLE_EXAMPLES = """\b
Examples:
  delta-vae sample runs/lm1b-small/model --count 3 --temperature 0.8
  delta-vae sample runs/cifar10-quickstart/model --count 64 --output digits.png
"""
RECONSTRUCT_EXAMPLES = """\b
Examples:
  delta-vae reconstruct runs/lm1b-small/model --data corpus/ --count 4
  delta-vae reconstruct runs/cifar10-quickstart/model --data builtin --output pairs.png
"""
INTERPOLATE_EXAMPLES = """\b
Examples:
  delta-vae interpolate runs/lm1b-small/model --data corpus/ --first 3 --second 8
  delta-vae interpolate runs/cifar10-quickstart/model --data builtin --steps 12 --output way.png
"""
ENCODE_EXAMPLES = """\b
Examples:
  delta-vae encode runs/lm1b-small/model --data corpus/ --output latents.safetensors
  delta-vae encode runs/cifar10-quickstart/model --data builtin --split train --output train.safetensors
"""
EVALUATE_EXAMPLES = """\b
Examples:
  delta-vae evaluate runs/lm1b-small/model --data corpus/ --examples 1000 --importance-samples 16
  delta-vae evaluate runs/cifar10-quickstart/model --data builtin --json
"""

Made = Annotated[
    Path | None,
    typer.Option(help="a new file, or a folder to make one in; else text is printed and images go to a PNG here"),
]


@commands.command(epilog=SAMPLE_EXAMPLES)
def sample(
    model: Model,
    count: Annotated[int, typer.Option(help="texts or images")] = 8,
    source: Annotated[
        str | None, typer.Option(help="of z: auxiliary or prior; else the auxiliary prior where there is one")
    ] = None,
    temperature: Annotated[float, typer.Option(help="of the tokens or pixels, not of z")] = 1.0,
    max_new_tokens: Annotated[int | None, typer.Option(help="of a text; else 64, or as many as the model can")] = None,
    seed: Seed = 0,
    output: Made = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw new texts, one a paragraph, or a grid of new images, samples.png.

    A decoder without latents samples too. A file that exists is never overwritten.
    """
    with verb(debug):
        from delta_vae_lab.use import run_sample  # noqa: PLC0415

        run_sample(
            model,
            count=count,
            source=source,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed,
            output=output,
            as_json=as_json,
        )


@commands.command(epilog=RECONSTRUCT_EXAMPLES)
def reconstruct(
    model: Model,
    data: Data,
    count: Annotated[int, typer.Option(help="the first of the held-out split")] = 8,
    seed: Seed = 0,
    output: Made = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Decode held-out examples again from their posterior means: sentences in pairs, or reconstructions.png.

    A file that exists is never overwritten.
    """
    with verb(debug):
        from delta_vae_lab.use import run_reconstruct  # noqa: PLC0415

        run_reconstruct(model, data, count=count, seed=seed, output=output, as_json=as_json)


@commands.command(epilog=INTERPOLATE_EXAMPLES)
def interpolate(
    model: Model,
    data: Data,
    first: Annotated[int, typer.Option(help="held-out example to start from, counted from 0")] = 0,
    second: Annotated[int, typer.Option(help="held-out example to arrive at")] = 1,
    steps: Annotated[int, typer.Option(help="decoded on the way, the two ends included")] = 7,
    seed: Seed = 0,
    output: Made = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Decode the way between two held-out examples, on the arc between their posterior means; or interpolation.png.

    A file that exists is never overwritten.
    """
    with verb(debug):
        from delta_vae_lab.use import run_interpolate  # noqa: PLC0415

        run_interpolate(model, data, first=first, second=second, steps=steps, seed=seed, output=output, as_json=as_json)


@commands.command(epilog=ENCODE_EXAMPLES)
def encode(
    model: Model,
    data: Data,
    output: Annotated[Path, typer.Option(help="a new file, NAME.safetensors")],
    examples: Annotated[int | None, typer.Option(help="the first of the split; else all")] = None,
    split: Annotated[str, typer.Option(help="of the data: heldout or train")] = "heldout",
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the latents of a data set as safetensors: mean, log_scale and a draw z (N, T, D), and mask (N, T).

    Row i is example i of the data; where they are from is in the file's metadata. A file that exists is never
    overwritten.
    """
    with verb(debug):
        from delta_vae_lab.encoding import run_encode  # noqa: PLC0415

        run_encode(model, data, output, split=split, examples=examples, seed=seed, as_json=as_json)


@commands.command(epilog=EVALUATE_EXAMPLES)
def evaluate(
    model: Model,
    data: Data,
    importance_samples: Annotated[int, typer.Option(help="K of the importance-weighted bound")] = 64,
    importance_examples: Annotated[
        int | None, typer.Option(help="that get this bound, evenly spaced; else all")
    ] = None,
    examples: Annotated[int | None, typer.Option(help="the first of the held-out split; else all")] = None,
    words: Annotated[bool, typer.Option(help="of text, perplexity a word too, by LM1B's count of words")] = True,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """The table of estimates on held-out data that a recipe ends with; a decoder without latents has one too."""
    with verb(debug):
        from delta_vae_lab.use import run_evaluate  # noqa: PLC0415

        run_evaluate(
            model,
            data,
            importance_samples=importance_samples,
            importance_examples=importance_examples,
            examples=examples,
            words=words,
            seed=seed,
            as_json=as_json,
        )
