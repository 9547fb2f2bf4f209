"""The command line of a recipe, and what its user sees: of an error one line, of what takes long a bar."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from delta_vae_lab.finiteness import NonFiniteError
from delta_vae_lab.redaction import redacted
from delta_vae_lab.stopping import Stopped

Item = TypeVar("Item")


@contextmanager
def one_line_errors(debug: bool = False) -> Iterator[None]:
    """Within, an error that a user can mend is printed as one line and ends the program with code 2.

    Those are `ValueError`, `OSError` (a full disk, no permission) and `NonFiniteError`; with `debug` they keep their
    traceback, as all others do. A run that was asked to stop says so, and Ctrl-C ends anything else without a
    traceback. Of the processes of a machine only the first prints.
    """
    try:
        yield
    except Stopped as stop:
        _say(stop.line)
        raise
    except KeyboardInterrupt:
        if debug:
            raise
        _say("stopped by SIGINT")
        raise SystemExit(130) from None
    except (ValueError, OSError, NonFiniteError) as error:
        if debug:
            raise
        remedy = "; check the path and its permissions, or give another" if isinstance(error, OSError) else ""
        _say(f"error: {redacted(' '.join(str(error).split()))}{remedy} (--debug shows where)")
        raise SystemExit(2) from None


def _say(line: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(line, file=sys.stderr)


def bar(items: Iterable[Item], what: str) -> Iterable[Item]:
    """The items; on a terminal, and if they take more than some seconds, with a bar that says how far it is."""
    beside = os.environ.get("LOCAL_RANK", "0") != "0"  # tqdm takes None as: unless standard error is a terminal
    shown: Iterable[Item] = tqdm(items, what, unit="batch", delay=5, disable=True if beside else None, leave=False)
    return shown


def recipe_arguments(
    description: str | None, recipe: str, *, data: str, config: str = "quickstart", data_required: bool = False
) -> Namespace:
    """The command line of a recipe; `data` says what --data takes, `config` is the default preset."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=config, help=f"a preset or a YAML file (default: {config})")
    parser.add_argument("--data", required=data_required, help=data)
    parser.add_argument("--output-dir", type=Path, help=f"default: runs/{recipe}-CONFIG")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.add_argument("--tracker", metavar="NAME", help="tensorboard (the default), trackio, wandb or none")
    parser.add_argument("--push-to-hub", metavar="USER/NAME", help="publish the finished run in this repository")
    parser.add_argument("--debug", action="store_true", help="show where an error was raised")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="e.g. prior.alpha=[0.5,0.9]")
    return parser.parse_intermixed_args()
