"""The README's commands, run once with tiny models, and the recipes as modules."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from accelerate.state import AcceleratorState

ROOT = Path(__file__).parents[2]
TINY_RUN = ["optimization.steps=6", "optimization.batch_size=8", "evaluation.every=3", "evaluation.examples=24"]
TINY_RUN += ["evaluation.importance_samples=2", "log_every=2"]


@pytest.fixture(scope="session")
def tiny_text() -> list[str]:
    """Overrides that make `recipes/lm1b.py --config quickstart` take seconds."""
    sizes = [f"{part}.{size}" for part in ("encoder", "decoder") for size in ("hidden_size=16", "num_layers=1")]
    return [*sizes, "tokenizer.vocab_size=300", "max_length=400", *TINY_RUN]


@pytest.fixture(scope="session")
def tiny_images() -> list[str]:
    """The same for `recipes/cifar10.py`."""
    sizes = [f"{part}.{size}" for part in ("encoder", "decoder") for size in ("hidden_size=8", "num_layers=1")]
    return [*sizes, "decoder.components=2", "auxiliary_prior.hidden_size=8", *TINY_RUN]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str], tiny_images: list[str]) -> Path:
    """A folder with runs/lm1b-quickstart and runs/cifar10-quickstart, and what the commands printed: lm1b.txt, ..."""
    place = tmp_path_factory.mktemp("place")
    for recipe, tiny in (("lm1b", tiny_text), ("cifar10", tiny_images)):
        command = [sys.executable, "-m", "accelerate.commands.launch", str(ROOT / f"recipes/{recipe}.py")]
        finished = subprocess.run(
            [*command, "--config", "quickstart", *tiny], cwd=place, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr
        (place / f"{recipe}.txt").write_text(finished.stdout)
    return place


@pytest.fixture(scope="session")
def load_recipe() -> Callable[[str], ModuleType]:
    """A recipe as a module, by its name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"recipe_{name}", ROOT / f"recipes/{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def fresh_accelerator() -> Iterator[None]:
    """Let the next test choose its own precision and processes."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
