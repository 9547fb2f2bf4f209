"""The explorer's page: well-formed, escaped and silent towards the network; and as Chromium runs it."""

import base64
import io
import itertools
import json
import math
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from delta_vae_lab.explorer.page import embedded_json, is_ours, render

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> & \"so\" on"
VOID = {"meta", "img", "input"}
SHIFTS = [-3, -2, -1, 0, 1, 2, 3]


def picture(level: int) -> str:
    png = io.BytesIO()
    Image.new("L", (4, 4), level % 256).save(png, "png")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def gathered(modality: str) -> dict[str, Any]:
    """As `gather` makes it, of three examples, of which two are decoded; every decoding is another."""
    names = itertools.count()

    def decoding() -> str:
        return picture(next(names)) if modality == "images" else f"the decoding {next(names)} of a z"

    def example(place: int, others: list[int]) -> dict[str, Any]:
        own = {
            "place": place,
            "shown": picture(200 + place) if modality == "images" else f"sentence {place} {EVIL}",
            "pieces": None if modality == "images" else [f"sentence {place}", f" {EVIL}", " " + 150 * "m", "⟨end⟩"],
            "rate_nats": [0.5, 1.25, 0.0, 2.0],
            "committed_nats": [0.25, 0.5, 0.5, 0.25],
            "total_rate_nats": 3.75,
            "total_committed_nats": 1.5,
            "distortion_nats": 20.0,
            "neighbours": [{"example": j, "distance": 0.5 * j} for j in others],
        }
        if place == 2:
            return own
        unmoved = decoding()
        ways = [{"to": 1 - place, "which": "nearest", "decoded": [decoding() for _ in range(7)]}]
        by_dimension = [[decoding() if shift else unmoved for shift in SHIFTS] for _ in range(2)]
        drawn = [decoding() for _ in range(8)]
        return own | {
            "decodings": {"unmoved": unmoved, "by_dimension": by_dimension, "drawn": drawn, "ways": ways},
        }

    return {
        "model": f"runs/{EVIL}",
        "data": EVIL,
        "seed": 3,
        "measured": 512,
        "modality": modality,
        "example": modality.removesuffix("s"),
        "verdict": f"Not collapsed: {EVIL}.",
        "estimates": [
            {
                "label": "rate",
                "nats": 3.75,
                "in_nats": "3.75 ± 0.10",
                "in_bits": "5.41 ± 0.14",
                "meaning": "what z costs",
            }
        ],
        "latent_dim": 5,
        "dimensions": [
            {"index": 4, "rate_nats": 2.5, "committed_nats": 1.0, "prior_standard_deviation": 1.02},
            {"index": 0, "rate_nats": 1.25, "committed_nats": 0.5, "prior_standard_deviation": 1.0},
        ],
        "scale_nats": 2.0,
        "how": "decoded greedily",
        "distance": "Euclidean distance",
        "shifts": SHIFTS,
        "examples": [example(0, [1, 2]), example(1, [0, 2]), example(2, [0, 1])],
    }


