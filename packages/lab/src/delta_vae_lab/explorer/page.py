"""The explorer's page: a dictionary as `gather` makes it -> one HTML file that asks the network for nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from delta_vae_core import nats_to_bits

_HERE = Path(__file__).parent
_MARK = '<meta name="generator" content="delta-vae explore">'


def render(gathered: Mapping[str, Any]) -> str:
    """The page. All that comes from data is escaped; style and script are our own."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["nats"] = lambda value: f"{value:.2f}"
    environment.filters["bits"] = lambda value: f"{nats_to_bits(value):.2f}"
    scale = gathered["scale_nats"] or 1.0
    environment.filters["heat"] = lambda value: f"{min(max(value / scale, 0.0), 1.0):.3f}"
    return environment.get_template("explorer.html.j2").render(
        gathered,
        mark=_MARK,
        style=_our_own("explorer.css"),
        script=_our_own("explorer.js"),
        json=embedded_json(gathered),
    )


def embedded_json(values: Mapping[str, Any]) -> str:
    """JSON for the inside of a <script>: nothing in it can end the element, or begin another."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def is_ours(file: Path) -> bool:
    """Whether the file is a page that `render` made."""
    with file.open("rb") as opened:
        return _MARK.encode() in opened.read(1024)


def _our_own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
