"""What the verbs of `delta-vae` have in common: their options, and how an error of theirs is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(help="a folder that save_pretrained wrote, as the model/ of a run, or a Hub name")
]
Data = Annotated[str, typer.Option(help="builtin, a file or folder, or a data set on the Hub, as of the recipes")]
Output = Annotated[Path | None, typer.Option(help="folder to write to; else only print")]


def _seed(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise typer.BadParameter(f"{value} must have 64 bits, from -2**63 to 2**63 - 1")
    return value


Seed = Annotated[int, typer.Option(help="of everything that is drawn", callback=_seed)]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
Debug = Annotated[bool, typer.Option("--debug", help="show where an error was raised")]


@contextmanager
def verb(debug: bool) -> Iterator[None]:
    """What every verb runs in: errors of one line, and no bar for the loading of weights."""
    from transformers.utils import logging  # noqa: PLC0415

    from delta_vae_lab.console import one_line_errors  # noqa: PLC0415

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what does not fit a model is told once, by the error
    with one_line_errors(debug):
        yield
