"""Where a run is watched: TensorBoard, trackio or Weights & Biases; any other as Accelerate has it, curves alone.

Each shows rate and committed rate on one chart, and in the end what the run wrote: samples, figures, results.
"""

from __future__ import annotations

import html
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import Any, Protocol

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from PIL import Image

from delta_vae_lab.captions import FIGURES, SAMPLES, TRAINING
from delta_vae_lab.configuration import flatten
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import RunConfig
from delta_vae_lab.verdict import render_table, verdict

PROJECT = "delta-vae"
Track = Callable[[Mapping[str, float]], None]

_OF_RATE = re.compile(r"(heldout_)?((?:auxiliary_|committed_)?rate_nats|slack_nats)")
_TRAINING = ["rate/rate_nats", "rate/committed_rate_nats", "rate/auxiliary_rate_nats"]
_HELD_OUT = [f"heldout_{name}" for name in _TRAINING]
# Each chart of TensorBoard's custom scalars, and its curves.
_CHARTS = {
    "Rate over its floor, nats": {"training batches": _TRAINING, "held out": _HELD_OUT},
    "Slack, nats": {"rate less committed rate": ["rate/slack_nats", "heldout_rate/slack_nats"]},
    "Use of z, nats": {"held out": ["heldout/shuffle_gap_nats", "heldout/mutual_information_nats"]},
}

_CAPTIONS = {
    "figures/training": TRAINING,
    **{f"figures/{name}": caption for name, caption in FIGURES.items()},
    **{f"samples/{name}": caption for name, caption in SAMPLES.items()},
}


@dataclass(frozen=True)
class Report:
    """What a finished run wrote.

    metrics: those of results.json but for standard errors. results: its table and verdict, in lines for a fixed width.
    pictures: name -> PNG file and caption. texts: name -> entries and caption.
    """

    step: int
    metrics: Mapping[str, float]
    results: str
    pictures: Mapping[str, tuple[Path, str]]
    texts: Mapping[str, tuple[list[str], str]]


class Tracker(Protocol):
    """What is particular to one tracker. `native` is what Accelerate gives as its `tracker`."""

    def options(self, config: dict[str, Any], run: RunFolder, start: int) -> dict[str, Any]:
        """What Accelerate is to begin it with, for a run that goes on after the step `start`."""
        ...

    def begin(self, native: Any, config: dict[str, Any], run: RunFolder, start: int) -> bool:
        """Write what is known at the beginning. Whether what an earlier life of the run logged is still there."""
        ...

    def chart(self, native: Any, run: RunFolder, step: int) -> None:
        """Draw the chart of rate and committed rate anew, where it does not grow by itself."""
        ...

    def show(self, native: Any, report: Report) -> None:
        """Show samples, figures and results."""
        ...


def check_tracker(name: str) -> None:
    """Raise `ValueError` unless it is known, installed and, for Weights & Biases online, logged in."""
    if name == "none":
        return
    if name in _TRACKERS and find_spec(name) is None:
        raise ValueError(f'tracker={name}: is not installed; pip install "delta-vae-lab[{name}]"')
    installed = [str(tracker) for tracker in get_available_trackers()]
    if name not in {*_TRACKERS, *installed}:
        known = dict.fromkeys([*_TRACKERS, *installed])
        raise ValueError(f"tracker={name!r}: must be none or one of {', '.join(known)}; install what it needs first")
    if name == "wandb":
        _log_in()


def _log_in() -> None:
    import wandb  # noqa: PLC0415

    try:
        wandb.login()
    except wandb.Error as error:
        reason = str(error).partition(".")[0]
        raise ValueError(f"tracker=wandb: {reason}; run `wandb login`, or set WANDB_MODE=offline") from None


