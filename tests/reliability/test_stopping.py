"""Asked to stop, by a scheduler's SIGTERM or by Ctrl-C, a run stops at a step, says so, and goes on from there."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from delta_vae import DeltaVaeForImageGeneration
from delta_vae_lab.configuration import load_config
from delta_vae_lab.image_run import image_task
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import ImageRunConfig
from delta_vae_lab.stopping import Stopped, StopRequest, stopping_at_once
from delta_vae_lab.training import build_accelerator, train
from tests.reliability.runs import STEPS, assert_same_run, finish, start, tiny_run
from tests.reliability.warm import Life, Warm

SECONDS = 10  # that a scheduler gives at least


@pytest.fixture(scope="module")
def calm(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of images that nobody stops."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    finish("cifar10", warm, folder, 1)
    return folder


def stop(lives: list[Life], signum: int, told: list[int]) -> tuple[str, float]:
    """Signal the lives with these indices; what the run says when it has stopped, and the seconds that it took."""
    begun = time.monotonic()
    for index in told:
        lives[index].kill(signum)
    codes = [life.wait() for life in lives]
    assert codes == [128 + signum] * len(lives), (codes, lives[0].stderr())
    lines = [line for life in lives for line in life.stderr().splitlines() if line.startswith("stopped")]
    assert len(lines) == 1
    assert "Traceback" not in lives[0].stderr()
    return lines[0], time.monotonic() - begun


def newest_step(folder: Path) -> int:
    return max(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["steps", "checkpoint", "evaluation", "export"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stops_with_a_line_a_code_and_a_checkpoint_and_goes_on_as_if_it_had_not(
    signum: signal.Signals, phase: str, warm: Warm, calm: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    lives = start("cifar10", warm, folder, 1, "--resume")  # of nothing: it begins
    lives[0].wait_until(lambda: lives[0].entered(phase) >= 2 or lives[0].entered("export") > 0)
    line, seconds = stop(lives, signum, [0])
    assert seconds < SECONDS
    step = newest_step(folder)
    assert line == f"stopped by {signum.name} at step {step}, where there is a checkpoint: --resume goes on"
    assert (step == STEPS) == (phase == "export")
    finish("cifar10", warm, folder, 1, "--resume")
    assert_same_run(calm, folder)


@pytest.mark.slow
@pytest.mark.parametrize("told", [[0], [1], [0, 1]])
def test_all_processes_stop_at_one_step_whichever_is_told(told: list[int], warm: Warm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lives = start("cifar10", warm, folder, 2)
    lives[0].wait_until(lambda: lives[0].entered("steps") >= 5)
    line, seconds = stop(lives, signal.SIGTERM, told)
    assert seconds < SECONDS
    assert line == f"stopped by SIGTERM at step {newest_step(folder)}, where there is a checkpoint: --resume goes on"
    assert newest_step(folder) < STEPS
    finish("cifar10", warm, folder, 2, "--resume")
    steps = [line["step"] for line in RunFolder(folder).metrics() if "learning_rate" in line]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_the_same_one_told_twice_does_not(warm: Warm, tmp_path: Path) -> None:
    """A step of a thousand micro-steps is not waited for."""
    folder, long_step = tmp_path / "run", ["optimization.batch_size=1024", "optimization.accumulation=1024"]
    [life] = start("cifar10", warm, folder, 1, *long_step)
    life.wait_until(lambda: life.entered("steps") == 1)
    for _ in range(2):
        life.kill(signal.SIGTERM)
        time.sleep(0.2)
    assert Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z", "it has ended"
    assert life.phases()[-1] == "steps"
    time.sleep(1)
    life.kill(signal.SIGTERM)
    assert life.wait() == -signal.SIGTERM
    assert not (folder / "checkpoints").exists()


@pytest.mark.slow
def test_before_its_first_step_a_run_stops_without_a_trace_of_an_error(warm: Warm, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    lives = start("lm1b", warm, folder, 1)
    lives[0].wait_until((folder / "config.yaml").exists)
    line, _ = stop(lives, signal.SIGINT, [0])
    assert line.startswith("stopped by SIGINT ")
    finish("lm1b", warm, folder, 1, "--resume")


# In this process.


def train_here(folder: Path, evaluate: Callable[..., dict[str, float]], resume: bool) -> DeltaVaeForImageGeneration:
    """Nine steps, with an evaluation and a checkpoint at the third, the sixth and the ninth."""
    tiny_run("cifar10", folder)
    overrides = ["optimization.steps=9", "evaluation.every=3", "checkpoint.every=3"]
    config, run = load_config(ImageRunConfig, folder.with_name("cifar10.yaml"), overrides), RunFolder(folder)
    accelerator = build_accelerator(config, run, cpu=True)
    task = image_task(config, accelerator)
    run.start(config, resume)
    origin = task.origin
    try:
        return train(task.model, task.batches, config, accelerator, run, evaluate, resume, origin, progress=False)
    finally:
        run.release()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "run"
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("last", [3, 9])
def test_an_evaluation_is_abandoned_and_made_up_for(folder: Path, last: int) -> None:
    """Also the one after the last step."""

    def endless(model: Any, step: int) -> dict[str, float]:
        if step == last:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(600)
        return {"heldout": float(step)}

    before = signal.getsignal(signal.SIGTERM)
    begun = time.monotonic()
    with pytest.raises(Stopped) as stopped:
        train_here(folder, endless, resume=False)
    assert time.monotonic() - begun < 60
    assert (stopped.value.code, stopped.value.step) == (143, last)
    assert signal.getsignal(signal.SIGTERM) is before
    evaluated = [line["step"] for line in RunFolder(folder).metrics() if "heldout" in line]
    assert evaluated == list(range(3, last, 3))

    with pytest.raises(Stopped) as again:  # told anew while it makes up for it
        train_here(folder, endless, resume=True)
    assert again.value.step == newest_step(folder) == last
    train_here(folder, lambda model, step: {"heldout": float(step)}, resume=True)
    lines = [(line["step"], "heldout" in line) for line in RunFolder(folder).metrics()]
    assert lines == [(step, held) for step in range(1, 10) for held in (False, True) if not held or step % 3 == 0]


def test_in_another_thread_no_signal_is_handled(folder: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    during, found = [], []

    def evaluate(model: Any, step: int) -> dict[str, float]:
        during.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
        return {}

    thread = threading.Thread(target=lambda: found.append(train_here(folder, evaluate, resume=False)))
    thread.start()
    thread.join()
    assert len(found) == 1
    assert during == [before] * 3


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As of a command that was begun by nohup, or with & in a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            signal.raise_signal(signal.SIGINT)
            assert request.signum == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_comes_too_late_for_a_step_is_told_to_whoever_handles_it_next() -> None:
    with pytest.raises(Stopped, match=r"15") as stopped, stopping_at_once(lambda: 7), StopRequest():
        signal.raise_signal(signal.SIGTERM)
    assert (stopped.value.code, stopped.value.step) == (143, 7)
