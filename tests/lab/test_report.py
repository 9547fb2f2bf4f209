"""Tables and figures of results in Markdown: how they are rendered, and that the committed documents are up to date."""

import base64
import io
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from delta_vae_lab.experiments import experiment_figures
from delta_vae_lab.report import main, render

ROOT = Path(__file__).parents[2]
SLOW_FACTOR = ROOT / "results/reproduction/slow-factor.json"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"<!-- (results|figures) (\S+) -->\n(.*?)<!-- /\1 -->", re.DOTALL)

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


def test_benchmarks_have_a_row_a_measurement_with_its_spread_and_its_target(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    nothing: dict[str, Any] = {"at_least": None, "at_most": None, "ours_min": 0.01, "ours_max": 0.2}
    fast = nothing | {
        "row": "a model", "ours": 1234.4, "unit": "tokens/s", "peer": "another", "theirs": 1000.0, "ratio": 1.2344,
        "ratio_min": 1.1, "ratio_max": 1.3, "at_least": 1.2,
    }  # fmt: skip
    slow = fast | {"row": "a slow one", "at_least": 1.25}
    level = fast | {"row": "a level one", "at_least": None}
    start = nothing | {"row": "a start", "ours": 0.06, "unit": "s", "peer": None, "at_most": 0.05}
    common = {"threads": 2, "versions": {"torch": "2", "transformers": "5"}}
    benchmarks = {"b": common | {"rows": [fast, slow, level], "notes": ["Drawn", "twice."]}}
    benchmarks["c"] = common | {"rows": [start], "notes": []}
    (tmp_path / "results/a.json").write_text(json.dumps({"device": "a CPU", "benchmarks": benchmarks}))
    lines = render(DOCUMENT, tmp_path).splitlines()
    same = "1,234 tokens/s | another | 1,000 tokens/s | 1.23 (1.1 to 1.3)"
    assert lines[2:8] == [
        "| benchmark |  | ours | peer | its | ratio | target |",
        "|---|---|---|---|---|---|---|",
        f"| b | a model | {same} | ≥ 1.2 |",
        f"| b | a slow one | {same} | ≥ 1.25, missed |",
        f"| b | a level one | {same} | - |",
        "| c | a start | 0.06 s (0.01 to 0.2) | - | - | - | ≤ 0.05, missed |",
    ]
    assert lines[9].endswith("the greatest. a CPU, 2 threads, torch 2, transformers 5.")
    assert lines[11] == "- b: Drawn twice."


def test_an_experiment_is_shown_as_its_own_table() -> None:
    rendered = render("<!-- results results/reproduction/slow-factor.json -->\n<!-- /results -->", ROOT)
    known = json.loads(SLOW_FACTOR.read_text())["data"]["source"]["information_nats"]
    opening = "<!-- results results/reproduction/slow-factor.json -->\n```text\nsynthetic-slow-factor, scale small"
    assert rendered.startswith(opening)
    assert f"the factor is worth at most {known:.3f}" in rendered
    assert rendered.endswith("```\n<!-- /results -->")


def test_backticks_in_what_a_model_wrote_do_not_end_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delta_vae_lab.report.render_experiment", lambda result: "It wrote\n```\nthis.")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/text.json").write_text('{"experiment": "text"}')
    assert "\n````text\nIt wrote\n```\nthis.\n````\n" in render(DOCUMENT, tmp_path)


def page(folder: Path, results: Path, block: str) -> Path:
    """folder/docs/page.md with one block of folder/results/*.json, of which `results` is one."""
    (folder / "results").mkdir()
    (folder / "results" / results.name).write_bytes(results.read_bytes())
    (folder / "docs").mkdir()
    document = folder / "docs/page.md"
    document.write_text(f"before\n<!-- {block} ../results/*.json -->\n<!-- /{block} -->\nafter\n")
    return document


def report(*documents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, documents)])
    main()


def test_a_figure_is_drawn_beside_the_document_that_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = page(tmp_path, SLOW_FACTOR, "figures")
    report(document, monkeypatch=monkeypatch)
    caption = "A slow factor of a source known exactly (recovered, synthetic-slow-factor)"
    written = document.read_text()
    assert f"-->\n![{caption}](figures/slow-factor-recovered.svg)\n<!--" in written
    drawn = list((tmp_path / "docs/figures").iterdir())
    assert [file.name for file in drawn] == ["slow-factor-recovered.svg"]
    before = drawn[0].read_bytes()
    report(document, monkeypatch=monkeypatch)
    assert document.read_text() == written
    assert drawn[0].read_bytes() == before


def test_a_figure_of_pictures_is_kept_as_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("L", (16, 12), 128).save(file, "PNG")
    run = {"model": "a model", "grid": base64.b64encode(file.getvalue()).decode()}
    result = {"experiment": "fixed-z", "preset": {}, "data": {"name": "digits"}, "seeds": [0], "runs": [run]}
    source = tmp_path / "fixed-z-digits.json"
    source.write_text(json.dumps(result))
    document = page(tmp_path, source, "figures")
    report(document, monkeypatch=monkeypatch)
    assert "![Many images of one z (grids, digits)](figures/fixed-z-digits-grids.png)" in document.read_text()
    assert [file.name for file in (tmp_path / "docs/figures").iterdir()] == ["fixed-z-digits-grids.png"]


