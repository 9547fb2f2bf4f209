"""Trackers: what each has of a run is read back from where it keeps it, with the tracker's own libraries."""

import html
import importlib
import io
import json
import os
import re
import struct
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from delta_vae_lab import tracking
from delta_vae_lab.image_run import run_images
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.text_run import run_text
from delta_vae_lab.tracking import check_tracker, sectioned

TINY = """
prior: {{latent_dim: 2, alpha: [0.5, 0.9]}}
encoder: {{hidden_size: 8, num_layers: 1, num_heads: 2{attention}}}
decoder: {{hidden_size: 8, num_layers: 1, num_heads: 2{attention}}}
auxiliary_prior: {{hidden_size: 4}}
optimization: {{steps: 6, batch_size: 2, warmup_steps: 1, schedule: constant}}
evaluation: {{every: 3, examples: 4, importance_samples: 2}}
checkpoint: {{every: 2}}
log_every: 1
{text}
"""
CURVES = ("rate/rate_nats", "rate/committed_rate_nats", "rate/auxiliary_rate_nats")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder to run in, with no setting of a user's for any tracker."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    AcceleratorState._reset_state(reset_partial_state=True)


def train(place: Path, kind: str, *overrides: str, tracker: str | None = None, resume: bool = False) -> RunFolder:
    """A tiny run in place/runs/tiny, as a recipe does it."""
    images = kind == "images"
    content = TINY.format(attention=", attention_layers: 0" if images else "", text="" if images else "max_length: 400")
    content += "" if images else "tokenizer: {vocab_size: 265}\n"
    (place / "tiny.yaml").write_text(content)
    (place / "sentences.txt").write_text("\n".join("the cat sat on a mat"[: 3 + i % 9] for i in range(40)))
    arguments = Namespace(
        config=place / "tiny.yaml",
        data="builtin" if images else str(place / "sentences.txt"),
        output_dir=place / "runs/tiny",
        resume=resume,
        tracker=tracker,
        push_to_hub=None,
        overrides=list(overrides),
    )
    (run_images if images else run_text)(arguments, Path(kind))
    AcceleratorState._reset_state(reset_partial_state=True)
    return RunFolder(place / "runs/tiny")


def lines_of(run: RunFolder, curve: str) -> list[tuple[int, float]]:
    """The curve as metrics.jsonl has it."""
    name = curve.removeprefix("rate/")
    return [(line["step"], line[name]) for line in run.metrics() if name in line]


def one_step_more(run: RunFolder) -> None:
    """As a kill leaves it: steps were logged that no checkpoint has."""
    assert run.metrics()[-1]["step"] == 6
    (last,) = run.checkpoints.glob("step-00000006")
    last.rename(run.path / "elsewhere")


# TensorBoard


def events_of(run: RunFolder) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = run.trackers.iterdir()
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def text_of(events: Any, tag: str) -> str:
    event = events.Tensors(f"{tag}/text_summary")[-1]
    return event.tensor_proto.string_val[0].decode()


@pytest.mark.slow
def test_tensorboard_has_both_rates_on_one_chart_and_what_the_run_drew(place: Path) -> None:
    """It is the default."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    run = train(place, "images")
    events = events_of(run)
    for curve in CURVES:
        logged = [(event.step, event.value) for event in events.Scalars(curve)]
        assert logged == [(step, pytest.approx(value)) for step, value in lines_of(run, curve)]
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for part in layout.category for chart in part.chart}
    tags = events.Tags()["scalars"]
    drawn = {title: [tag for tag in tags for line in lines if re.match(line, tag)] for title, lines in charts.items()}
    assert set(drawn["training batches"]) == set(CURVES)
    assert set(drawn["held out"]) >= {"heldout/shuffle_gap_nats"}
    assert "prior.latent_dim: 2" in text_of(events, "config")
    for file in [*run.samples.glob("*.png"), *run.figures.glob("*.png")]:
        (event,) = events.Images(f"{file.parent.name}/{file.stem}")
        assert event.step == 6
        shown, written = Image.open(io.BytesIO(event.encoded_image_string)), Image.open(file)
        assert np.array_equal(np.asarray(shown), np.asarray(written.convert("RGB")))
    assert re.search(r"rate, training prior +\d", text_of(events, "results"))


@pytest.mark.slow
def test_a_resumed_curve_has_every_step_once(place: Path) -> None:
    run = train(place, "text")
    one_step_more(run)
    train(place, "text", "optimization.steps=8", resume=True)
    events = events_of(run)
    assert [event.step for event in events.Scalars(CURVES[0])] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert text_of(events, "samples/samples_prior").startswith("8 samples, z from the training prior")
    assert [event.step for event in events.Images("figures/training")] == [8]


# trackio


@pytest.fixture
def trackio(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, with its projects in place/projects: it reads where they are when it is imported."""
    module = pytest.importorskip("trackio", reason="needs trackio")
    for name in ("trackio.utils", "trackio.sqlite_storage", "trackio.media.media", "trackio.media.utils"):
        part = importlib.import_module(name)
        for constant, folder in (("TRACKIO_DIR", place / "projects"), ("MEDIA_DIR", place / "projects/media")):
            if hasattr(part, constant):
                monkeypatch.setattr(part, constant, folder)
    return module


