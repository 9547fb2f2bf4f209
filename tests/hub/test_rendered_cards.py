"""The six lines of every rendered card run, on a tiny model of the same kind under the card's name."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from packaging.version import Version

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_lab.cards import read_results
from delta_vae_lab.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "hub_cards/rendered"
TINY = {
    "lm1b-layout": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 265},
    "cifar10-lossless": {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "height": 4, "width": 3},
}

pytestmark = [
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own use of httpx2
]


def tiny_files(results: dict[str, Any], tokenizer: Path, folder: Path) -> dict[str, bytes]:
    """What is published of an untrained model with the parts of this run's, of the least sizes."""
    parts = copy.deepcopy(results["model"])
    for name in parts.keys() & {"encoder", "decoder"}:
        parts[name] |= TINY[results["data"]["name"]]
    config = DeltaVaeConfig(**parts)
    if hasattr(config.decoder, "vocab_size"):
        DeltaVaeForCausalLM(config).save_pretrained(folder)
        beside = list(tokenizer.glob("tokenizer*"))
    else:
        DeltaVaeForImageGeneration(config).save_pretrained(folder)
        DeltaVaeImageProcessor.for_model(config).save_pretrained(folder)
        beside = []
    return {file.name: file.read_bytes() for file in (*folder.iterdir(), *beside)}


@pytest.mark.slow
@pytest.mark.parametrize("data", TINY)
def test_the_code_of_every_rendered_card_runs_as_it_stands(
    data: str,
    published_runs: dict[str, RunFolder],
    hub: Any,
    repository: Callable[[dict[str, bytes]], Any],
    python: Callable[..., str],
    tmp_path: Path,
) -> None:
    programs, names = [], []
    for results in map(read_results, sorted((ROOT / "results" / data).iterdir())):
        names.append(name := results["run"])
        hub.repositories[f"user/{name}"] = repository(
            tiny_files(results, published_runs["text"].model, tmp_path / name)
        )
        card = (CARDS / f"{name}.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        assert len([line for line in code.splitlines() if line]) <= 6
        programs.append(f"exec({code!r}, {{}})\nprint('ran', {name!r})\n")
    said = python("".join(programs))
    assert re.findall("^ran (.*)$", said, re.MULTILINE) == names
    assert {f"GET /user/{name}/resolve" in "".join(hub.requests) for name in names} == {True}


@pytest.mark.skipif(
    Version(huggingface_hub.__version__) < Version("2"),
    reason="ModelCard.validate of huggingface-hub 1 asks its own Hub by name, whatever HF_ENDPOINT says",
)
def test_every_rendered_card_is_one_that_the_hub_takes(hub: Any) -> None:
    for file in sorted(CARDS.iterdir()):
        card = ModelCard.load(file)
        card.validate()
        assert hub.validated[-1] == str(card)
        assert card.data.model_name == file.stem
        assert card.data.eval_results
