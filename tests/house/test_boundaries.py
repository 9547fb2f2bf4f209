"""The walls of the house: who imports whom, what each package declares, and what no file may name."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

# recipes -> lab -> delta_vae -> {priors, encoders, decoders} -> core: each package, and all of ours that it may import.
COMPONENTS = ["delta-vae-priors", "delta-vae-encoders", "delta-vae-decoders"]
MAY_IMPORT = {
    "delta-vae-core": [],
    **{component: ["delta-vae-core"] for component in COMPONENTS},
    "delta-vae": ["delta-vae-core", *COMPONENTS],
    "delta-vae-lab": ["delta-vae-core", *COMPONENTS, "delta-vae"],
}
# Who only loads a checkpoint gets none of these.
LAB_ALONE = {"accelerate", "datasets", "evaluate", "matplotlib", "omegaconf", "tensorboard", "tqdm"}
# Imported by another library on our behalf: huggingface_hub renders cards with jinja2, accelerate logs to tensorboard.
NEEDED_UNSEEN = {"jinja2", "tensorboard"}

PROJECTS = {
    project["name"]: (file.parent, project)
    for file in sorted(ROOT.glob("packages/*/pyproject.toml"))
    for project in [tomllib.loads(file.read_text())["project"]]
}
DISTRIBUTIONS = importlib.metadata.packages_distributions()
each_package = pytest.mark.parametrize("name", PROJECTS)


def module_of(name: str) -> str:
    return name.replace("-", "_")


def distributions_of(module: str) -> set[str]:
    """The distributions that may have brought a top-level module; by its own name where it is not installed."""
    return {canonicalize_name(distribution) for distribution in DISTRIBUTIONS.get(module, [module])}


def imported_modules(source: str) -> Iterator[str]:
    """Top-level name of everything that a module imports anywhere in it, `importlib.import_module("x")` included."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.partition(".")[0]
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module.partition(".")[0]


def imports_of(folder: Path) -> dict[str, set[str]]:
    """Each imported top-level name outside the standard library -> the files that import it."""
    found: dict[str, set[str]] = {}
    for file in sorted(folder.rglob("*.py")):
        for module in imported_modules(file.read_text()):
            if module not in sys.stdlib_module_names:
                found.setdefault(module, set()).add(str(file.relative_to(ROOT)))
    return found


def requirements(name: str) -> dict[str, Requirement]:
    parsed = map(Requirement, PROJECTS[name][1]["dependencies"])
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def test_the_table_covers_every_package() -> None:
    assert PROJECTS.keys() == MAY_IMPORT.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import torch.nn as nn",
        "from torch.nn import functional",
        "def f():\n    import torch",
        "import importlib\nimportlib.import_module('torch.nn')",
        "if TYPE_CHECKING:\n    from torch import Tensor",
        "__import__('torch')",
    ],
)
def test_an_import_is_seen_wherever_it_hides(source: str) -> None:
    assert "torch" in imported_modules(source)


@each_package
def test_imports_run_in_one_direction(name: str) -> None:
    ours = {module_of(other) for other in PROJECTS}
    allowed = {module_of(other) for other in [name, *MAY_IMPORT[name]]}
    found = imports_of(PROJECTS[name][0] / "src")
    assert not {module: files for module, files in found.items() if module in ours - allowed}


@each_package
def test_only_the_lab_knows_the_training_stack(name: str) -> None:
    if name == "delta-vae-lab":
        assert requirements(name).keys() >= LAB_ALONE
    else:
        assert not LAB_ALONE & (imports_of(PROJECTS[name][0] / "src").keys() | requirements(name).keys())


@each_package
def test_every_import_is_declared(name: str) -> None:
    """Directly: what a dependency happens to bring along may leave with its next release."""
    extras = PROJECTS[name][1].get("optional-dependencies", {}).values()
    optional = {canonicalize_name(Requirement(line).name) for lines in extras for line in lines}
    declared = {name, *requirements(name), *optional}
    found = imports_of(PROJECTS[name][0] / "src")
    assert not {module: files for module, files in found.items() if not declared & distributions_of(module)}


@each_package
def test_nothing_is_declared_in_vain(name: str) -> None:
    modules = imports_of(PROJECTS[name][0] / "src")
    imported = set().union(*map(distributions_of, modules))
    assert requirements(name).keys() <= imported | NEEDED_UNSEEN


@each_package
def test_declared_dependencies_respect_the_table(name: str) -> None:
    assert requirements(name).keys() & PROJECTS.keys() <= set(MAY_IMPORT[name])


def test_a_third_party_bound_is_the_same_wherever_it_is_declared() -> None:
    bounds: dict[str, set[str]] = {}
    for name in PROJECTS:
        for requirement in requirements(name).values():
            bounds.setdefault(requirement.name, set()).add(str(requirement))
    assert not {name: sorted(versions) for name, versions in bounds.items() if len(versions) > 1}


def test_versions_are_in_step() -> None:
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    versions = {name: project["version"] for name, (_, project) in PROJECTS.items()}
    versions["CITATION.cff"] = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    # Newest first, each with its day, or as what is still to be released.
    headings = re.findall(
        r"^## (\S+) - (?:\d{4}-\d\d-\d\d|unreleased)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    versions["CHANGELOG.md"] = headings[0]
    pins = {str(pin.specifier) for name in PROJECTS for pin in requirements(name).values() if pin.name in PROJECTS}
    assert set(versions.values()) == {root}, versions
    assert pins == {f"=={root}"}


@each_package
def test_package_carries_its_types_and_licence(name: str) -> None:
    folder, _ = PROJECTS[name]
    assert (folder / "src" / module_of(name) / "py.typed").is_file()
    assert (folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def files_of_the_repository() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and name != "uv.lock"]


def test_no_file_names_this_machine_or_a_registry() -> None:
    """Only uv.lock may say where packages come from, and it tells here which hosts those are."""
    hosts = {urlsplit(url).hostname for url in re.findall(r'https://[^"]+', (ROOT / "uv.lock").read_text())}
    folders = {ROOT, ROOT.parent, Path.home()} - {Path("/"), Path(tempfile.gettempdir())}
    patterns = [rf"(?<![\w.-]){re.escape(host)}\b" for host in hosts if host]
    patterns += [rf"(?<![\w./-]){re.escape(str(folder))}(?![\w.-])" for folder in folders]
    forbidden = re.compile("|".join(patterns))
    named = {
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in files_of_the_repository()
        if file.is_file()
        for match in forbidden.finditer(file.read_bytes().decode(errors="ignore"))
    }
    assert not named
