"""Each package installs alone: its wheel, in a fresh environment that holds the declared dependencies and nothing else.

There every module imports, and the example of the package's README runs.

The environment is filled as an installer would, from the wheels' own metadata, except that third-party packages are
linked from where they are installed already: a wheel of torch is unpacked once, not six times, and nothing is fetched.
"""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDERS = {
    tomllib.loads(file.read_text())["project"]["name"]: file.parent
    for file in sorted(ROOT.glob("packages/*/pyproject.toml"))
}
Process = subprocess.CompletedProcess[str]
each_package = pytest.mark.parametrize("name", FOLDERS)

BUILD = "import sys, uv_build; print(uv_build.build_wheel(sys.argv[1]))"
# Imports a package and every module in it, runs the example on standard input, and says where the package lies, then
# which of the other names it could import as well.
PROBE = """
import importlib.util, pkgutil, sys
name, *others = sys.argv[1:]
package = importlib.import_module(name)
for module in pkgutil.walk_packages(package.__path__, name + "."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
exec(compile(sys.stdin.read(), "README.md", "exec"), {"__name__": "__main__", "print": lambda *_: None})
print(package.__file__, *(other for other in others if importlib.util.find_spec(other)))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of each of our distributions -> its wheel, built by the backend that pyproject.toml names."""
    dist = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-c", BUILD, str(dist)]
    return {name: dist / checked(run(build, cwd=folder)).split()[-1] for name, folder in FOLDERS.items()}


@pytest.fixture(scope="module")
def probes(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Process]:
    """Name of each of our distributions -> what `PROBE` said in its environment; they run side by side."""
    # Requirements are read in one thread: in several at once, Python 3.11's parser may raise a false `SystemError`.
    needed = {name: closure(name, wheels) for name in FOLDERS}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(lambda name: probe(name, needed[name], wheels, tmp_path_factory.mktemp(name)), FOLDERS)
        return dict(zip(FOLDERS, answers, strict=True))


def probe(
    name: str, needed: dict[str, importlib.metadata.Distribution], wheels: dict[str, Path], folder: Path
) -> Process:
    venv.create(folder, symlinks=True)
    [site] = folder.glob("lib/python*/site-packages")
    for distribution in needed.values():
        install(distribution, site, wheels)
    strangers = [other for other in [*FOLDERS, "accelerate", "datasets", "pytest"] if other not in needed]
    modules = [distribution.replace("-", "_") for distribution in [name, *strangers]]
    examples = re.findall(r"```python\n(.*?)```", (FOLDERS[name] / "README.md").read_text(), re.DOTALL)
    return run([str(folder / "bin" / "python"), "-I", "-c", PROBE, *modules], cwd=folder, text="\n".join(examples))


def run(command: list[str], cwd: Path, text: str = "") -> Process:
    # The backend looks for its own binary on the path.
    env = os.environ | {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])}
    return subprocess.run(command, cwd=cwd, env=env, input=text, capture_output=True, text=True, check=False)


def checked(process: Process) -> str:
    if process.returncode:
        pytest.fail(process.stderr, pytrace=False)
    return process.stdout


def metadata_of(wheel: Path) -> importlib.metadata.Distribution:
    [found] = importlib.metadata.distributions(path=[str(wheel)])
    return found


def declared_by(distribution: importlib.metadata.Distribution, extra: str) -> Iterator[Requirement]:
    for line in distribution.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def closure(name: str, wheels: dict[str, Path]) -> dict[str, importlib.metadata.Distribution]:
    """The distribution and all that it needs, by what each says of itself, versions checked as an installer would."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(name)]
    while waiting:
        requirement = waiting.pop()
        key = canonicalize_name(requirement.name)
        if key not in found:
            found[key] = metadata_of(wheels[key]) if key in wheels else importlib.metadata.distribution(key)
        assert requirement.specifier.contains(found[key].version, prereleases=True), requirement
        for extra in {"", *requirement.extras}:
            if (key, extra) not in seen:
                seen.add((key, extra))
                waiting += declared_by(found[key], extra)
    return found


def install(distribution: importlib.metadata.Distribution, site: Path, wheels: dict[str, Path]) -> None:
    """Unpack a wheel of ours into `site`; link the top-level files and folders of a third-party distribution there."""
    key = canonicalize_name(distribution.name)
    if key in wheels:
        zipfile.ZipFile(wheels[key]).extractall(site)
        return
    for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
        if not (site / top).exists():  # a namespace such as `nvidia` has several owners
            (site / top).symlink_to(str(distribution.locate_file(top)))


@each_package
def test_wheel_carries_types_licence_and_metadata(name: str, wheels: dict[str, Path]) -> None:
    contents = zipfile.ZipFile(wheels[name]).namelist()
    assert f"{name.replace('-', '_')}/py.typed" in contents
    [licence] = [file for file in contents if file.endswith(".dist-info/licenses/LICENSE")]
    assert zipfile.ZipFile(wheels[name]).read(licence) == (ROOT / "LICENSE").read_bytes()
    metadata = metadata_of(wheels[name]).metadata
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description"].strip() == (FOLDERS[name] / "README.md").read_text().strip()


@pytest.mark.slow
@each_package
def test_package_needs_only_what_it_declares(name: str, probes: dict[str, Process]) -> None:
    where, *strangers = checked(probes[name]).split()
    assert Path(where).parts[-3:] == ("site-packages", name.replace("-", "_"), "__init__.py")
    assert not strangers
