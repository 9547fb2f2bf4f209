"""The `delta-vae` command, one function a verb. What a verb needs is imported by it: `--help` answers at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="delta-vae",
    help="Instruments for delta-VAEs: is it collapsed, and what do its latents know?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# "\b": keep the lines of a paragraph as they are.
DIAGNOSE_EXAMPLES = """\b
Examples:
  delta-vae diagnose runs/cifar10-quickstart/model --data builtin
  delta-vae diagnose runs/lm1b-small/model --data corpus/ --examples 1000 --output diagnosis/
"""
PROBE_EXAMPLES = """\b
Examples:
  delta-vae probe runs/cifar10-quickstart/model --data builtin
  delta-vae probe runs/lm1b-small/model --data corpus/ --label-column topic --output probe/
"""
EXPLORE_EXAMPLES = """\b
Examples:
  delta-vae explore runs/cifar10-quickstart/model --data builtin
  delta-vae explore runs/lm1b-small/model --data corpus/ --examples 50 --out sentences.html
"""
REPRODUCE_EXAMPLES = """\b
Examples:
  delta-vae reproduce slow-factor --scale smoke
  delta-vae reproduce figure-4 --jobs 2
  delta-vae reproduce table-1 --data cifar10/ --seed 0 --seed 1 --seed 2 --output experiments/
"""

PUSH_EXAMPLES = """\b
Examples:
  delta-vae push runs/cifar10-quickstart user/delta-vae-digits --dry-run
  delta-vae push runs/lm1b-small user/delta-vae-lm1b --private
"""

Model = Annotated[
    str, typer.Argument(help="a folder that save_pretrained wrote, as the model/ of a run, or a Hub name")
]
Output = Annotated[Path | None, typer.Option(help="folder to write to; else only print")]
Seed = Annotated[int, typer.Option(help="of everything that is drawn")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Debug = Annotated[bool, typer.Option("--debug", help="show where an error was raised")]


@app.command(epilog=DIAGNOSE_EXAMPLES)
def diagnose(
    model: Model,
    data: Annotated[str, typer.Option(help="builtin, a file or folder, or a data set on the Hub, as of the recipes")],
    output: Output = None,
    examples: Annotated[int | None, typer.Option(help="the first of the held-out split; else all")] = None,
    importance_samples: Annotated[int, typer.Option(help="K of the importance-weighted bound")] = 16,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Is it collapsed? A table of estimates on held-out data, a verdict, and its reasons.

    With --output also diagnosis.json and, as PNG and SVG, where the rate is spent beside what is committed.
    """
    with _verb(debug):
        from delta_vae_lab.doctor import run_diagnose  # noqa: PLC0415

        run_diagnose(
            model,
            data,
            output=output,
            examples=examples,
            importance_samples=importance_samples,
            seed=seed,
            as_json=as_json,
        )


@app.command(epilog=PROBE_EXAMPLES)
def probe(
    model: Model,
    data: Annotated[str, typer.Option(help="labelled: builtin digits, parquet files, or a data set on the Hub")],
    label_column: Annotated[str | None, typer.Option(help="of the classes, where there are several")] = None,
    output: Output = None,
    train_limit: Annotated[int | None, typer.Option(help="as many labelled training examples; else all")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """What class can a linear classifier tell from the latents? Accuracies on held-out data, beside raw references."""
    with _verb(debug):
        from delta_vae_lab.probe import run_probe  # noqa: PLC0415

        run_probe(
            model,
            data,
            label_column=label_column,
            output=output,
            seed=seed,
            train_limit=train_limit,
            json=as_json,
        )


@app.command(epilog=EXPLORE_EXAMPLES)
def explore(
    model: Model,
    data: Annotated[str, typer.Option(help="builtin, a file or folder, or a data set on the Hub, as of the recipes")],
    out: Annotated[Path, typer.Option(help="the page; only an older one is overwritten")] = Path("explorer.html"),
    examples: Annotated[int, typer.Option(help="shown, the first of the held-out split: 2 to 200")] = 24,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """See what the latents do: one HTML file, to be opened in any browser, that asks the network for nothing.

    Where each sentence or image spends its rate, what becomes of it as a latent dimension is moved, several decodings
    of one z, the way from one example to another, and its nearest neighbours.
    """
    with _verb(debug):
        from delta_vae_lab.explorer import run_explore  # noqa: PLC0415

        run_explore(model, data, out, examples=examples, seed=seed)


@app.command(epilog=REPRODUCE_EXAMPLES)
def reproduce(
    name: Annotated[str, typer.Argument(help="of the experiment, as figure-4 or slow-factor")],
    scale: Annotated[
        str, typer.Option(help="smoke: does it run; small: minutes on two cores; paper: the true sizes, for GPUs")
    ] = "small",
    seed: Annotated[
        list[int] | None, typer.Option(help="one or more, each with its own option; else 0, 1 and 2")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="a file or folder, or a data set on the Hub; else what the experiment has built in"),
    ] = None,
    probe_data: Annotated[str | None, typer.Option(help="labelled sentences to probe the models of text on")] = None,
    output: Annotated[Path | None, typer.Option(help="folder to write to; else runs/reproduce-SCALE")] = None,
    jobs: Annotated[int, typer.Option(help="models trained at a time")] = 1,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run an experiment: train what it compares, set it side by side, and write a JSON and figures.

    Models that an earlier experiment left in the same folder are taken as they are.
    """
    with _verb(debug):
        import json  # noqa: PLC0415

        from delta_vae_lab import experiments  # noqa: PLC0415
        from delta_vae_lab.experiments.request import Request  # noqa: PLC0415

        folder = output or Path("runs") / f"reproduce-{scale}"
        request = Request(scale, tuple(seed or (0, 1, 2)), folder, data, probe_data, jobs)
        result, table = experiments.reproduce(name, request)
        typer.echo(json.dumps(result) if as_json else table)


@app.command(epilog=PUSH_EXAMPLES)
def push(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run, with results.json and model/")],
    repo: Annotated[str, typer.Argument(help="on the Hub, as USER/NAME; it is made if need be")],
    private: Annotated[bool, typer.Option("--private", help="only for you and those you let in")] = False,
    revision: Annotated[str | None, typer.Option(help="a branch, made if need be; else main")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the files, render the card, send nothing")] = False,
    debug: Debug = False,
) -> None:
    """Publish a run on the Hugging Face Hub, in one commit: the model, its card, results, figures and samples.

    The token is that of `hf auth login`, or HF_TOKEN. The run's own folder stays as it is.
    """
    with _verb(debug):
        from delta_vae_lab.publishing import publish  # noqa: PLC0415

        typer.echo(publish(run, repo, private=private, revision=revision, dry_run=dry_run))


@contextmanager
def _verb(debug: bool) -> Iterator[None]:
    """What every verb runs in: errors of one line, and no bar for the loading of weights."""
    from transformers.utils import logging  # noqa: PLC0415

    from delta_vae_lab.console import one_line_errors  # noqa: PLC0415

    logging.disable_progress_bar()
    with one_line_errors(debug):
        yield


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
