"""Experiments that train several models and set them side by side: `delta-vae reproduce NAME`."""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from typing import Any

TARGETS = ("slow-factor",)


def reproduce(name: str, scale: str, seeds: list[int], output: Path) -> tuple[dict[str, Any], str]:
    """The result of an experiment, which it also writes to OUTPUT/NAME.json, and its table."""
    if name not in TARGETS:
        close = difflib.get_close_matches(name, TARGETS, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(TARGETS)}"
        raise ValueError(f"reproduce {name!r}: no such experiment; {remedy}")
    result = _module(name).run(scale, seeds, output)
    return result, render_experiment(result)


def render_experiment(result: dict[str, Any]) -> str:
    """The table of a result, as it was written."""
    table: str = _module(result["experiment"]).render(result)
    return table


def _module(name: str) -> Any:
    return import_module(f"delta_vae_lab.experiments.{name.replace('-', '_')}")
