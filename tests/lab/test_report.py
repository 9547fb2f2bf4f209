"""Tables of results, rendered into Markdown."""

import json
from pathlib import Path

import pytest

from delta_vae_lab.report import render

DOCUMENT = "before\n<!-- results results/*.json -->\nstale\n<!-- /results -->\nafter\n"


def write(folder: Path, run: str, metrics: dict[str, float], **more: object) -> None:
    counts = {} if "images" in metrics else {"sentences": 2000, "tokens": 60_000}
    common = counts | {"steps": 100, "committed_rate_nats": 0.0}
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


IMAGES = {"images": 500, "dimensions": 500 * 64}


def test_images_are_compared_in_bits_per_dim_with_the_rates_share_in_parentheses(tmp_path: Path) -> None:
    latents = {
        **IMAGES, "latent_dim": 2, "rate_nats": 12.0, "rate_nats_stderr": 0.05, "mutual_information_nats": 4.0,
        "mutual_information_nats_stderr": 0.1, "bits_per_dim": 1.9, "bits_per_dim_stderr": 0.02,
        "rate_bits_per_dim": 0.27051, "auxiliary_bits_per_dim": 1.8, "auxiliary_bits_per_dim_stderr": 0.02,
        "auxiliary_rate_bits_per_dim": 0.17, "training_seconds": 5400.0,
    }  # fmt: skip
    alone = {**IMAGES, "bits_per_dim": 1.75, "bits_per_dim_stderr": 0.03, "rate_bits_per_dim": 0.0}
    data = {"name": "digits", "levels": 17}
    write(tmp_path, "a-delta-vae", latents, data=data)
    write(tmp_path, "b-decoder", alone, data=data)
    lines = render(DOCUMENT, tmp_path).splitlines()
    heads, decoder, model = ([cell.strip() for cell in lines[i].split("|")[1:-1]] for i in (2, 4, 5))
    by_head = dict(zip(heads, zip(decoder, model, strict=True), strict=True))
    assert by_head["run"] == ("b-decoder", "a-delta-vae")
    assert by_head["rate"] == ("-", "12.000 ± 0.050")
    assert by_head["I(x; z)"] == ("-", "4.00 ± 0.10")
    assert by_head["bits/dim (rate)"] == ("1.750 ± 0.030", "1.900 ± 0.020 (0.2705)")
    assert by_head["the same, auxiliary prior"] == ("1.750 ± 0.030", "1.800 ± 0.020 (0.1700)")
    assert by_head["training hours"] == ("-", "1.50")
    assert lines[7] == (
        "Nats an image ± standard error over images; bounds in bits/dim, that of the rate in parentheses. digits, "
        "500 held-out images of 64 dimensions at 17 levels, 100 steps, a CPU, torch 2, seed 0. "
        "Command, commit and data fingerprint are in each results file."
    )


def test_no_training_time_is_shown_where_none_was_kept(tmp_path: Path) -> None:
    write(tmp_path, "a-decoder", {**IMAGES, "bits_per_dim": 1.75, "bits_per_dim_stderr": 0.03})
    assert "hours" not in render(DOCUMENT, tmp_path)


def test_results_of_text_and_of_images_are_no_one_table(tmp_path: Path) -> None:
    write(tmp_path, "a-decoder", {"nats_per_token": 4.0, "nats_per_token_stderr": 0.01})
    write(tmp_path, "b-decoder", {**IMAGES, "bits_per_dim": 1.75, "bits_per_dim_stderr": 0.03})
    with pytest.raises(ValueError, match="text and of images in one table: give each a block of its own"):
        render(DOCUMENT, tmp_path)


def test_a_block_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"results/\*\.json: no results of that name"):
        render(DOCUMENT, tmp_path)


def test_benchmarks_have_a_row_a_measurement_with_medians_alone(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for threads, faster in ((1, 120.4), (2, 77.0)):
        row = {"batch": 16, "naive_s": 60.123, "naive_s_min": 59.0, "naive_s_max": 70.0, "times_faster": faster}
        result = {"benchmark": "b", "threads": threads, "device": "a CPU", "versions": {"torch": "2"}, "rows": [row]}
        (tmp_path / f"results/{threads}.json").write_text(json.dumps(result | {"notes": ["Seconds an image."]}))
    lines = render(DOCUMENT, tmp_path).splitlines()
    assert "| threads | batch | naive | times faster |" in lines
    assert "| 1 | 16 | 60.1 s | 120 |" in lines
    assert "| 2 | 16 | 60.1 s | 77 |" in lines
    assert "Seconds an image. a CPU, torch 2." in lines


def test_an_experiment_is_shown_as_its_own_table() -> None:
    root = Path(__file__).parents[2]
    rendered = render("<!-- results results/slow-factor.json -->\n<!-- /results -->", root)
    written = json.loads((root / "results/slow-factor.json").read_text())
    known = written["data"]["source"]["information_nats"]
    assert rendered.startswith("<!-- results results/slow-factor.json -->\n```text\nsynthetic-slow-factor, scale small")
    assert f"the factor is worth at most {known:.3f}" in rendered
    assert rendered.endswith("```\n<!-- /results -->")
