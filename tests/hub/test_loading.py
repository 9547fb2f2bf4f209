"""A published model loads by its name in a fresh process: as the card says, as remote code, and without a network."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_lab.publishing import publish
from delta_vae_lab.run_folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own use of httpx2
]

# Outputs of `model`, as the program that loaded it leaves them.
WRITE_TEXT = """
import torch
from safetensors.torch import save_file
ids = torch.tensor([[model.config.decoder.bos_token_id, 5, 9, model.config.decoder.eos_token_id]])
model.eval()
noise = torch.ones(1, 3, 2)
with torch.no_grad():
    output = model(input_ids=ids, noise=noise)
    logits = model(input_ids=ids, latents=torch.ones(1, 4, 2), logits_to_keep=0).logits
save_file({"rate": output.rate, "distortion": output.distortion, "logits": logits}, "outputs.safetensors")
"""
WRITE_IMAGES = """
import torch
from safetensors.torch import save_file
model.eval()
with torch.no_grad():
    output = model(torch.arange(12).view(1, 1, 4, 3), noise=torch.ones(1, 4, 2))
save_file({"rate": output.rate, "distortion": output.distortion}, "outputs.safetensors")
"""
LOAD_CARD = """
import huggingface_hub
card = huggingface_hub.ModelCard.load("user/a-model")
if not huggingface_hub.__version__.startswith("1."):  # which would ask its own Hub by name
    card.validate()
"""
WRITE = {"text": WRITE_TEXT, "images": WRITE_IMAGES}
KINDS = {"text": DeltaVaeForCausalLM, "images": DeltaVaeForImageGeneration}


def outputs_here(kind: str, run: RunFolder, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Of the model in the run's own folder."""
    folder.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        exec(WRITE[kind], {"model": KINDS[kind].from_pretrained(run.model)})
    return load_file(folder / "outputs.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("kind", "revision"), [("text", None), ("images", "dev")], ids=["text", "images on a branch"])
def test_the_code_of_the_card_loads_the_same_model_and_again_without_a_network(
    kind: str,
    revision: str | None,
    published_runs: dict[str, RunFolder],
    hub: Any,
    python: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(published_runs[kind].path, "user/a-model", private=True, revision=revision)
    here = outputs_here(kind, published_runs[kind], tmp_path / "here", monkeypatch)
    card = hub.repositories["user/a-model"].files(revision or "main")["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 6
    python(code + WRITE[kind] + (LOAD_CARD if revision is None else ""))
    assert equal(load_file(tmp_path / "outputs.safetensors"), here)
    if kind == "images":
        assert (tmp_path / "sample-1.png").exists()
    (tmp_path / "outputs.safetensors").unlink()
    seen = len(hub.requests)
    python(code + WRITE[kind], offline=True)
    assert equal(load_file(tmp_path / "outputs.safetensors"), here)
    assert len(hub.requests) == seen


def test_what_was_loaded_once_loads_again_when_the_hub_is_gone(
    published_runs: dict[str, RunFolder], hub: Any, python: Callable[..., str], tmp_path: Path
) -> None:
    """Not only where HF_HUB_OFFLINE says so: the client finds out by itself, here without its waits between attempts.

    They are 23 seconds for each file that it asks for.
    """
    publish(published_runs["text"].path, "user/a-model")
    card = hub.repositories["user/a-model"].files("main")["README.md"].decode()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    python(code + WRITE_TEXT)
    first = load_file(tmp_path / "outputs.safetensors")
    (tmp_path / "outputs.safetensors").unlink()
    hub.shutdown()
    hub.server_close()
    python("import huggingface_hub.utils._http as http\nhttp.time.sleep = lambda seconds: None\n" + code + WRITE_TEXT)
    assert equal(load_file(tmp_path / "outputs.safetensors"), first)


REMOTE_TEXT = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
assert "delta_vae" not in sys.modules
model = AutoModelForCausalLM.from_pretrained("user/a-model", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained("user/a-model")
assert tokenizer("a cat").input_ids[0] == model.config.decoder.bos_token_id
"""
REMOTE_IMAGES = """
import sys
from transformers import AutoImageProcessor, AutoModel
assert "delta_vae" not in sys.modules
processor = AutoImageProcessor.from_pretrained("user/a-model", trust_remote_code=True)
assert (processor.height, processor.width, processor.levels) == (4, 3, 17)
processor.save_pretrained("again")
model = AutoModel.from_pretrained("user/a-model", trust_remote_code=True)
"""
SAVE_AGAIN = """
model.save_pretrained("again")
import delta_vae
assert type(model) is getattr(delta_vae, type(model).__name__)
assert type(model).from_pretrained("again").config.to_dict() == type(model).from_pretrained("again").config.to_dict()
print(type(model).__name__)
"""


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [("text", REMOTE_TEXT, "DeltaVaeForCausalLM"), ("images", REMOTE_IMAGES, "DeltaVaeModel")],
    ids=["text", "images"],
)
def test_remote_code_gives_the_installed_class_which_saves_no_trace_of_it(
    kind: str,
    code: str,
    name: str,
    published_runs: dict[str, RunFolder],
    python: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = published_runs[kind]
    publish(run.path, "user/a-model")
    assert python(code + WRITE[kind] + SAVE_AGAIN).split()[-1] == name
    here = outputs_here(kind, run, tmp_path / "here", monkeypatch)
    assert equal(load_file(tmp_path / "outputs.safetensors"), here)
    again = tmp_path / "again"
    assert list(again.glob("*.py")) == []
    for file in again.glob("*.json"):
        assert not re.search("auto_map|_shim", file.read_text()), file.name
    assert equal(load_file(again / "model.safetensors"), load_file(run.model / "model.safetensors"))


REFUSED = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "delta_vae":
            raise ModuleNotFoundError("No module named 'delta_vae'", name=name)

sys.meta_path.insert(0, Missing())
from transformers import AutoModelForCausalLM
for trust in (None, True):
    try:
        AutoModelForCausalLM.from_pretrained("user/a-model", trust_remote_code=trust)
    except (ImportError, ValueError) as error:
        print(error)
"""


def test_without_trust_or_the_package_it_is_said_what_to_do(
    published_runs: dict[str, RunFolder], python: Callable[..., str]
) -> None:
    publish(published_runs["text"].path, "user/a-model")
    said = python(REFUSED)
    assert "pass the argument `trust_remote_code=True`" in said
    assert "Run `pip install delta_vae`" in said.partition("pass the argument")[2]  # pip reads _ and - alike
