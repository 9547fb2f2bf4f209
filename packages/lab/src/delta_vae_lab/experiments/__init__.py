"""Experiments that set models side by side: `delta-vae reproduce NAME`.

A module each, with TITLE, SCALES, TAKES (what it heeds of a request beside scale, seeds and output) and `run(request)`,
which trains and measures; and, from the written result alone, `render(result)`, a table, and, where there are any,
`figures(result)`.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from delta_vae_lab.experiments.request import Request
from delta_vae_lab.figures import save_figure
from delta_vae_lab.places import check_folder
from delta_vae_lab.run_folder import describe_device, provenance
from delta_vae_lab.sections import RunConfig

TARGETS = (
    "figure-1",
    "price-of-information",
    "table-1",
    "table-3",
    "figure-4",
    "table-6",
    "collapse",
    "text-collapse",
    "fixed-z",
    "text",
    "slow-factor",
)


def reproduce(name: str, request: Request) -> tuple[dict[str, Any], str]:
    """The result of an experiment and its table.

    `request.output` gets NAME-DATA.json, or NAME.json where the data are the experiment's own; figures/, as PNG and
    SVG; where models were trained, a CSV with a row each, and models/.
    """
    if name not in TARGETS:
        close = difflib.get_close_matches(name, TARGETS, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(TARGETS)}"
        raise ValueError(f"reproduce {name!r}: no such experiment; {remedy}")
    module, seeds = _module(name), request.seeds
    if request.scale not in module.SCALES:
        raise ValueError(f"scale={request.scale!r}: {name} has no such scale; choose from {', '.join(module.SCALES)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds={list(seeds)}: give one or more, each once")
    for option, given in (("data", request.data), ("probe_data", request.probe_data), ("jobs", request.jobs)):
        if option not in module.TAKES and given not in (None, 1):
            raise ValueError(f"{option}={given!r}: of no use to {name}; leave it out")
    check_folder(request.output)
    found = module.run(request)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = provenance(RunConfig(), describe_device(device, 1))
    where["versions"] |= {"scikit-learn": metadata.version("scikit-learn")}
    result = {"experiment": name, "scale": request.scale, "seeds": list(seeds)}
    result |= {key: value for key, value in where.items() if key != "seed"} | found
    written: dict[str, Any] = json.loads(json.dumps(result, allow_nan=False))
    _write(written, request.output)
    return written, render_experiment(written)


def stem(result: Mapping[str, Any]) -> str:
    """What the files of a result are called."""
    if "preset" not in result:
        return str(result["experiment"])
    return f"{result['experiment']}-{result['data']['name'].replace('/', '-')}"  # a Hub data set is called OWNER/NAME


def render_experiment(result: Mapping[str, Any]) -> str:
    """The table of a result, as it was written."""
    table: str = _module(result["experiment"]).render(result)
    return table


def experiment_title(result: Mapping[str, Any]) -> str:
    """What the experiment is called."""
    title: str = _module(result["experiment"]).TITLE
    return title


def experiment_figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures of a result, as it was written, by file name."""
    draw = getattr(_module(result["experiment"]), "figures", None)
    figures: dict[str, Figure] = {} if draw is None else draw(result)
    return {f"{stem(result)}-{name}": figure for name, figure in figures.items()}


def _write(result: Mapping[str, Any], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for name, figure in experiment_figures(result).items():
        save_figure(figure, output / "figures", name)
    if "runs" in result:
        _write_csv(result["runs"], output / f"{stem(result)}.csv")
    partial = output / f"{stem(result)}.json.partial"
    partial.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    partial.replace(output / f"{stem(result)}.json")


def _write_csv(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A row a model: its name and seed, and every number that was measured of it, led by where it was."""
    parts = ("metrics", "heldout", "train", "probe", "fixed_z")
    rows = [
        {"model": run["model"], "seed": run["seed"]}
        | {
            f"{part}_{name}": value
            for part in parts
            for name, value in run.get(part, {}).items()
            if isinstance(value, int | float)
        }
        for run in runs
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list({name: None for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)


def _module(name: str) -> Any:
    return import_module(f"delta_vae_lab.experiments.{name.replace('-', '_')}")
