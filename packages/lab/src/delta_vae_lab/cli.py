"""The `delta-vae` command, one function a verb. What a verb needs is imported by it: `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from delta_vae_lab.cli_use import commands
from delta_vae_lab.options import Data, Debug, Json, Model, Output, Seed, verb

app = typer.Typer(
    name="delta-vae",
    help="Train, use, examine and publish delta-VAEs.",
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
  delta-vae push runs/lm1b-small user/delta-vae-lm1b-prior --part auxiliary_prior
"""

TRAIN_EXAMPLES = """\b
Examples:
  delta-vae train text --config lm1b.yaml --data corpus/ optimization.steps=2000
  accelerate launch --config_file ddp.yaml -m delta_vae_lab.cli train images --config cifar10.yaml --data cifar10/
"""
DOCTOR_EXAMPLES = """\b
Examples:
  delta-vae doctor
  delta-vae doctor --json
"""

app.add_typer(commands)


def show_version(asked: bool) -> None:
    """Print the version that the six packages have in common, and stop."""
    if asked:
        from importlib import metadata  # noqa: PLC0415

        typer.echo(f"delta-vae {metadata.version('delta-vae-lab')}")
        raise typer.Exit


@app.callback()
def before_any_verb(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Do nothing: the options of the command itself act by themselves."""


@app.command(epilog=DIAGNOSE_EXAMPLES)
def diagnose(
    model: Model,
    data: Data,
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
    with verb(debug):
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
    with verb(debug):
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
    data: Data,
    out: Annotated[Path, typer.Option(help="the page; only an older one is overwritten")] = Path("explorer.html"),
    examples: Annotated[int, typer.Option(help="shown, the first of the held-out split: 2 to 200")] = 24,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """See what the latents do: one HTML file, to be opened in any browser, that asks the network for nothing.

    Where each sentence or image spends its rate, what becomes of it as a latent dimension is moved, several decodings
    of one z, the way from one example to another, and its nearest neighbours.
    """
    with verb(debug):
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
    with verb(debug):
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
    part: Annotated[
        str | None, typer.Option(help="this alone of the model: auxiliary_prior, prior, encoder or decoder")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="only for you and those you let in")] = False,
    revision: Annotated[str | None, typer.Option(help="a branch, made if need be; else main")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the files, render the card, send nothing")] = False,
    debug: Debug = False,
) -> None:
    """Publish a run on the Hugging Face Hub, in one commit: the model, its card, results, figures and samples.

    With --part one part of the model alone, with a card of its own. The token is that of `hf auth login`, or HF_TOKEN.
    The run's own folder stays as it is.
    """
    with verb(debug):
        from delta_vae_lab.publishing import publish  # noqa: PLC0415

        typer.echo(publish(run, repo, part=part, private=private, revision=revision, dry_run=dry_run))


@app.command(epilog=TRAIN_EXAMPLES)
def train(
    kind: Annotated[str, typer.Argument(help="text or images")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="section.key=value", help="as prior.alpha=[0.5,0.9]")
    ] = None,
    *,
    config: Annotated[Path, typer.Option(help="a YAML file, as in recipes/configs/ or the config.yaml of a run")],
    data: Annotated[str | None, typer.Option(help="in place of the data.name of the config")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="of the run; else runs/KIND-CONFIG")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint, if there is one")] = False,
    tracker: Annotated[
        str | None, typer.Option(metavar="NAME", help="tensorboard (the default), trackio, wandb or none")
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="USER/NAME", help="publish the finished run in this repository")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a model as its config says, evaluate it, and write its run folder: what the recipes do."""
    with verb(debug):
        from argparse import Namespace  # noqa: PLC0415

        from delta_vae_lab.image_run import run_images  # noqa: PLC0415
        from delta_vae_lab.text_run import run_text  # noqa: PLC0415

        runs = {"text": run_text, "images": run_images}
        if kind not in runs:
            raise ValueError(f"train {kind!r}: is no kind of data; choose {' or '.join(runs)}")
        if not config.is_file():
            raise ValueError(f"config {str(config)!r}: is no file; give a YAML file, such as the config.yaml of a run")
        arguments = Namespace(
            config=config,
            data=data,
            output_dir=output_dir,
            resume=resume,
            tracker=tracker,
            push_to_hub=push_to_hub,
            overrides=overrides or [],
        )
        runs[kind](arguments, Path(kind))


@app.command(epilog=DOCTOR_EXAMPLES)
def doctor(as_json: Json = False) -> None:
    """Is the installation well? Versions, devices, the cache and the Hub; exit code 1 if something is wrong.

    It examines this machine; a model is examined by `delta-vae diagnose`.
    """
    from delta_vae_lab.installation import run_doctor  # noqa: PLC0415

    raise typer.Exit(run_doctor(as_json))


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