def start_tracker(accelerator: Accelerator, config: RunConfig, run: RunFolder, start: int) -> Track:
    """Begin the tracker that the accelerator was built with, after the step `start`; what sends it a line of metrics.

    It is called before metrics.jsonl is cut back to `start`. Only the main process sends anything.
    """
    flat = {key: v if isinstance(v, bool | int | float) else str(v) for key, v in flatten(config).items()}
    tracker = _TRACKERS.get(config.tracker)
    if tracker is None or not accelerator.is_main_process:  # where there is none to begin, none is begun
        accelerator.init_trackers(PROJECT, flat)
        return lambda metrics: accelerator.log(sectioned(metrics), step=int(metrics["step"]))

    run.trackers.mkdir(parents=True, exist_ok=True)
    project = os.environ.get(f"{config.tracker.upper()}_PROJECT") or PROJECT
    accelerator.init_trackers(project, init_kwargs={config.tracker: tracker.options(flat, run, start)})
    native = accelerator.trackers[0].tracker
    sent = {_identity(line) for line in run.metrics()} if tracker.begin(native, flat, run, start) else set()

    def track(metrics: Mapping[str, float]) -> None:
        if _identity(metrics) in sent:
            return
        step = int(metrics["step"])
        accelerator.log(sectioned(metrics), step=step)
        if "heldout_rate_nats" in metrics:
            tracker.chart(native, run, step)

    return track


def _identity(metrics: Mapping[str, float]) -> tuple[Any, ...]:
    """Of a line of metrics.jsonl: a step can have one of training and one of held-out data."""
    return (metrics["step"], *sorted(metrics))


def show_results(accelerator: Accelerator, run: RunFolder) -> None:
    """Show what the finished run wrote. The main process calls it, once results, figures and samples are there."""
    for active in accelerator.trackers:
        if tracker := _TRACKERS.get(active.name):
            report = read_report(run)
            tracker.chart(active.tracker, run, report.step)
            tracker.show(active.tracker, report)


def sectioned(metrics: Mapping[str, float]) -> dict[str, float]:
    """A line of metrics.jsonl under the names that trackers group curves by, the part before the slash.

    rate/ and heldout_rate/ hold the rates and the slack, train/ and heldout/ all else. Standard errors stay behind.
    """
    named = {}
    slack = {"slack_nats": metrics["rate_nats"] - metrics["committed_rate_nats"]} if "rate_nats" in metrics else {}
    for name, value in {**metrics, **slack}.items():
        if name == "step" or name.endswith("_stderr"):
            continue
        if match := _OF_RATE.fullmatch(name):
            named[f"{match[1] or ''}rate/{match[2]}"] = value
        elif name.startswith("heldout_"):
            named[f"heldout/{name.removeprefix('heldout_')}"] = value
        else:
            named[f"train/{name}"] = value
    return named


def read_report(run: RunFolder) -> Report:
    """What the files of a finished run say."""
    results = json.loads(run.results_file.read_text(encoding="utf-8"))
    metrics, about = results["metrics"], {"data": results["data"]["name"], "seed": results["seed"]}
    pictures, texts = {}, {}
    for name, caption in _CAPTIONS.items():
        picture, text = run.path / f"{name}.png", run.path / f"{name}.txt"
        if picture.is_file():
            pictures[name] = (picture, f"{caption}; {about['data']}, seed {about['seed']}")
        if text.is_file():
            title, *entries = text.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
            texts[name] = (entries, title)
    return Report(
        step=metrics["steps"],
        metrics={name: value for name, value in metrics.items() if not name.endswith("_stderr")},
        results=f"{render_table(metrics, **about)}\n\n{verdict(metrics)}",
        pictures=pictures,
        texts=texts,
    )


class _TensorBoard:
    """Charts are custom scalars, texts Markdown. What comes after `start` is purged, and is sent again."""

    def options(self, config: dict[str, Any], run: RunFolder, start: int) -> dict[str, Any]:
        return {"purge_step": start + 1}

    def begin(self, native: Any, config: dict[str, Any], run: RunFolder, start: int) -> bool:
        lines = "\n".join(f"{key}: {value}" for key, value in config.items())
        native.add_text("config", indent(lines, "    "), start)
        native.add_custom_scalars(
            {
                category: {chart: ["Multiline", [f"^{curve}$" for curve in curves]] for chart, curves in charts.items()}
                for category, charts in _CHARTS.items()
            }
        )
        return False

    def chart(self, native: Any, run: RunFolder, step: int) -> None:
        """The custom scalars grow by themselves."""

    def show(self, native: Any, report: Report) -> None:
        native.add_text("results", indent(report.results, "    "), report.step)
        for name, (picture, _) in report.pictures.items():
            native.add_image(name, np.asarray(Image.open(picture).convert("RGB")), report.step, dataformats="HWC")
        for name, (entries, caption) in report.texts.items():
            lines = indent("\n\n".join(entries), "    ")
            native.add_text(name, f"{caption}\n\n{lines}", report.step)
        native.flush()