def trackio_logs(trackio: Any) -> tuple[Any, list[dict[str, Any]]]:
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs("delta-vae")
    return run, SQLiteStorage.get_logs("delta-vae", run.name, run_id=run.id)


@pytest.mark.slow
def test_trackio_has_a_resumed_run_once_under_its_folders_name(place: Path, trackio: Any) -> None:
    run = train(place, "images", tracker="trackio")
    one_step_more(run)
    train(place, "images", "optimization.steps=8", tracker="trackio", resume=True)
    there, logs = trackio_logs(trackio)
    assert (there.name, there.config["prior.latent_dim"]) == ("tiny", 2)
    for curve in CURVES:
        logged = [(row["step"], row[curve]) for row in logs if curve in row]
        assert logged == lines_of(run, curve)
        assert [step for step, _ in logged] == [1, 2, 3, 4, 5, 6, 7, 8]
    shown = [row for row in logs if "results" in row][-1]
    metrics = json.loads(run.results_file.read_text())["metrics"]
    assert (shown["step"], shown["results/slack_nats"]) == (8, metrics["slack_nats"])
    for file in [*run.samples.glob("*.png"), *run.figures.glob("*.png")]:
        picture = shown[f"{file.parent.name}/{file.stem}"]
        assert (place / "projects/media" / picture["file_path"]).read_bytes() == file.read_bytes()
        assert picture["caption"].endswith("sklearn-digits, seed 0")


def test_trackio_shows_texts_as_they_are(place: Path, trackio: Any) -> None:
    run = train(place, "text", tracker="trackio")
    _, logs = trackio_logs(trackio)
    page = (place / "projects/media" / logs[-1]["samples/samples_prior"]["file_path"]).read_text()
    for line in (run.samples / "samples_prior.txt").read_text().splitlines():
        assert html.escape(line) in page


# Weights & Biases


