"""`python -m benchmarks image-sampling` measures, prints and writes what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIZES = {
    "height": 3,
    "width": 4,
    "channels": 1,
    "levels": 4,
    "hidden-size": 8,
    "num-layers": 2,
    "attention-layers": 1,
    "num-heads": 2,
    "latent-dim": 2,
    "components": 2,
    "repeats": 3,
    "threads": 1,
}
TINY = [*(f"--{name}={value}" for name, value in SIZES.items()), "--batch-sizes", "1", "3"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_image_sampling_says_what_it_measured(tmp_path: Path) -> None:
    done = run("image-sampling", *TINY, "--output", str(tmp_path / "out" / "times.json"))
    assert not done.returncode, done.stderr
    written = json.loads((tmp_path / "out" / "times.json").read_text())
    assert written["benchmark"] == "image-sampling"
    assert written["threads"] == 1
    assert written["command"].startswith("python -m benchmarks image-sampling --height=3")
    assert written["versions"].keys() == {"python", "torch", "delta-vae", "transformers"}
    assert written["settings"]["parameters"] > 0
    assert [row["batch"] for row in written["rows"]] == [1, 3]
    for row in written["rows"]:
        assert 0 < row["naive_s_min"] <= row["naive_s"] <= row["naive_s_max"]
        assert 0 < row["cached_s_min"] <= row["cached_s"] <= row["cached_s_max"]
        assert row["times_faster"] == pytest.approx(row["naive_s"] / row["cached_s"])
        assert f"{row['times_faster']:.4g}" in done.stdout
    assert "12 pixels" in done.stdout


@pytest.mark.slow
def test_what_cannot_be_measured_is_a_one_line_error() -> None:
    done = run("image-sampling", *TINY, "--threads", "0")
    assert done.returncode == 2
    assert done.stderr == "error: --threads 0: use at least 1 (--debug shows where)\n"
