"""A long run of small steps, with evaluations and checkpoints: nothing grows but the metrics, which are all there."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from delta_vae_lab.run_folder import RunFolder
from tests.reliability.runs import start
from tests.reliability.warm import Life, Warm

STEPS, LOG, EVALUATE, CHECKPOINT, KEEP = 6000, 10, 300, 200, 3
LONG = [
    f"optimization.steps={STEPS}",
    "optimization.accumulation=1",
    "optimization.batch_size=4",
    f"log_every={LOG}",
    f"evaluation.every={EVALUATE}",
    f"checkpoint.every={CHECKPOINT}",
    f"checkpoint.keep={KEEP}",
]


@pytest.mark.slow
def test_in_thousands_of_steps_nothing_grows_and_every_step_is_logged_once(
    warm: Warm, tmp_path: Path, seen: Callable[..., None]
) -> None:
    """Looked at whenever a tenth of the steps is done; after the first, memory may grow by 2 %, lengths vary or not."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    folder = tmp_path / "run"
    [life] = start("lm1b", warm, folder, 1, *LONG)
    pages, handles, most_checkpoints = [], [], 0
    for tenth in range(1, 10):
        life.wait_until(lambda tenth=tenth: last_logged(folder) >= STEPS * tenth // 10)
        pages.append(resident_pages(life))
        handles.append(open_files(life))
        most_checkpoints = max(most_checkpoints, len(list((folder / "checkpoints").glob("*step-*"))))
    assert life.wait() == 0, life.stderr()

    growth = max(pages) / pages[0] - 1
    assert growth < 0.02, pages
    assert max(handles) - min(handles) <= 1, "one is open while it is written"
    assert most_checkpoints <= KEEP + 1, "one is written before another is removed"
    assert len(list((folder / "checkpoints").iterdir())) == KEEP
    lines = RunFolder(folder).metrics()
    assert [line["step"] for line in lines if "learning_rate" in line] == list(range(LOG, STEPS + 1, LOG))
    assert [line["step"] for line in lines if "heldout_rate_nats" in line] == list(range(EVALUATE, STEPS + 1, EVALUATE))
    seen(
        steps=STEPS,
        memory_growth_percent=round(100 * growth, 2),
        more_open_files=max(handles) - handles[0],
        checkpoints_kept=KEEP,
        lines_of_metrics=len(lines),
    )


def last_logged(folder: Path) -> int:
    time.sleep(0.05)  # what looks all the time slows the run
    file = RunFolder(folder).metrics_file
    whole = file.read_text().split("\n")[:-1] if file.exists() else []
    return int(json.loads(whole[-1])["step"]) if whole else 0


def resident_pages(life: Life) -> int:
    return int(Path(f"/proc/{life.pid}/statm").read_text().split()[1])


def open_files(life: Life) -> int:
    return len(list(Path(f"/proc/{life.pid}/fd").iterdir()))
