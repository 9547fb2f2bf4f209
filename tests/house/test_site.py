"""The site builds without a warning, whole, and asks the network for nothing."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("mkdocs", "material", "mkdocstrings", "latex2mathml")
missing = [module for module in NEEDED if find_spec(module) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"the site needs {', '.join(missing)}: uv sync --group docs"),
]

# By the name of the element, the attributes that make a browser load something.
LOADING = {
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "video": ("src", "poster"),
    "audio": ("src",),
    "use": ("href", "xlink:href"),
}
ELSEWHERE = re.compile(r"(?:https?:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # A proxy that nothing listens at: what asks the network for anything fails.
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = os.environ | offline | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


class Loaded(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles: list[str] = []
        self.in_style = False
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if given.get("rel") != "canonical":
            self.addresses += [given[name] for name in LOADING.get(tag, ()) if name in given]
        self.styles.append(given.get("style", ""))
        self.in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.styles.append(data)


def loaded_by_css(css: str) -> list[str]:
    return re.findall(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)", css)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assert Loaded(site / "index.html").addresses  # stylesheets at least
    for page in pages:
        loaded = Loaded(page)
        by_css = [address for style in loaded.styles for pair in loaded_by_css(style) for address in pair]
        assert not [address for address in (*loaded.addresses, *by_css) if ELSEWHERE.match(address)], page


def test_no_stylesheet_loads_anything_from_elsewhere(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        addresses = [address for pair in loaded_by_css(sheet.read_text()) for address in pair]
        assert not [address for address in addresses if ELSEWHERE.match(address)], sheet


def test_a_page_that_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<script src="https://a.b/c.js"></script><img src="//a.b/c.png"><style>@import "http://a.b"</style>'
    )
    loaded = Loaded(page)
    assert [bool(ELSEWHERE.match(address)) for address in loaded.addresses] == [True, True]
    assert loaded_by_css("".join(loaded.styles)) == [("", "http://a.b")]


def test_formulas_are_mathml(site: Path) -> None:
    """As many as the source has, each well-formed, and none left as TeX."""
    source = (ROOT / "docs/mathematics.md").read_text()
    prose = re.sub(r"```.*?```", "", source, flags=re.DOTALL)
    displayed = re.findall(r"^\$\$$(.*?)^\$\$$", prose, flags=re.DOTALL | re.MULTILINE)
    inline = re.findall(r"\$[^$\n]+\$", re.sub(r"^\$\$$.*?^\$\$$", "", prose, flags=re.DOTALL | re.MULTILINE))
    built = (site / "mathematics.html").read_text()
    formulas = re.findall(r"<math .*?</math>", built, flags=re.DOTALL)
    assert len(formulas) == len(displayed) + len(inline)
    assert "arithmatex" not in built
    for formula in formulas:
        assert ET.fromstring(formula).tag.endswith("math")


@pytest.mark.parametrize(
    ("page", "package"),
    [(name.removeprefix("delta_vae_"), name) for name in ("delta_vae", "delta_vae_core", "delta_vae_decoders")]
    + [("encoders", "delta_vae_encoders"), ("priors", "delta_vae_priors")],
)
def test_the_reference_has_every_public_name(site: Path, page: str, package: str) -> None:
    built = (site / "api" / f"{page}.html").read_text()
    for name in import_module(package).__all__:
        assert f'id="{package}.{name}"' in built, name


def test_the_search_finds_words_of_the_pages(site: Path) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    assert any("committed rate" in entry["text"].lower() for entry in index["docs"])


def test_notebooks_are_pages_with_their_outputs(site: Path) -> None:
    for notebook in (ROOT / "docs/notebooks").glob("*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        images = [
            output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
        ]
        built = Loaded(site / f"notebooks/{notebook.stem}.html")
        shown = [
            address for address in built.addresses if re.fullmatch(rf"{notebook.stem}-\d+-\d+\.(png|svg)", address)
        ]
        assert len(shown) == len(images)
        assert all((site / "notebooks" / address).stat().st_size for address in shown)
        assert (site / "notebooks" / notebook.name).read_bytes() == notebook.read_bytes()


def test_links_that_leave_the_docs_name_the_file(site: Path) -> None:
    """A git host serves them; the site cannot."""
    source = (ROOT / "docs/reproduction/collapse.md").read_text()
    assert "(../../README.md)" in source
    built = (site / "reproduction/collapse.html").read_text()
    assert "README.md" in built
    assert 'href="../../README.md"' not in built