def test_what_cannot_be_rendered_is_one_line_and_leaves_the_document_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = page(tmp_path, SLOW_FACTOR, "figures")
    (tmp_path / "results/slow-factor.json").unlink()
    before = document.read_text()
    with pytest.raises(SystemExit, match="2"):
        report(document, monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"../results/*.json: no results of that name in {document.parent}; run them, or correct the comment" in error
    assert document.read_text() == before


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"experiment": "table-1"}, r"results/\*\.json: has no figures; leave the block out"),
        ({"run": "a-delta-vae"}, "a figures block is of experiments alone; those of a run are in its own folder"),
    ],
)
def test_what_has_no_figures_is_refused(tmp_path: Path, result: dict[str, Any], message: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/one.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=message):
        render(DOCUMENT.replace("results results", "figures results").replace("/results -->", "/figures -->"), tmp_path)


def test_runs_and_experiments_are_no_one_block(tmp_path: Path) -> None:
    write(tmp_path, "a-decoder", {**IMAGES, "bits_per_dim": 1.75, "bits_per_dim_stderr": 0.03})
    (tmp_path / "results/b.json").write_text('{"experiment": "table-1"}')
    with pytest.raises(ValueError, match="results of experiment and run in one block: give each kind a block"):
        render(DOCUMENT, tmp_path)


@pytest.mark.parametrize(
    "document",
    [
        "<!-- results a.json -->\nnever closed\n",
        "<!-- results a.json -->\nclosed too late\n<!-- results b.json -->\n<!-- /results -->\n",
        "<!-- figures a.json -->\nby the wrong comment\n<!-- /results -->\n",
        "<!-- results a.json b.json -->\ntwo names\n<!-- /results -->\n",
    ],
)
def test_a_block_that_would_be_passed_over_or_swallow_what_follows_is_refused(document: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no block, or within another; give it one GLOB, a line of its own, and a"):
        render(document, tmp_path)


def test_the_figure_of_the_slow_factor_shows_means_over_seeds() -> None:
    result = json.loads(SLOW_FACTOR.read_text())
    (figure,) = experiment_figures(result).values()
    accuracies, nats = figure.axes

    def over_seeds(metric: str) -> list[float]:
        values: dict[str, list[float]] = {}
        for run in result["runs"]:
            values.setdefault(run["model"], []).append(run["metrics"][metric])
        return [statistics.mean(values[model]) for model in ("delta_vae", "ordinary_vae")]

    bars = {container.get_label(): [bar.get_height() for bar in container] for container in nats.containers[1::2]}
    assert set(bars) == {"rate, training prior", "of it committed", "rate, auxiliary prior", "I(x; z)", "shuffle gap"}
    assert bars["rate, training prior"] == pytest.approx(over_seeds("rate_nats"))
    assert bars["shuffle gap"] == pytest.approx(over_seeds("shuffle_gap_nats"))
    points = {container.get_label(): list(container[0].get_ydata()) for container in accuracies.containers}
    assert points["a draw of z, mean over steps"] == pytest.approx(over_seeds("pooled_sample_accuracy"))
    assert points["posterior means, mean over steps"] == pytest.approx(over_seeds("pooled_accuracy"))
    lines = {str(line.get_label()): line.get_ydata()[0] for line in accuracies.lines}
    assert lines["best possible"] == pytest.approx(over_seeds("bayes_accuracy")[0])
    assert lines["bag of words"] == pytest.approx(over_seeds("bag_of_words_accuracy")[0])
    assert lines["chance"] == 0.5


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize(
    ("document", "place"),
    [
        pytest.param(document, place, id=f"{name(document)} {kind} {glob.replace('../', '')}")
        for document in DOCUMENTS
        for place, (kind, glob, _) in enumerate(BLOCK.findall(document.read_text()))
    ],
)
def test_a_committed_block_is_what_the_committed_results_say(document: Path, place: int) -> None:
    """Of figures the line that refers to them; their pixels are another matplotlib's."""
    block = list(BLOCK.finditer(document.read_text()))[place]
    _, glob, content = block.groups()
    if not content and not list(document.parent.glob(glob)):
        pytest.skip(f"no results yet of {glob}: its block is empty")
    assert render(block[0], document.parent) == block[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_comment_that_opens_a_block_is_one(document: Path) -> None:
    text = document.read_text()
    assert len(BLOCK.findall(text)) == len(re.findall(r"<!-- (?:results|figures)\b", text))


def linked(document: Path) -> list[tuple[str, str]]:
    """File and heading of the links to other documents and of the pictures."""
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", document.read_text())
    return [(file, heading) for file, heading in found if not file.startswith(("http:", "https:"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_what_a_document_links_to_exists(document: Path) -> None:
    for file, heading in linked(document):
        target = document.parent / file if file else document
        assert target.exists(), f"{name(document)} refers to {file}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
            assert heading in anchors, f"{name(document)} refers to #{heading} of {file}"


def test_no_figure_is_left_that_no_document_shows() -> None:
    shown = {(document.parent / file).resolve() for document in DOCUMENTS for file, _ in linked(document)}
    drawn = {file.resolve() for file in (ROOT / "docs").rglob("figures/*")}
    assert drawn <= shown
