"""The README and the pages of docs: their code runs on what the commands wrote."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_lab.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("docs/*.md"))
# What a page's code may need that no package of ours does.
OUTSIDE = ("diffusers",)


def blocks_of(document: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL)


def commands_of(document: Path) -> list[str]:
    """The indented commands that name a run: those with MODEL and DATA in capitals are no examples."""
    return re.findall(r"^    delta-vae (.* runs/.*)$", document.read_text(), re.MULTILINE)


def executed(code: str, name: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    with torch.random.fork_rng():
        exec(compile(code, name, "exec"), namespace)
    return namespace


def skip_without_what_it_imports(code: str, page: Path) -> None:
    for module in OUTSIDE:
        if re.search(rf"^(from|import) {module}\b", code, re.MULTILINE):
            pytest.importorskip(module, reason=f"{page.name} examines a VAE of {module}")


def test_the_codes_of_the_readme_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    blocks = blocks_of(ROOT / "README.md")
    assert len(blocks) == 5
    models = []
    for block in blocks:
        namespace = executed("from delta_vae_priors import AR1PriorConfig\n" + block, "README.md")
        models.append(type(namespace.get("model")))
    assert models == [DeltaVaeForCausalLM, type(None), DeltaVaeForCausalLM, DeltaVaeForImageGeneration, type(None)]


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks_of(page))
    ],
)
def test_the_codes_of_a_page_run(page: Path, block: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself."""
    skip_without_what_it_imports(block, page)
    monkeypatch.chdir(place)
    executed(block, page.name)


def test_the_outside_vae_of_the_page_collapses_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs/is-my-vae-collapsed.md"
    assert "Multiply `posterior.kl()` by 30 and it is collapsed." in page.read_text()
    (code,) = (block for block in blocks_of(page) if "diffusers" in block)
    skip_without_what_it_imports(code, page)
    for before, after in (
        (" + posterior.kl()", " + 30 * posterior.kl()"),
        ("assert not diagnosis.collapsed", "assert diagnosis.collapsed"),
    ):
        assert code.count(before) == 1
        code = code.replace(before, after)
    monkeypatch.chdir(tmp_path)
    executed(code, page.name)


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=command) for page in PAGES for command in commands_of(page)]
)
def test_the_commands_of_a_page_run(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0, result.output


def test_the_pages_are_found() -> None:
    assert PAGES
    for page in PAGES:
        assert blocks_of(page) or commands_of(page), page.name