class _Trackio:
    """One chart a metric is all it draws; the one of both rates is the run's own figure. It resumes by name."""

    def options(self, config: dict[str, Any], run: RunFolder, start: int) -> dict[str, Any]:
        name = run.path.resolve().name
        resume = "allow" if _identifier(run, "trackio").exists() else "never"
        return {"name": name, "config": config, "resume": resume, "embed": False}

    def begin(self, native: Any, config: dict[str, Any], run: RunFolder, start: int) -> bool:
        return _goes_on(native, _identifier(run, "trackio"))

    def chart(self, native: Any, run: RunFolder, step: int) -> None:
        """It cannot draw two metrics in one."""

    def show(self, native: Any, report: Report) -> None:
        import trackio  # noqa: PLC0415

        media: dict[str, Any] = {
            "results": trackio.Html(_fixed_width(report.results), caption="Results on held-out data")
        }
        for name, (picture, caption) in report.pictures.items():
            media[name] = trackio.Image(picture, caption=caption)
        for name, (entries, caption) in report.texts.items():
            text = "\n\n".join(entries)
            media[name] = trackio.Html(
                f"<p>{html.escape(caption)}</p>{_fixed_width(text, 'pre-wrap')}", caption=caption
            )
        metrics = {f"results/{name}": value for name, value in report.metrics.items()}
        native.log(metrics | media, step=report.step)


class _Wandb:
    """Its files lie in the run's trackers/. The chart of both rates is a custom chart, drawn anew when it has grown."""

    def options(self, config: dict[str, Any], run: RunFolder, start: int) -> dict[str, Any]:
        file = _identifier(run, "wandb")
        return {
            "name": os.environ.get("WANDB_NAME") or run.path.resolve().name,
            "id": file.read_text() if file.exists() else os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
            "resume": "allow",
            "dir": os.environ.get("WANDB_DIR") or str(run.trackers),
            "config": config,
        }

    def begin(self, native: Any, config: dict[str, Any], run: RunFolder, start: int) -> bool:
        return _goes_on(native, _identifier(run, "wandb"))

    def chart(self, native: Any, run: RunFolder, step: int) -> None:
        import wandb  # noqa: PLC0415

        lines = [sectioned(line) | {"step": line["step"]} for line in run.metrics()]
        for names in (_HELD_OUT, _TRAINING):
            curves = {
                name: [(line["step"], line[name]) for line in lines if name in line]
                for name in names
                if any(name in line for line in lines)
            }
            if curves:
                xs, ys = zip(*(zip(*curve, strict=True) for curve in curves.values()), strict=True)
                chart = wandb.plot.line_series(xs, ys, list(curves), "Rate over its floor, nats", "step")
                native.log({"rate over its floor": chart}, step=step)
                return

    def show(self, native: Any, report: Report) -> None:
        import wandb  # noqa: PLC0415

        media: dict[str, Any] = {"results": wandb.Html(_fixed_width(report.results))}
        for name, (picture, caption) in report.pictures.items():
            media[name] = wandb.Image(str(picture), caption=caption)
        for name, (entries, caption) in report.texts.items():
            media[name] = wandb.Table(columns=[caption], data=[[entry] for entry in entries])
        native.log(media, step=report.step)
        native.summary.update({f"results/{name}": value for name, value in report.metrics.items()})


_TRACKERS: dict[str, Tracker] = {"tensorboard": _TensorBoard(), "trackio": _Trackio(), "wandb": _Wandb()}


def _identifier(run: RunFolder, tracker: str) -> Path:
    """Where the run's folder keeps its id in a tracker."""
    return run.trackers / f"{tracker}-run-id"


def _goes_on(native: Any, file: Path) -> bool:
    """Whether the tracker went on with the run whose id is in this file, where its id is from now on."""
    goes_on = file.exists() and file.read_text() == native.id
    file.write_text(native.id)
    return goes_on


def _fixed_width(text: str, space: str = "pre") -> str:
    return f'<pre style="font-size: 11px; white-space: {space}">{html.escape(text)}</pre>'
