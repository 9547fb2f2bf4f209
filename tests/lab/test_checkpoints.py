"""Checkpoints: whole or absent, damage is seen, and what is restored is what was saved."""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from delta_vae_lab.checkpoints import (
    Progress,
    agree_on_latest_sound,
    find_damage,
    latest_sound,
    load_checkpoint,
    read_progress,
    save_checkpoint,
    seal,
)


class Job:
    """A model with two tied matrices, its optimizer and its average, at work on random regression."""

    def __init__(self) -> None:
        self.accelerator = Accelerator(cpu=True)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        model[1].weight = model[0].weight
        self.polyak = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

    def step(self, seed: int) -> None:
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        self.accelerator.backward(self.model(x).square().mean())
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.polyak.update_parameters(self.model)

    def save(self, folder: Path, step: int, keep: int = 9) -> Path:
        progress = Progress(step, [{"epoch": 0, "batch": step}], {"train": "abc"})
        save_checkpoint(folder, progress, self.accelerator, self.polyak, keep)
        return folder / f"step-{step:08d}"

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in (*self.model.parameters(), *self.polyak.parameters())]


@pytest.fixture
def job() -> Iterator[Job]:
    yield Job()
    AcceleratorState._reset_state(reset_partial_state=True)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def test_going_on_from_a_checkpoint_is_going_on(job: Job, tmp_path: Path) -> None:
    for seed in range(3):
        job.step(seed)
    saved = job.save(tmp_path, 3)
    for seed in range(3, 6):
        job.step(seed)
    uninterrupted = job.weights()

    assert read_progress(saved) == Progress(3, [{"epoch": 0, "batch": 3}], {"train": "abc"})
    load_checkpoint(saved, job.accelerator, job.polyak)
    assert not all(map(torch.equal, job.weights(), uninterrupted))
    for seed in range(3, 6):
        job.step(seed)
    assert all(map(torch.equal, job.weights(), uninterrupted))


def test_weights_are_safetensors_and_every_file_is_in_the_manifest(job: Job, tmp_path: Path) -> None:
    saved = job.save(tmp_path, 1)
    manifest = json.loads((saved / "manifest.json").read_text())["files"]
    assert {path.name for path in saved.iterdir()} == {"manifest.json", *manifest}
    assert {"model.safetensors", "polyak.safetensors", "progress.json"} <= manifest.keys()
    assert all((saved / name).stat().st_size == entry["size"] for name, entry in manifest.items())


def test_the_last_ones_are_kept(job: Job, tmp_path: Path) -> None:
    for step in range(1, 6):
        job.save(tmp_path, step, keep=2)
        assert latest_sound(tmp_path) == tmp_path / f"step-{step:08d}"
    assert steps(tmp_path) == [4, 5]


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "truncated weights": (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors has .* bytes, not"),
    "a flipped bit": (lambda folder: flip_a_bit(folder / "optimizer.bin"), "optimizer.bin has another SHA-256"),
    "a missing file": (lambda folder: (folder / "progress.json").unlink(), "progress.json is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "no readable manifest.json"),
    "half a manifest": (lambda folder: truncate(folder / "manifest.json"), "no readable manifest.json"),
    "an empty folder": (lambda folder: [file.unlink() for file in folder.iterdir()], "no readable manifest.json"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_in_one_line_and_the_one_before_is_taken(
    job: Job, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, last = job.save(tmp_path, 1), job.save(tmp_path, 2)
    damage, message = DAMAGE[name]
    assert find_damage(last) is None
    damage(last)
    with caplog.at_level(logging.WARNING, "delta_vae_lab"):
        assert agree_on_latest_sound(tmp_path, job.accelerator) == before
    [record] = [record for record in caplog.records if record.name.startswith("delta_vae_lab")]
    assert "\n" not in record.getMessage()
    assert str(last) in record.getMessage()
    assert re.search(message, record.getMessage())


def test_a_damaged_one_is_replaced_when_its_step_comes_again(job: Job, tmp_path: Path) -> None:
    job.save(tmp_path, 1)
    last = job.save(tmp_path, 2)
    (last / "model.safetensors").write_bytes(b"")
    assert job.save(tmp_path, 2) == last
    assert latest_sound(tmp_path) == last


def test_damaged_ones_ahead_are_removed_and_do_not_count_as_kept(job: Job, tmp_path: Path) -> None:
    for step in (1, 2, 9):
        job.save(tmp_path, step)
    (tmp_path / "step-00000009" / "manifest.json").unlink()
    job.save(tmp_path, 3, keep=2)
    assert steps(tmp_path) == [2, 3]


def test_what_a_kill_left_half_written_is_no_checkpoint_and_goes_with_the_next(job: Job, tmp_path: Path) -> None:
    saved = job.save(tmp_path, 1)
    shutil.copytree(saved, tmp_path / ".step-00000002.partial")  # even if it is whole
    assert latest_sound(tmp_path) == saved
    job.save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_other_files_are_let_be(job: Job, tmp_path: Path) -> None:
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "README").write_text("mine")
    job.save(tmp_path, 1, keep=1)
    job.save(tmp_path, 2, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README", "step-00000002", "step-notes"]


def test_without_a_sound_one_there_is_none(tmp_path: Path) -> None:
    assert latest_sound(tmp_path) is None
    assert latest_sound(tmp_path / "absent") is None


def test_to_find_none_sound_among_some_is_an_error(job: Job, tmp_path: Path) -> None:
    for step in (1, 2):
        (job.save(tmp_path, step) / "manifest.json").unlink()
    with pytest.raises(ValueError, match="every checkpoint is damaged; put a copy of one back, or start a new run"):
        agree_on_latest_sound(tmp_path, job.accelerator)


def test_a_later_format_is_refused(job: Job, tmp_path: Path) -> None:
    saved = job.save(tmp_path, 1)
    progress = json.loads((saved / "progress.json").read_text()) | {"format": 2}
    (saved / "progress.json").write_text(json.dumps(progress))
    seal(saved)
    with pytest.raises(ValueError, match="has format 2, this version reads 1"):
        read_progress(saved)
