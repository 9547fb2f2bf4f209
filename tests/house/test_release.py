"""What is published: the sdists and wheels of the six packages, and what a registry's page shows of them."""

import email.policy
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECTS = {
    project["name"]: (file.parent, project)
    for file in sorted(ROOT.glob("packages/*/pyproject.toml"))
    for project in [tomllib.loads(file.read_text())["project"]]
}
each_package = pytest.mark.parametrize("name", PROJECTS)


def stem_of(name: str) -> str:
    """delta_vae_core-0.1.0 of delta-vae-core."""
    return f"{name.replace('-', '_')}-{PROJECTS[name][1]['version']}"


def wheel_of(name: str, dist: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(dist / f"{stem_of(name)}-py3-none-any.whl") as archive:
        return {file: archive.read(file) for file in archive.namelist() if not file.endswith("/")}


def sdist_of(name: str, dist: Path) -> dict[str, bytes]:
    """Without the folder that everything is in."""
    with tarfile.open(dist / f"{stem_of(name)}.tar.gz") as archive:
        members = [member for member in archive if member.isfile()]
        return {member.name.partition("/")[2]: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def sources_of(name: str) -> dict[str, bytes]:
    """The package's own files as they lie in the repository, without what running and checking them leaves there."""
    source = PROJECTS[name][0] / "src"
    files = {file.relative_to(source): file for file in source.rglob("*") if file.is_file()}
    return {
        path.as_posix(): file.read_bytes()
        for path, file in files.items()
        if not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }


def page_of(name: str, dist: Path) -> EmailMessage:
    metadata = wheel_of(name, dist)[f"{stem_of(name)}.dist-info/METADATA"]
    message = BytesParser(policy=email.policy.default.clone(utf8=True)).parsebytes(metadata)
    assert isinstance(message, EmailMessage)
    return message


def test_there_is_a_wheel_and_an_sdist_of_each(dist: Path) -> None:
    built = {file.name for file in dist.iterdir() if file.suffix in {".whl", ".gz"}}
    assert built == {stem_of(name) + end for name in PROJECTS for end in (".tar.gz", "-py3-none-any.whl")}


@each_package
def test_the_wheel_holds_the_package_and_nothing_else(name: str, dist: Path) -> None:
    """It is made of the sdist, which therefore lacks nothing."""
    contents = wheel_of(name, dist)
    about = f"{stem_of(name)}.dist-info/"
    assert {file: content for file, content in contents.items() if not file.startswith(about)} == sources_of(name)
    assert f"{name.replace('-', '_')}/py.typed" in contents
    assert contents[about + "licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


@each_package
def test_the_sdist_holds_what_a_build_needs_and_nothing_else(name: str, dist: Path) -> None:
    contents = sdist_of(name, dist)
    around = {"LICENSE", "README.md", "PKG-INFO", "pyproject.toml"}
    sources = {f"src/{file}": content for file, content in sources_of(name).items()}
    assert contents.keys() - {"pyproject.toml.orig"} == around | sources.keys()  # newer backends leave the original
    assert {file: contents[file] for file in sources} == sources
    assert contents["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert contents["PKG-INFO"] == wheel_of(name, dist)[f"{stem_of(name)}.dist-info/METADATA"]


@each_package
def test_a_page_says_all_there_is_to_say(name: str, dist: Path) -> None:
    page, readme = page_of(name, dist), (PROJECTS[name][0] / "README.md").read_text()
    assert (page["Name"], page["License-Expression"], page["License-File"]) == (name, "Apache-2.0", "LICENSE")
    assert page["Requires-Python"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert page["Author"] == "The delta-VAE authors"
    assert page["Summary"]
    assert len(page["Keywords"].split(",")) >= 4
    classifiers = page.get_all("Classifier", [])
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(classifiers)
    assert page.get_all("Project-URL") == ["Paper, https://arxiv.org/abs/1901.03416"]
    assert page["Description-Content-Type"] == "text/markdown"
    assert page.get_content().strip() == readme.strip()


@each_package
def test_a_readme_can_be_read_away_from_the_repository(name: str) -> None:
    readme = (PROJECTS[name][0] / "README.md").read_text()
    assert readme.startswith(f"# {name}\n")
    assert f"\n    pip install {name}\n" in readme
    assert not re.findall(r"\]\((?!https://)|\b(?:href|src)=|\b(?:recipes|docs)/", readme)
    others = set(re.findall(r"^\| \**(delta-vae[\w-]*)", readme, re.MULTILINE))
    assert others == PROJECTS.keys()


def test_the_run_of_the_readme_can_be_read(tmp_path: Path) -> None:
    from delta_vae_lab.configuration import load_config
    from delta_vae_lab.sections import TextRunConfig

    [block] = re.findall(r"```yaml\n(.*?)```", (PROJECTS["delta-vae-lab"][0] / "README.md").read_text(), re.DOTALL)
    file = tmp_path / "sentences.yaml"
    file.write_text(block)
    config = load_config(TextRunConfig, file)
    assert config.optimization.steps == yaml.safe_load(block)["optimization"]["steps"]


def test_the_command_tells_the_version() -> None:
    from typer.testing import CliRunner

    from delta_vae_lab.cli import app

    assert CliRunner().invoke(app, ["--version"]).stdout == f"delta-vae {PROJECTS['delta-vae'][1]['version']}\n"


def test_twine_finds_no_fault(dist: Path) -> None:
    pytest.importorskip("twine", reason="of the dependency group `release`")
    files = sorted(map(str, [*dist.glob("*.whl"), *dist.glob("*.tar.gz")]))
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("PASSED") == 2 * len(PROJECTS)


def test_uv_builds_the_same(dist: Path, tmp_path: Path) -> None:
    """As a release is built, with nothing fetched."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not on the path")
    command = ["uv", "build", "--all-packages", "--offline", "--no-cache", "--out-dir", str(tmp_path)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    for name in PROJECTS:
        assert sdist_of(name, tmp_path) == sdist_of(name, dist)
        assert apart_from_the_builder(wheel_of(name, tmp_path)) == apart_from_the_builder(wheel_of(name, dist))


def apart_from_the_builder(contents: dict[str, bytes]) -> dict[str, bytes]:
    """Without what names the version of uv that built it, and the hashes of that."""
    return {file: content for file, content in contents.items() if not file.endswith((".dist-info/WHEEL", "/RECORD"))}
