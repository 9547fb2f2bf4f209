"""Killed at random moments and resumed, a run is the run that was left alone, bit for bit.

The moments are drawn with a seed within a phase: the start, a step, an evaluation, the writing of a checkpoint, the
writing of what a finished run leaves. What is counted is the phase that the run says it was in when it died.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from delta_vae_lab.checkpoints import find_damage
from tests.reliability.runs import assert_same_run, finish, start
from tests.reliability.warm import Life, Warm

pytestmark = pytest.mark.slow

ALONE = ["start", *["steps", "evaluation", "checkpoint"] * 4, *["export"] * 4]
IN_TWO = ["steps", "checkpoint", "export"]
ATTEMPTS = 12


@pytest.mark.parametrize("recipe", ["lm1b", "cifar10"])
def test_killed_at_random_moments_a_run_of_one_process_is_the_run(
    recipe: str, warm: Warm, tmp_path: Path, seen: Callable[..., None]
) -> None:
    fell = kill_and_resume(recipe, warm, tmp_path, ALONE, processes=1)
    assert min(fell.get(phase, 0) for phase in ("steps", "evaluation", "checkpoint", "export")) >= 2
    seen(kills=sum(fell.values()), **fell)


@pytest.mark.parametrize("recipe", ["lm1b", "cifar10"])
def test_killed_at_random_moments_a_run_of_two_processes_is_the_run(
    recipe: str, warm: Warm, tmp_path: Path, seen: Callable[..., None]
) -> None:
    fell = kill_and_resume(recipe, warm, tmp_path, IN_TWO, processes=2)
    assert set(fell) >= set(IN_TWO)
    seen(kills=sum(fell.values()), **fell)


def kill_and_resume(recipe: str, warm: Warm, folder: Path, plan: Sequence[str], processes: int) -> dict[str, int]:
    """Live once undisturbed, and once with a kill in each phase of the plan; how many kills fell where.

    One that fell elsewhere, as on a busy machine, counts as what it is; another one, sooner, is then for its phase.
    """
    draw = random.Random(f"{recipe} {processes}")
    calm, killed = folder / "calm", folder / "killed"
    lasts = lengths(finish(recipe, warm, calm, processes)[0])
    fell: Counter[str] = Counter()
    for phase in plan:
        for attempt in range(1, ATTEMPTS + 1):
            lives = start(recipe, warm, killed, processes, "--resume")
            await_moment(lives[0], phase, draw.randint(1, 5 if phase == "steps" else 1))
            time.sleep(draw.uniform(0, 0.9 * lasts[phase] / attempt))
            for life in draw.sample(lives, processes):  # as a machine dies, or one process and then what waits for it
                life.kill()
            codes = [life.wait() for life in lives]
            assert set(codes) <= {0, -signal.SIGKILL}, (codes, lives[0].stderr())
            if codes[0] != -signal.SIGKILL:  # it had ended when its moment came
                continue
            for checkpoint in (killed / "checkpoints").glob("step-*"):
                assert find_damage(checkpoint) is None
            fell[lives[0].phases()[-1]] += 1
            if lives[0].phases()[-1] == phase or lives[0].entered("export"):  # after which there is no other phase
                break
        else:
            pytest.fail(f"no kill in {phase}")
    finish(recipe, warm, killed, processes, "--resume")
    assert_same_run(calm, killed)
    return dict(sorted(fell.items()))


def await_moment(life: Life, phase: str, times: int) -> None:
    """Until it has entered the phase so often, or has done its last step before."""
    life.wait_until(lambda: life.entered(phase) >= times or life.entered("export") > 0)


def lengths(life: Life) -> dict[str, float]:
    """Seconds that each phase took, on average."""
    spent: dict[str, list[float]] = {}
    for (phase, begun), (_, ended) in pairwise(life.moments()):
        spent.setdefault(phase, []).append(ended - begun)
    return {phase: sum(seconds) / len(seconds) for phase, seconds in spent.items()}