class Page(HTMLParser):
    """What a browser would see: elements in order, with their attributes and text; every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own: list[str] = []
        self.elements.append((tag, dict(attrs), own))
        if tag not in VOID:
            self.open.append((tag, own))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][1].append(data)

    def named(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(own)) for name, attributes, own in self.elements if name == tag]


@pytest.mark.parametrize("modality", ["sentences", "images"])
def test_what_comes_from_data_is_text(modality: str) -> None:
    values = gathered(modality)
    page = Page(render(values))
    data, program = page.named("script")
    assert json.loads(data[1]) == values
    assert "<" not in data[1]
    assert program[0] == {}
    assert EVIL in page.named("title")[0][1]
    assert page.named("p")[1][1] == values["verdict"]
    assert not [attributes for _, attributes, _ in page.elements for name in attributes if name.startswith("on")]
    if modality == "sentences":
        pieces = [text for attributes, text in page.named("span") if "--heat" in (attributes.get("style") or "")]
        assert pieces == [piece for example in values["examples"] for piece in example["pieces"]]


@pytest.mark.parametrize("modality", ["sentences", "images"])
def test_the_page_refers_to_nothing_outside(modality: str) -> None:
    text = render(gathered(modality))
    page = Page(text)
    references = [
        str(value)
        for _, attributes, _ in page.elements
        for name, value in attributes.items()
        if name in {"src", "href", "action", "data", "srcset", "poster"}
    ]
    assert references
    assert all(reference.startswith(("data:image/png;base64,", "#")) for reference in references)
    assert not re.search(r"https?:|url\(|@import|import\(|fetch\(|XMLHttpRequest|innerHTML", text)
    assert "//" not in re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
    [policy] = [attributes["content"] for attributes, _ in page.named("meta") if "http-equiv" in attributes]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def test_heat_is_the_share_of_the_legend() -> None:
    text = render(gathered("images"))
    strips = [attributes for attributes, _ in Page(text).named("i")]
    heats = [float(str(attributes["style"]).removeprefix("--heat: ")) for attributes in strips[:8]]
    assert heats == [0.25, 0.625, 0.0, 1.0, 0.125, 0.25, 0.25, 0.125]
    assert strips[1]["title"] == "row 2: rate 1.25 nats"
    assert "2.00 nats (2.89 bits)</span>" in text  # 2 / ln 2
    assert "rate <b>3.75</b> nats, 1.50 committed (40 %)" in text


def test_a_model_without_a_floor_and_without_a_rate_has_a_page() -> None:
    values = gathered("images") | {"scale_nats": 0.0}
    for example in values["examples"]:
        example |= {"rate_nats": [0.0], "committed_nats": [0.0], "total_rate_nats": 0.0, "total_committed_nats": 0.0}
    Page(render(values))


def test_embedded_json_is_read_back_whatever_it_holds() -> None:
    values = {"a": ["<!--<script>", "</SCRIPT>", "]]>", "&lt;", "\u2028", "é\ufffd"]}
    assert json.loads(embedded_json(values)) == values
    assert not set("<>&\u2028") & set(embedded_json(values))


def test_a_page_is_known_by_its_mark(tmp_path: Path) -> None:
    for name, text in {
        "ours.html": render(gathered("images")),
        "theirs.html": "<!doctype html><title>explorer",
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert is_ours(tmp_path / "ours.html")
    assert not is_ours(tmp_path / "theirs.html")


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance of sRGB in 0 ... 1, by WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


def palettes() -> Iterator[dict[str, tuple[float, ...]]]:
    """The colours of the light and of the dark page, of sentences."""
    [style] = [text for _, text in Page(render(gathered("sentences"))).named("style")]
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        found = re.findall(r"--(\w+): #(\w{6})", block)
        yield {name: tuple(int(value[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, value in found}


def test_text_is_legible_on_every_heat_in_light_and_dark() -> None:
    light, dark = palettes()
    assert luminance(light["page"]) > 0.9
    assert luminance(dark["page"]) < 0.02
    for colours in (light, dark):
        ramp = [
            tuple(low + heat / 20 * (high - low) for low, high in zip(colours["low"], colours["high"], strict=True))
            for heat in range(21)
        ]
        assert min(contrast(colours["ink"], colour) for colour in ramp) >= 4.5
        steps = [luminance(b) - luminance(a) for a, b in itertools.pairwise(ramp)]
        assert all(step < 0 for step in steps) or all(step > 0 for step in steps)
        assert contrast(colours["low"], colours["high"]) > 2
        for text, ground in itertools.product(("ink", "quiet", "accent"), ("page", "panel")):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["ink"], colours["changed"]) >= 4.5


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    files = {modality: folder / f"{modality}.html" for modality in ("sentences", "images")}
    for modality, file in files.items():
        file.write_text(render(gathered(modality)), encoding="utf-8")
    return files


@cache
def decodings(modality: str, example: int) -> dict[str, Any]:
    found: dict[str, Any] = gathered(modality)["examples"][example]["decodings"]
    return found


def shown(browser: Any, place: str) -> str:
    """The decoding that stands there: its text, or the address of its picture."""
    picture = f"document.querySelector('{place} img')"
    return str(browser.evaluate(f"{picture} ? {picture}.src : document.querySelector('{place}').textContent"))


def moved(modality: str) -> str:
    return "#moved figure:last-child" if modality == "images" else "#moved"


@pytest.mark.parametrize("modality", ["sentences", "images"])
def test_the_browser_finds_nothing_to_complain_of_and_asks_for_nothing(
    modality: str, browser: Any, pages: dict[str, Path]
) -> None:
    browser.open(pages[modality], "#example=2&shift=1")
    assert browser.complaints() == []
    assert [url.partition("#")[0] for url in browser.requests()] == [pages[modality].as_uri()]
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("document.querySelectorAll('script').length") == 2
    if modality == "sentences":
        option = browser.evaluate("document.querySelector('#example option').textContent")
        assert option.startswith("1: sentence 0 </script><script>window.hacked")


@pytest.mark.parametrize("modality", ["sentences", "images"])
def test_the_address_says_what_is_shown(modality: str, browser: Any, pages: dict[str, Path]) -> None:
    browser.open(pages[modality], "#example=2&dimension=1&shift=-2&to=1&way=4")
    found = decodings(modality, 1)
    assert shown(browser, moved(modality)) == found["by_dimension"][1][SHIFTS.index(-2)]
    between = "#between figure:nth-child(2)" if modality == "images" else "#between"
    assert shown(browser, between) == found["ways"][0]["decoded"][3]
    assert browser.evaluate("document.getElementById('way-value').textContent") == "w = 0.50"
    assert shown(browser, "#drawn li:nth-child(8)").removeprefix("8") == found["drawn"][7]
    heat = browser.evaluate("document.querySelector('#chosen .heat').innerHTML")
    assert heat == browser.evaluate("document.querySelector('#heat-2').innerHTML")
    assert browser.evaluate("document.querySelectorAll('#neighbours a').length") == 2
    browser.open(pages[modality], "#example=99&dimension=7&shift=x&to=0&way=1000")
    assert shown(browser, moved(modality)) == decodings(modality, 0)["unmoved"]
    assert browser.complaints() == []


def test_what_was_not_decoded_says_so(browser: Any, pages: dict[str, Path]) -> None:
    browser.open(pages["sentences"], "#example=3")
    assert browser.evaluate("document.getElementById('not-decoded').hidden") is False
    assert browser.evaluate("[...document.querySelectorAll('.decoded')].every((panel) => panel.hidden)")
    assert browser.evaluate("document.querySelectorAll('#steps tr').length") == 5
    browser.open(pages["sentences"], "#example=1")
    assert browser.evaluate("document.getElementById('not-decoded').hidden") is True


def test_the_sliders_heed_the_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    """By Tab from the select of examples to each control in turn; arrows move the sliders, and the address follows."""
    browser.open(pages["sentences"], "#example=1")
    found = decodings("sentences", 0)
    browser.evaluate("document.getElementById('example').focus()")
    reached = []
    for _ in range(12):
        browser.press("Tab", 9)
        reached.append(browser.evaluate("document.activeElement.id"))
        outline = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", reached
        if reached[-1] == "shift":
            browser.press("ArrowRight", 39)
            browser.press("ArrowRight", 39)
            assert shown(browser, "#moved") == found["by_dimension"][0][SHIFTS.index(2)]
            assert browser.evaluate("document.querySelector('#moved mark').textContent").isdigit()
            assert browser.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "+2 standard deviations"
            assert browser.evaluate("document.getElementById('shift-value').textContent") == "+2 sd (+2.04)"
        if reached[-1] == "way":
            browser.press("End", 35)
            assert shown(browser, "#between") == found["ways"][0]["decoded"][-1]
    controls = ["previous", "next", "dimension", "shift", "to", "way"]
    assert [name for name in reached if name in controls] == controls
    assert browser.evaluate("location.hash") == "#example=1&dimension=5&shift=2&to=2&way=7"
    browser.evaluate("document.getElementById('next').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate("document.getElementById('example').value") == "1"
    assert shown(browser, "#moved") == decodings("sentences", 1)["by_dimension"][0][SHIFTS.index(2)]
    assert browser.evaluate("location.hash") == "#example=2&dimension=5&shift=2&to=1&way=7"
    assert browser.complaints() == []


def test_a_neighbour_is_gone_to(browser: Any, pages: dict[str, Path]) -> None:
    browser.open(pages["images"], "#example=1")
    browser.evaluate("document.querySelector('#neighbours a').click()")
    browser.wait_for("document.activeElement.id === 'explore-title'")
    assert shown(browser, moved("images")) == decodings("images", 1)["unmoved"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 699, 1280])
@pytest.mark.parametrize("modality", ["sentences", "images"])
def test_the_page_fits_its_window(modality: str, width: int, scheme: str, browser: Any, pages: dict[str, Path]) -> None:
    """One column on a phone, two on a desk, nothing beyond the edge, and everything labelled."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.call("Emulation.setDeviceMetricsOverride", **size)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(pages[modality], "#example=1")
    browser.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    tops = browser.evaluate("[...document.querySelectorAll('.panel')].map((panel) => panel.offsetTop)")
    assert (tops[0] == tops[1]) == (width >= 700)
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    light = math.fsum(map(int, re.findall(r"\d+", ground)[:3])) > 384
    assert light == (scheme == "light")
    unlabelled = "[...document.querySelectorAll('select, input')].filter((control) => !control.labels.length).length"
    assert browser.evaluate(unlabelled) == 0
    assert browser.evaluate("[...document.images].every((image) => image.alt && image.naturalWidth)")
