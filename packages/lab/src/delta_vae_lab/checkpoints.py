"""Checkpoints that are whole or absent: written aside, synced, sealed by a manifest, then renamed into place."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from safetensors.torch import load_model, save_model
from torch.distributed.fsdp import StateDictType
from torch.optim.swa_utils import AveragedModel

from delta_vae_core.checksums import difference, manifest, read_manifest
from delta_vae_core.versions import VERSION_KEY, stamp
from delta_vae_lab.storage import writing

logger = logging.getLogger(__name__)

FORMAT = 1
_MANIFEST = "manifest.json"
_PROGRESS = "progress.json"
_POLYAK = "polyak.safetensors"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Progress:
    """How far a run is: with the weights all there is to go on from, because every draw is a function of the step."""

    step: int
    positions: list[dict[str, Any]]  # in the data, of each process
    fingerprint: dict[str, Any] | None = None  # of the data and how it is read
    format: int = FORMAT


def save_checkpoint(
    folder: Path, progress: Progress, accelerator: Accelerator, polyak: AveragedModel | None, keep: int
) -> None:
    """Write `folder`/step-XXXXXXXX, then prune. Every process calls it; all see one file system.

    A kill at any moment, or a full disk, leaves either no such folder or a sound one, and the checkpoints before it.
    """
    aside = folder / f".step-{progress.step:08d}.partial"

    def finish() -> None:
        if polyak is not None:
            save_model(polyak, str(aside / _POLYAK))
        (aside / _PROGRESS).write_text(json.dumps(asdict(progress) | {VERSION_KEY: stamp()[VERSION_KEY]}) + "\n")
        seal(aside)
        _put_in_place(aside, folder / f"step-{progress.step:08d}")
        _prune(folder, progress.step, keep)

    def alone(work: Callable[[], None]) -> Callable[[], None]:
        return work if accelerator.is_main_process else lambda: None

    save = partial(accelerator.save_state, str(aside), safe_serialization=True)
    for work in (alone(partial(_remove_leftovers, folder)), save, alone(finish)):
        _together(work, f"the checkpoint of step {progress.step}", folder, accelerator)


def _together(work: Callable[[], Any], what: str, folder: Path, accelerator: Accelerator) -> None:
    """Do it and wait for the others; if the disk refuses in any process, all tidy up and raise what it says."""
    refusal = None
    try:
        with writing(what, folder):
            work()
    except ValueError as error:
        refusal = error
    said = [words for words in gather_object([refusal and str(refusal)]) if words]
    if said:
        if accelerator.is_main_process:
            _remove_leftovers(folder)
        raise ValueError(said[0]) from refusal


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(".step-*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)  # where that is refused, so is the checkpoint, which says why


def check_state_format(accelerator: Accelerator) -> None:
    """Raise `ValueError` where torch would read checkpoints by an unrestricted pickle: with FSDP's sharded states."""
    plugin = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is not None and plugin.state_dict_type != StateDictType.FULL_STATE_DICT:
        raise ValueError(
            f"fsdp_state_dict_type={plugin.state_dict_type.name} in the launcher: torch reads such checkpoints by a "
            "pickle that may run code; set FULL_STATE_DICT"
        )


def read_progress(checkpoint: Path) -> Progress:
    """What a checkpoint is of."""
    content = json.loads((checkpoint / _PROGRESS).read_text())
    if (written := content["format"]) != FORMAT:
        by = content.get(VERSION_KEY, "of a later version")
        remedy = f"go on with delta-vae {by}, which wrote it" if written > FORMAT else "start a new run"
        raise ValueError(f"{checkpoint}: has format {written}, this version reads {FORMAT}; {remedy}")
    known = {entry.name for entry in fields(Progress)}
    return Progress(**{key: value for key, value in content.items() if key in known})


def load_checkpoint(checkpoint: Path, accelerator: Accelerator, polyak: AveragedModel | None) -> None:
    """Restore weights, optimizer and Polyak average in place. Every process calls it."""
    try:
        # With torch.load's weights_only: what else a pickle asks for is refused.
        accelerator.load_state(str(checkpoint))
    except UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{checkpoint}: its training state holds more than numbers, and is not read ({reason}); "
            "go on only with checkpoints of your own"
        ) from None
    if polyak is not None:
        load_model(polyak, str(checkpoint / _POLYAK))


def latest_sound(folder: Path) -> Path | None:
    """The last checkpoint whose every file is as its manifest says; each damaged one after it costs a warning."""
    for checkpoint in sorted(_checkpoints(folder), reverse=True):
        damage = find_damage(checkpoint)
        if damage is None:
            return checkpoint
        logger.warning("%s is damaged (%s): going back to the checkpoint before it", checkpoint, damage)
    return None


def agree_on_latest_sound(folder: Path, accelerator: Accelerator) -> Path | None:
    """`latest_sound` as the main process sees it, told to every process; `ValueError` if all there are are damaged."""
    answer = [latest_sound(folder) if accelerator.is_main_process else None]
    found: Path | None = broadcast_object_list(answer)[0]
    if found is None and any(_checkpoints(folder)):
        raise ValueError(
            f"{folder}: every checkpoint is damaged; put a copy of one back, or start a new run in another folder"
        )
    return found


def last_step(folder: Path) -> int:
    """That of the newest checkpoint, sound or not; 0 without one."""
    return max(map(_step, _checkpoints(folder)), default=0)


def seal(folder: Path) -> None:
    """Put every file of a folder on the disk, and beside them a manifest of their sizes and SHA-256, and its own."""
    (folder / _MANIFEST).write_bytes(manifest({name: folder / name for name in _files(folder)}))
    for path in [folder, *folder.rglob("*")]:
        _sync(path)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, or None."""
    try:
        entries = read_manifest(folder / _MANIFEST)
    except ValueError as error:
        return str(error)
    differences = (difference(folder / name, name, entry) for name, entry in entries.items())
    return next(filter(None, differences), None)


def _put_in_place(aside: Path, final: Path) -> None:
    if final.exists():  # damaged: the run was resumed from before it
        shutil.rmtree(final)
    aside.replace(final)
    _sync(final.parent)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Keep the last `keep` up to `step`; later ones are damaged, or the run would have gone on from them."""
    ordered = sorted(_checkpoints(folder))
    earlier = [checkpoint for checkpoint in ordered if _step(checkpoint) <= step]
    for checkpoint in ordered:
        if checkpoint not in earlier[-keep:]:
            shutil.rmtree(checkpoint)


def _checkpoints(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
