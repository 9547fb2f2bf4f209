"""The explorer's example pages and their pictures in docs/: what the code makes now, driven in Chromium.

UPDATE_SCREENSHOTS=1 writes both anew, from the data that the pages hold; docs/explorer/make.py makes these data.
"""

import base64
import hashlib
import importlib.util
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from delta_vae_lab.explorer.page import render

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
UPDATE = os.environ.get("UPDATE_SCREENSHOTS") == "1"
REMEDY = "UPDATE_SCREENSHOTS=1 uv run pytest tests/lab/test_explorer_screenshots.py makes it anew"
ADDRESSES = {"sentences": "#example=2&shift=1&to=4&way=4", "shapes": "#example=3&shift=1&way=4"}
# Widths of some text: where they are the same, so are the fonts.
FONTS = """["system-ui", "ui-monospace"].map((family) => {
  const context = document.createElement("canvas").getContext("2d");
  context.font = "100px " + family;
  return context.measureText("0.95 nats of the rate, as it is").width;
})"""


@dataclass(frozen=True)
class View:
    """A window; `whole` shows the page down to the end of what can be explored, else one screen of the controls."""

    name: str
    width: int
    scale: int
    scheme: str
    whole: bool

    def region(self, browser: Any) -> dict[str, float]:
        top, bottom = browser.evaluate(
            "(({top, bottom}) => [top, bottom])(document.getElementById('explore').getBoundingClientRect())"
        )
        area = (0, bottom + 20) if self.whole else (top, 1050)
        return {"x": 0, "y": area[0], "width": self.width, "height": round(area[1]), "scale": 1}


VIEWS = (
    View("light", 1280, 1, "light", whole=True),
    View("dark", 1280, 1, "dark", whole=True),
    View("phone", 390, 2, "light", whole=False),
)


def data_of(page: Path) -> dict[str, Any]:
    """What `gather` made, as the page holds it."""
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"))
    data: dict[str, Any] = json.loads(found)
    return data


def open_in(view: View, browser: Any, page: Path, address: str) -> None:
    size = {"width": view.width, "height": 900, "deviceScaleFactor": view.scale, "mobile": view.width < 700}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": view.scheme}])
    browser.open(page, address)


def drive(browser: Any, page: Path) -> None:
    """Both sliders, by the keyboard: the decoding shown changes. Nothing is complained of, nothing else asked for."""
    for slider, place in (("shift", "#moved"), ("way", "#between")):
        browser.evaluate(f"document.getElementById('{slider}').focus()")
        browser.press("Home", 36)
        first = browser.evaluate(f"document.querySelector('{place}').innerHTML")
        browser.press("End", 35)
        assert browser.evaluate(f"document.querySelector('{place}').innerHTML") != first, slider
        browser.press("ArrowLeft", 37)
        assert browser.evaluate("Number(document.activeElement.value)") == 5
    assert browser.complaints() == []
    assert [url.partition("#")[0] for url in browser.requests()] == [page.as_uri()]


def take(view: View, browser: Any, page: Path) -> tuple[Image.Image, dict[str, str]]:
    """The picture, and what it is of: the page's SHA-256, the browser and the widths of its fonts."""
    content = browser.call(
        "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=view.region(browser)
    )
    with Image.open(io.BytesIO(base64.b64decode(content["data"]))) as image:
        taken = image.convert("RGB")
    about = {
        "Source": hashlib.sha256(page.read_bytes()).hexdigest(),
        "Software": f"{browser.call('Browser.getVersion')['product']}, fonts {browser.evaluate(FONTS)}",
    }
    return taken, about


@pytest.mark.parametrize("name", list(ADDRESSES))
def test_the_pages_of_the_docs_are_those_that_the_code_makes_of_their_data(name: str) -> None:
    page = DOCS / f"explorer/{name}.html"
    rendered = render(data_of(page))
    if UPDATE:
        page.write_text(rendered, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == rendered, f"{page.name} is not what the code makes: {REMEDY}"
    assert page.stat().st_size < 500_000


@pytest.mark.parametrize("view", VIEWS, ids=[view.name for view in VIEWS])
@pytest.mark.parametrize("name", list(ADDRESSES))
def test_a_page_is_driven_and_its_picture_is_of_it(name: str, view: View, browser: Any) -> None:
    """Pixel by pixel where browser and fonts are those of the committed picture, elsewhere by the page and the size."""
    page, file = DOCS / f"explorer/{name}.html", DOCS / f"images/explorer-{name}-{view.name}.png"
    open_in(view, browser, page, ADDRESSES[name])
    drive(browser, page)
    open_in(view, browser, page, ADDRESSES[name])
    taken, about = take(view, browser, page)
    if UPDATE:
        texts = PngImagePlugin.PngInfo()
        for key, value in about.items():
            texts.add_text(key, value)
        few = taken.quantize(256, dither=Image.Dither.NONE)  # colours, for a third of the size
        few.save(file, "png", optimize=True, pnginfo=texts)
    with Image.open(file) as image:
        committed, claimed = image.convert("RGB"), dict(image.text)
    assert claimed["Source"] == about["Source"], f"{file.name} is of another page: {REMEDY}"
    assert committed.width == taken.width == view.width * view.scale
    if claimed["Software"] == about["Software"]:
        assert committed.size == taken.size
        difference = np.abs(np.asarray(committed, np.int16) - np.asarray(taken, np.int16))
        assert difference.mean() < 0.5, f"{file.name}: {REMEDY}"  # of 255 levels
    else:
        assert 0.5 < committed.height / taken.height < 2


def test_every_picture_is_on_the_page_of_the_docs_with_a_text_for_who_cannot_see_it() -> None:
    found = dict(re.findall(r"!\[([^\]]+)\]\(images/(explorer-[\w-]+\.png)", (DOCS / "explorer.md").read_text()))
    pictures = {file.name for file in DOCS.glob("images/explorer-*.png")}
    assert (
        set(found.values()) == pictures == {f"explorer-{name}-{view.name}.png" for name in ADDRESSES for view in VIEWS}
    )
    assert all(len(text) > 40 for text in found)


@pytest.mark.slow
def test_the_example_pages_are_made_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Any
) -> None:
    """The same way as those of the docs, by a few steps of training."""
    spec = importlib.util.spec_from_file_location("make_explorer_pages", DOCS / "explorer/make.py")
    assert spec
    assert spec.loader
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(make, "COUNTS", {"train": 3000, "heldout": 24})
    sizes = [f"{part}.{size}" for part in ("encoder", "decoder") for size in ("hidden_size=8", "num_layers=1")]
    tiny = [*sizes, "encoder.num_heads=2", "decoder.num_heads=2", "optimization.steps=3", "tracker=none"]
    make.main([str(tmp_path), *tiny, "evaluation.importance_samples=2"])
    for name in ADDRESSES:
        page = tmp_path / f"{name}.html"
        assert data_of(page)["data"] == name
        assert data_of(page).keys() == data_of(DOCS / f"explorer/{name}.html").keys()
        open_in(VIEWS[0], browser, page, "#example=1")
        assert browser.complaints() == []
