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
from delta_vae_lab.configuration import load_config
from delta_vae_lab.sections import ImageRunConfig, RunConfig, TextRunConfig

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


def test_the_pages_show_what_runs() -> None:
    """All but that on several GPUs, which a test has not."""
    assert {page.stem for page in PAGES if not (blocks_of(page) or commands_of(page))} <= {"several-gpus"}


def test_the_verbs_of_the_pages_exist() -> None:
    """Also of commands about the reader's own model and data, which are not run."""
    for page in (ROOT / "README.md", *PAGES):
        for verb in re.findall(r"^    delta-vae ([\w-]+)", page.read_text(), re.MULTILINE):
            assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0, f"{page.name}: delta-vae {verb}"


RECIPE = r"^    .*recipes/(\w+)\.py --config ([\w-]+)(?![\w/.])(.*)$"
KINDS = {"lm1b": TextRunConfig, "cifar10": ImageRunConfig, "imagenet32": ImageRunConfig}


def test_the_presets_and_overrides_of_the_pages_are_configs() -> None:
    """Of recipes that take hours or several GPUs too: `recipes/NAME.py --config PRESET ... section.key=value`."""
    found = 0
    for page in (ROOT / "README.md", *PAGES):
        text = page.read_text().replace("\\\n", " ")
        for recipe, preset, rest in re.findall(RECIPE, text, re.MULTILINE):
            overrides = [word for word in rest.split() if re.fullmatch(r"[a-z_]+(\.[a-z_]+)?=\S+", word)]
            if preset.islower():  # PRESET and RUN stand for the reader's own
                load_config(KINDS[recipe], preset, overrides, ROOT / "recipes/configs" / recipe)
                found += 1
    assert found > 10


@pytest.mark.parametrize(("page", "kind"), [("train-text", TextRunConfig), ("train-images", ImageRunConfig)])
def test_the_whole_config_of_a_page_is_one(page: str, kind: type[RunConfig], tmp_path: Path) -> None:
    (yaml,) = re.findall(r"```yaml\n(.*?)```", (ROOT / f"docs/{page}.md").read_text(), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(yaml)
    load_config(kind, tmp_path / "mine.yaml")
