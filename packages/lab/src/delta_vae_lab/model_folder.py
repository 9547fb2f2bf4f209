"""The model/ of a run, saved with checksums of all its files: first what it reads data with, in the end the model."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from delta_vae import DeltaVaeImageProcessor, DeltaVaeModel
from delta_vae_core.checksums import CHECKSUMS, read_manifest, verify, write_checksums
from delta_vae_core.verified import model_files


def save_reader(reader: PreTrainedTokenizerFast | DeltaVaeImageProcessor, folder: Path) -> None:
    """Save what a model reads its data with, before the model is trained."""
    (folder / CHECKSUMS).unlink(missing_ok=True)
    written = [Path(name) for name in reader.save_pretrained(str(folder))]
    write_checksums(folder, [file.name for file in written if file.is_file()])


def verify_reader(folder: Path) -> None:
    """Raise `ValueError` unless all is as it was saved, but for weights and config, which a resumed run writes anew."""
    names = {file.name for file in folder.glob("*")} - set(model_files(folder))
    verify(folder, names, "the run was trained with another tokenizer; resume with the same")


def save_model(model: DeltaVaeModel, folder: Path) -> None:
    """Save the model beside what it reads its data with, whose checksums stay those of when that was saved."""
    verify(folder, ())
    before = read_manifest(folder / CHECKSUMS) if (folder / CHECKSUMS).is_file() else {}
    model.save_pretrained(folder)
    write_checksums(folder, model_files(folder), before)
