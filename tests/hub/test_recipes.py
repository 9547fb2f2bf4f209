"""`--push-to-hub` of the recipes: what would hinder it is said before the training; the finished run is published."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from accelerate.state import AcceleratorState

ROOT = Path(__file__).parents[2]
RUN = ["optimization.steps=2", "optimization.batch_size=8", "evaluation.every=2", "evaluation.examples=8"]
RUN += ["evaluation.importance_samples=1", "encoder.num_layers=1", "decoder.num_layers=1"]
TEXT = ["encoder.hidden_size=16", "decoder.hidden_size=16", "tokenizer.vocab_size=300", "max_length=400"]
IMAGES = ["encoder.hidden_size=8", "decoder.hidden_size=8", "decoder.components=2", "auxiliary_prior.hidden_size=8"]
RECIPES = {"lm1b": TEXT, "cifar10": IMAGES}

pytestmark = [
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own use of httpx2
]


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def recipe_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pushing_{name}", ROOT / f"recipes/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(name: str, folder: Path, repo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [f"{name}.py", "--output-dir", str(folder), "--push-to-hub", repo, *RUN, *RECIPES[name]]
    monkeypatch.setattr("sys.argv", arguments)
    recipe = recipe_of(name)
    recipe.main(recipe.parse_arguments())


@pytest.mark.parametrize("name", RECIPES)
def test_what_hinders_publishing_is_said_before_the_training(
    name: str, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for repo in ("a-model", ""):
        with pytest.raises(ValueError, match=f"^repository '{repo}': give USER/NAME"):
            start(name, tmp_path / "run", repo, monkeypatch)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match="^no token for the Hugging Face Hub"):
        start(name, tmp_path / "run", "user/a-model", monkeypatch)
    assert not (tmp_path / "run").exists()
    assert hub.requests == []


@pytest.mark.parametrize("name", RECIPES)
def test_a_finished_run_is_published(
    name: str, hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start(name, tmp_path / "run", "user/a-model", monkeypatch)
    repository = hub.repositories["user/a-model"]
    files = repository.files("main")
    assert f"Published: {hub.url}/user/a-model/commit/{repository.sha(files)}\n" in capsys.readouterr().out
    assert files["model.safetensors"] == (tmp_path / "run/model/model.safetensors").read_bytes()
    assert files["config.yaml"] == (tmp_path / "run/config.yaml").read_bytes()
    assert "figures/training.png" in files
    assert b"checkpoints" not in b"".join(name.encode() for name in files)
