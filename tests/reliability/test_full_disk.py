"""A disk that is full, or that may no longer be written to, in the middle of a run: a line says so, nothing is lost."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from delta_vae_lab.checkpoints import find_damage
from tests.reliability.runs import STEPS, finish, start
from tests.reliability.warm import Life, Warm

pytestmark = pytest.mark.slow

QUIET = ["log_every=1000", "evaluation.every=0"]  # so that a checkpoint is the next to be written
SIZE = 8 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def paused_after_a_checkpoint(warm: Warm, folder: Path, *more: str) -> Life:
    [life] = start("cifar10", warm, folder, 1, *more)
    life.wait_until(lambda: "checkpoint" in life.phases()[:-1])
    life.kill(signal.SIGSTOP)
    return life


def sound_checkpoints(folder: Path) -> list[str]:
    """Of a folder that holds nothing else."""
    found = sorted((folder / "checkpoints").iterdir())
    assert [path.name for path in found if find_damage(path) is not None] == []
    return [path.name for path in found]


def error_of(life: Life) -> str:
    life.kill(signal.SIGCONT)
    assert life.wait() == 2, life.stderr()
    assert "Traceback" not in life.stderr()
    [line] = [line for line in life.stderr().splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(("more", "what"), [(QUIET, "the checkpoint of step"), ([], "the metrics of step")])
@pytest.mark.parametrize("left", [0, 64 << 10], ids=["nothing left", "some left"])
def test_a_full_disk_is_one_line_and_the_last_checkpoint_is_kept(
    more: list[str], what: str, left: int, warm: Warm, small_disk: Path
) -> None:
    if left and not more:
        pytest.skip("a line of metrics fits into what is left")
    folder, filler = small_disk / "run", small_disk / "filler"
    life = paused_after_a_checkpoint(warm, folder, *more)
    space = os.statvfs(small_disk)
    filler.write_bytes(bytes(space.f_bavail * space.f_frsize - left))
    line = error_of(life)
    assert line.startswith(f"error: {what} ")
    assert f"could not be written to {folder}" in line
    assert "No space left on device; free some of it" in line
    kept = sound_checkpoints(folder)
    assert kept
    assert f"step-{STEPS:08d}" not in kept
    filler.unlink()
    finish("cifar10", warm, folder, 1, *more, "--resume")


def test_a_folder_that_may_no_longer_be_written_to_is_one_line(warm: Warm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    life = paused_after_a_checkpoint(warm, folder, *QUIET)
    (folder / "checkpoints").chmod(0o555)
    line = error_of(life)
    assert f"could not be written to {folder / 'checkpoints'}: Permission denied; let this user write there" in line
    (folder / "checkpoints").chmod(0o755)
    assert sound_checkpoints(folder)
    finish("cifar10", warm, folder, 1, *QUIET, "--resume")