@pytest.fixture
def wandb(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The library, as in a process of its own and silent, with all that it keeps of a user in place/home."""
    module = pytest.importorskip("wandb", reason="needs wandb")
    module.teardown()
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(place / "home"))
    monkeypatch.setenv("NETRC", str(place / "home/netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield module
    module.teardown()


@pytest.fixture
def wandb_offline(wandb: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return wandb


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline run: protobuf in blocks of 32 KiB, as LevelDB's log has them, after a header of 7."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def insert(items: Any, into: dict[str, Any]) -> None:
    """Put each value where its key, perhaps of several names, says."""
    for item in items:
        *path, name = item.nested_key or [item.key]
        place = into
        for part in path:
            place = place.setdefault(part, {})
        place[name] = json.loads(item.value_json)


def wandb_parts(wandb: Any, run: RunFolder) -> tuple[list[Any], list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Runs begun, rows of history, config and the last summary, over all lives of the run."""
    wandb.teardown()  # its service writes the last records
    begun: list[Any] = []
    history: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for file in sorted(run.trackers.glob("wandb/offline-run-*/*.wandb")):
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                begun.append(record.run)
                insert(record.run.config.update, config)
            elif kind == "history":
                history.append({})
                insert(record.history.item, history[-1])
            elif kind == "config":
                insert(record.config.update, config)
            elif kind == "summary":
                insert(record.summary.update, summary)
    return begun, history, config, summary


@pytest.mark.slow
def test_wandb_offline_has_a_resumed_run_once_in_its_folder(
    place: Path, wandb_offline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "my-project")
    run = train(place, "images", tracker="wandb")
    one_step_more(run)
    train(place, "images", "optimization.steps=8", tracker="wandb", resume=True)
    assert not (place / "wandb").exists()
    begun, history, config, summary = wandb_parts(wandb_offline, run)
    assert {(part.display_name, part.project) for part in begun} == {("tiny", "my-project")}
    assert len({part.run_id for part in begun}) == 1
    assert config["prior.latent_dim"] == 2
    for curve in CURVES:
        logged = [(row["_step"], row[curve]) for row in history if curve in row]
        assert logged == lines_of(run, curve)
        assert [step for step, _ in logged] == [1, 2, 3, 4, 5, 6, 7, 8]
    metrics = json.loads(run.results_file.read_text())["metrics"]
    assert summary["results/slack_nats"] == metrics["slack_nats"]
    for file in [*run.samples.glob("*.png"), *run.figures.glob("*.png")]:
        picture = summary[f"{file.parent.name}/{file.stem}"]
        (kept,) = run.trackers.glob(f"wandb/offline-run-*/files/{picture['path']}")
        assert kept.read_bytes() == file.read_bytes()
        assert picture["caption"].endswith("sklearn-digits, seed 0")


@pytest.mark.parametrize(("every", "prefix"), [(3, "heldout_rate"), (0, "rate")], ids=["held out", "training"])
def test_wandb_draws_both_rates_on_one_chart(place: Path, wandb_offline: Any, every: int, prefix: str) -> None:
    run = train(place, "text", f"evaluation.every={every}", tracker="wandb")
    _, _, config, summary = wandb_parts(wandb_offline, run)
    panel = config["_wandb"]["visualize"]["rate over its floor"]
    assert panel["panel_config"]["panelDefId"] == "wandb/lineseries/v0"
    (table,) = run.trackers.glob(f"wandb/offline-run-*/files/{summary['rate over its floor_table']['path']}")
    content = json.loads(table.read_text())
    points = {(step, curve): value for step, curve, value in content["data"]}
    name = prefix.replace("rate", "") + "committed_rate_nats"
    drawn = {step: value for (step, curve), value in points.items() if curve == f"{prefix}/committed_rate_nats"}
    assert drawn == pytest.approx({line["step"]: line[name] for line in run.metrics() if name in line})
    assert summary["samples/samples_prior"]["nrows"] == 8
    assert {curve for _, curve in points} == {f"{prefix}/{rate.partition('/')[2]}" for rate in CURVES}


@pytest.mark.usefixtures("wandb")
def test_wandb_without_a_key_is_refused_before_anything_is_trained(place: Path) -> None:
    with pytest.raises(ValueError, match=r"tracker=wandb: No API key.*; run `wandb login`, or set WANDB_MODE=offline"):
        train(place, "text", tracker="wandb")
    assert not (place / "runs").exists()


# What they have in common


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_what_is_not_installed_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf'tracker={name}: is not installed; pip install "delta-vae-lab\[{name}\]"'):
        check_tracker(name)


def test_an_unknown_tracker_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'tensorbord': must be none or one of tensorboard, trackio, wandb.*install"):
        check_tracker("tensorbord")


def test_names_are_sectioned_and_standard_errors_stay_behind() -> None:
    training = {"step": 2, "rate_nats": 5.0, "committed_rate_nats": 3.0, "learning_rate": 0.1}
    assert sectioned(training) == {
        "rate/rate_nats": 5.0,
        "rate/committed_rate_nats": 3.0,
        "rate/slack_nats": 2.0,
        "train/learning_rate": 0.1,
    }
    held_out = {"step": 2, "heldout_auxiliary_rate_nats": 1.0, "heldout_rate_nats_stderr": 0.1, "heldout_slack_nats": 2}
    held_out |= {"heldout_smallest_batch_slack_nats": 1.5}
    assert sectioned(held_out) == {
        "heldout_rate/auxiliary_rate_nats": 1.0,
        "heldout_rate/slack_nats": 2,
        "heldout/smallest_batch_slack_nats": 1.5,
    }
