"""Tables of results, rendered into Markdown."""

import json
from pathlib import Path

import pytest

from delta_vae_lab.report import render

DOCUMENT = "before\n<!-- results results/*.json -->\nstale\n<!-- /results -->\nafter\n"


def write(folder: Path, run: str, metrics: dict[str, float], **more: object) -> None:
    common = {"sentences": 2000, "tokens": 60_000, "steps": 100, "committed_rate_nats": 0.0}
    result = {
        "run": run,
        "seed": 0,
        "device": "a CPU",
        "versions": {"torch": "2"},
        "data": {"name": "some text"},
        "metrics": common | metrics,
    }
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / f"{run}.json").write_text(json.dumps(result | more))


def test_a_block_is_rendered_from_the_files_it_names_and_nothing_else_moves(tmp_path: Path) -> None:
    latents = {"latent_dim": 2, "rate_nats": 30.0, "rate_nats_stderr": 0.4, "committed_rate_nats": 20.0}
    write(tmp_path, "a-delta-vae", latents)
    write(
        tmp_path,
        "b-decoder",
        {"rate_nats": 0.0, "rate_nats_stderr": 0.0, "nats_per_token": 4, "nats_per_token_stderr": 0.01},
    )
    rendered = render(DOCUMENT, tmp_path)
    assert rendered.startswith("before\n<!-- results results/*.json -->\n| run | rate |")
    assert rendered.endswith("<!-- /results -->\nafter\n")
    assert "stale" not in rendered
    rows = [line.split(" | ") for line in rendered.splitlines() if line.startswith(("| a", "| b"))]
    assert [row[0] for row in rows] == ["| b-decoder", "| a-delta-vae"]  # without latents first
    assert rows[1][1] == "30.00 ± 0.40"
    assert rows[0][1] == "-"  # a decoder without latents has no rate, and one bound under either prior
    assert rows[0].count("4.000 ± 0.010") == 2
    assert (
        rendered.count("some text, 2,000 held-out sentences of 60,000 tokens, 100 steps, a CPU, torch 2, seed 0.") == 1
    )
    assert render(rendered, tmp_path) == rendered


def test_a_block_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"results/\*\.json: no results of that name"):
        render(DOCUMENT, tmp_path)
