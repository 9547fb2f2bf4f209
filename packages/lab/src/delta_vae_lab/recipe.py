"""What every recipe begins with, its config, its run folder and the Accelerator; and how it ends."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from delta_vae_lab.architecture import check_architecture
from delta_vae_lab.checkpoints import last_step
from delta_vae_lab.configuration import check_config, load_config
from delta_vae_lab.publishing import check_publishable
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import RunConfig
from delta_vae_lab.stopping import Stopped, signals_ignored, stopping_at_once
from delta_vae_lab.training import build_accelerator


def begin(kind: type[RunConfig], arguments: Namespace, recipe: Path) -> tuple[Any, RunFolder, Accelerator]:
    """What the command line asks of the recipe in this file, with presets of its name. Nothing is written.

    Raises `ValueError` for all that can be known to fail before anything is read or trained.
    """
    config: Any = load_config(kind, arguments.config, arguments.overrides, recipe.parent / "configs" / recipe.stem)
    config.data.name = config.data.name if arguments.data is None else arguments.data
    config.tracker = config.tracker if arguments.tracker is None else arguments.tracker
    check_config(config)
    check_architecture(config)
    run = RunFolder(arguments.output_dir or Path("runs") / f"{recipe.stem}-{Path(arguments.config).stem}")
    run.check(config, arguments.resume)
    if arguments.push_to_hub is not None:
        check_publishable(arguments.push_to_hub)
    accelerator = build_accelerator(config, run)
    accelerator.wait_for_everyone()  # or a process that is late would find the folder taken, by its own run
    return config, run, accelerator


@contextmanager
def life_of(run: RunFolder, accelerator: Accelerator) -> Iterator[None]:
    """Within, a run loads, trains and writes, and stops when it is asked to; the trackers are ended in both cases.

    However it ends, another process may go on with its folder.
    """
    try:
        with stopping_at_once(lambda: last_step(run.checkpoints)):
            yield
    except Stopped:
        with signals_ignored():  # a launcher tells all to stop as soon as one has
            accelerator.end_training()
        raise
    finally:
        run.release()
    accelerator.end_training()
