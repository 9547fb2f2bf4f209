"""What every test runs under: no network, no user's cache, and one thread unless the environment asks for more.

And what some share: our distributions as they are published, and fresh virtual environments that hold them.
"""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Read when the libraries are imported, so set before any of them is; subprocesses inherit all of it. `--allow-hosts` in
# pyproject.toml refuses what would connect all the same.
_hub_cache = tempfile.TemporaryDirectory(prefix="delta-vae-tests-", ignore_cleanup_errors=True)
os.environ |= {
    "HF_HOME": _hub_cache.name,
    "HF_HUB_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MPLBACKEND": "Agg",
    "TOKENIZERS_PARALLELISM": "false",
}
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' models are too small to gain from a second thread


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `gpu` where there is no CUDA device."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that share something slow to make in one process, which makes it once."""
    for item in items:
        for shared in SLOW_TO_MAKE.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(shared))


ROOT = Path(__file__).parents[1]
SLOW_TO_MAKE = {"dist", "place", "warm", "seeded_runs"}  # fixtures


@pytest.fixture(scope="session")
def package_folders() -> dict[str, Path]:
    """Name of each of our distributions -> its folder in packages/."""
    projects = sorted(ROOT.glob("packages/*/pyproject.toml"))
    return {tomllib.loads(file.read_text())["project"]["name"]: file.parent for file in projects}


@pytest.fixture(scope="session")
def dist(package_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of our sdists, and of the wheels made of them, as `uv build --all-packages` leaves it."""
    dist = tmp_path_factory.mktemp("dist")
    for folder in package_folders.values():
        sdist = dist / build("sdist", folder, dist)
        source = tmp_path_factory.mktemp("source")
        with tarfile.open(sdist) as archive:
            # Python has no filters before 3.11.4.
            archive.extractall(source, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        build("wheel", source / sdist.name.removesuffix(".tar.gz"), dist)
    return dist


def build(kind: str, folder: Path, dist: Path) -> str:
    """The name of what the backend that pyproject.toml names made of `folder`: an "sdist" or a "wheel"."""
    code = f"import sys, uv_build; print(uv_build.build_{kind}(sys.argv[1]))"
    # The backend looks for its own binary on the path.
    environment = os.environ | {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])}
    command = [sys.executable, "-c", code, str(dist)]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        pytest.fail(process.stderr, pytrace=False)
    return process.stdout.split()[-1]


@pytest.fixture(scope="session")
def wheels(dist: Path, package_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of each of our distributions, and of the example of somebody else's, -> its wheel."""
    ours = {name: next(dist.glob(f"{name.replace('-', '_')}-[0-9]*.whl")) for name in package_folders}
    other = tmp_path_factory.mktemp("example")
    return ours | {"seasonal-latents": other / build("wheel", ROOT / "examples/seasonal-latents", other)}


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the names of the distributions in it."""

    folder: Path
    distributions: frozenset[str]

    def run(self, code: str, *arguments: str, cwd: Path | None = None, text: str = "", **variables: str) -> str:
        """What its Python prints that runs `code`, knowing nothing of this repository; `text` is its standard input."""
        command = [str(self.folder / "bin" / "python"), "-I", "-c", code, *arguments]
        process = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout


@pytest.fixture(scope="session")
def fresh_environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """Names of distributions -> an `Environment` of these and of what they declare, made once; for one thread only.

    It is filled as an installer would, from the wheels' own metadata, except that third-party packages are linked from
    where they are installed already: a wheel of torch is unpacked once, not six times, and nothing is fetched.
    """

    @cache
    def make(*names: str) -> Environment:
        # In several threads at once, Python 3.11's parser may raise a false `SystemError` on a requirement.
        needed = closure(names, wheels)
        folder = tmp_path_factory.mktemp(names[0])
        venv.create(folder, symlinks=True)
        [site] = folder.glob("lib/python*/site-packages")
        for distribution in needed.values():
            install(distribution, site, wheels)
        return Environment(folder, frozenset(needed))

    return make


def closure(names: tuple[str, ...], wheels: dict[str, Path]) -> dict[str, importlib.metadata.Distribution]:
    """The distributions and all that they need, by what each says of itself, versions checked as an installer would."""
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(name) for name in names]
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


def metadata_of(wheel: Path) -> importlib.metadata.Distribution:
    [found] = importlib.metadata.distributions(path=[str(wheel)])
    return found


def declared_by(distribution: importlib.metadata.Distribution, extra: str) -> Iterator[Requirement]:
    for line in distribution.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def install(distribution: importlib.metadata.Distribution, site: Path, wheels: dict[str, Path]) -> None:
    """Unpack a wheel of ours into `site`; link the top-level files and folders of a third-party distribution there."""
    key = canonicalize_name(distribution.name)
    if key in wheels:
        zipfile.ZipFile(wheels[key]).extractall(site)
        return
    for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
        if not (site / top).exists():  # a namespace such as `nvidia` has several owners
            (site / top).symlink_to(str(distribution.locate_file(top)))
