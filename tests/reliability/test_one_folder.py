"""Two runs told to use one folder: the second says who is there, and writes nothing."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from delta_vae_lab import folder_lock
from delta_vae_lab.folder_lock import check_free, hold, release
from tests.reliability.runs import finish, start, tiny_run
from tests.reliability.warm import Warm


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_the_second_run_in_a_folder_refuses_and_writes_nothing(more: list[str], warm: Warm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    [first] = start("cifar10", warm, folder, 1)
    first.wait_until(lambda: first.entered("checkpoint") >= 2)
    first.kill(signal.SIGSTOP)  # so that all that is written is the second's
    before = contents(folder)
    code, second = warm.run("cifar10", [*tiny_run("cifar10", folder), *more])
    assert contents(folder) == before
    assert code == 2
    [line] = [line for line in second.stderr().splitlines() if line.startswith("error: ")]
    assert f"{folder} is in use by process {first.pid} on " in line
    assert "wait for it or stop it, or choose another folder" in line

    first.kill(signal.SIGKILL)  # which leaves the folder free
    first.wait()
    finish("cifar10", warm, folder, 1, "--resume")


@pytest.mark.slow
def test_of_two_that_begin_together_one_runs(warm: Warm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lives = [start("cifar10", warm, folder, 1)[0] for _ in range(2)]
    assert sorted(life.wait() for life in lives) == [0, 2], [life.stderr() for life in lives]
    assert {path.name for path in folder.iterdir()} >= {"results.json", "model"}


def test_a_process_holds_a_folder_once_and_gives_it_back(tmp_path: Path) -> None:
    check_free(tmp_path)
    assert not list(tmp_path.iterdir())
    hold(tmp_path)
    hold(tmp_path)
    check_free(tmp_path)
    assert locked_for_others(tmp_path)
    release(tmp_path)
    assert not locked_for_others(tmp_path)


def locked_for_others(folder: Path) -> bool:
    """What another process sees."""
    code = (
        "import sys, pathlib; from delta_vae_lab.folder_lock import check_free; check_free(pathlib.Path(sys.argv[1]))"
    )
    seen = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert seen.returncode == 0 or f"is in use by process {os.getpid()} on" in seen.stderr
    return seen.returncode != 0


def test_where_there_are_no_locks_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with caplog.at_level(logging.WARNING, "delta_vae_lab"):
        hold(tmp_path)
        check_free(tmp_path)
    assert "its file system has no locks, so a second run in it would not be noticed" in caplog.text
    assert (os.getpid(), tmp_path.resolve()) not in folder_lock._held
