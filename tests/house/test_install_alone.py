"""Each package installs alone: its wheel, in a fresh environment that holds the declared dependencies and nothing else.

There every module imports, and the example of the package's README runs.
"""

import os
import re
import tomllib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

PROJECTS = sorted((Path(__file__).parents[2] / "packages").glob("*/pyproject.toml"))
PACKAGES = [tomllib.loads(file.read_text())["project"]["name"] for file in PROJECTS]

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
def probes(fresh_environment: Callable[..., Any], package_folders: dict[str, Path]) -> dict[str, Future[str]]:
    """Name of each of our distributions -> what `PROBE` prints in its environment; they run side by side."""
    environments = {name: fresh_environment(name) for name in package_folders}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {
            name: pool.submit(probe, name, environment, package_folders) for name, environment in environments.items()
        }


def probe(name: str, environment: Any, package_folders: dict[str, Path]) -> str:
    strangers = [
        other
        for other in [*package_folders, "accelerate", "datasets", "pytest"]
        if other not in environment.distributions
    ]
    modules = [distribution.replace("-", "_") for distribution in [name, *strangers]]
    examples = re.findall(r"```python\n(.*?)```", (package_folders[name] / "README.md").read_text(), re.DOTALL)
    here = [example for example in examples if '"user/' not in example]  # tests/hub runs what loads a published model
    return str(environment.run(PROBE, *modules, text="\n".join(here)))


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_package_needs_only_what_it_declares(name: str, probes: dict[str, Future[str]]) -> None:
    where, *strangers = probes[name].result().split()
    assert Path(where).parts[-3:] == ("site-packages", name.replace("-", "_"), "__init__.py")
    assert not strangers
