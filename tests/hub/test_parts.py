"""A part of a model is published alone, and loads by its name in a fresh process as its card says."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from typer.testing import CliRunner

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_lab.cli import app
from delta_vae_lab.publishing import publish
from delta_vae_lab.run_folder import RunFolder

pytestmark = [
    pytest.mark.usefixtures("client"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own use of httpx2
]

PARTS = ("auxiliary_prior", "prior", "encoder", "decoder")
KINDS = {"text": DeltaVaeForCausalLM, "images": DeltaVaeForImageGeneration}
READERS = {"text": {"tokenizer.json", "tokenizer_config.json"}, "images": {"preprocessor_config.json"}}
COMMON = {".gitattributes", "README.md", "checksums.json", "config.json", "config.yaml", "results.json"}

# What each part answers, of `parts` by their names; in the fresh process they are what AutoModel finds.
ANSWERS = """
import torch
from safetensors.torch import save_file
torch.manual_seed(0)
x = torch.tensor([[5, 9, 1]]) if kind == "text" else torch.randint(17, (1, 1, 4, 3))
z = torch.randn(1, 3 if kind == "text" else 4, 2)
with torch.no_grad():
    encoded = parts["encoder"](x)
    answers = {
        "encoder": encoded.statistics,
        "decoder": parts["decoder"](x, z).log_prob(x),
        "prior": parts["prior"].posterior(encoded.statistics, encoded.mask).log_scale,
        "auxiliary_prior": parts["auxiliary_prior"].log_prob(z),
    }
save_file(answers, "answers.safetensors")
"""
LOAD = """
import delta_vae
import huggingface_hub
from transformers import AutoModel
kind = {kind!r}
parts = {{name: AutoModel.from_pretrained("user/" + name) for name in {parts!r}}}
for name in parts:
    card = huggingface_hub.ModelCard.load("user/" + name)
    assert card.data.model_name == "tiny-" + kind + ", " + name.replace("_", " ")
    if not huggingface_hub.__version__.startswith("1."):  # which would ask its own Hub by name
        card.validate()
"""
# The sentence of a prior's card on the whole model: z is what the card drew.
DECODE = {
    "text": "model.generate(latents=z, do_sample=True)",
    "images": "model.sample(latents=z)",
}


def files_of(hub: Any, repo: str) -> dict[str, bytes]:
    found: dict[str, bytes] = hub.repositories[repo].files("main")
    return found


def code_of(card: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 6
    return str(code)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_part_loads_alone_and_answers_as_in_the_whole_model(
    kind: str,
    published_runs: dict[str, RunFolder],
    hub: Any,
    python: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = published_runs[kind]
    for part in PARTS:
        publish(run.path, f"user/{part}", part=part)
    code = {part: code_of(files_of(hub, f"user/{part}")["README.md"].decode()) for part in PARTS}
    model = KINDS[kind].from_pretrained(run.model)
    (here := tmp_path / "here").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(here)
        exec(ANSWERS, {"kind": kind, "parts": {part: getattr(model, part) for part in PARTS}})
    whole = f"""
import delta_vae
model = delta_vae.{type(model).__name__}.from_pretrained({str(run.model)!r})
assert {DECODE[kind]}.shape[0] == 4
"""
    drawn = "from pathlib import Path\nassert Path('sample.png').exists()\n" if kind == "images" else ""
    python(
        code["encoder"]
        + "assert posterior.mean.shape[2] == 2\n"
        + code["decoder"]
        + drawn
        + code["prior"]
        + whole
        + code["auxiliary_prior"]
        + whole
        + LOAD.format(kind=kind, parts=PARTS)
        + ANSWERS
    )
    answers, expected = load_file(tmp_path / "answers.safetensors"), load_file(here / "answers.safetensors")
    assert answers.keys() == set(PARTS)
    for part in PARTS:
        assert torch.equal(answers[part], expected[part]), part


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_is_published_with_what_it_needs_and_what_its_card_shows(
    kind: str, published_runs: dict[str, RunFolder], hub: Any
) -> None:
    run = published_runs[kind]
    heat = {"figures/rate_by_step_and_dimension.png", "figures/rate_by_position.png"}
    expected = {
        "auxiliary_prior": {"model.safetensors"},
        "prior": heat,  # AR(1): its config says all
        "encoder": {"model.safetensors", "prior/checksums.json", "prior/config.json", *READERS[kind], *heat},
        "decoder": {"model.safetensors", "prior/checksums.json", "prior/config.json", *READERS[kind]},
    }
    for part, needed in expected.items():
        publish(run.path, f"user/{part}", part=part)
        files = files_of(hub, f"user/{part}")
        samples = {name for name in files if name.startswith("samples/")}
        assert files.keys() - samples == COMMON | needed
        card = ModelCard(files["README.md"].decode())
        links = {way for way in re.findall(r"\]\((?!https)(.*?)\)", card.text) if "/" in way}
        assert links == samples | {name for name in needed if name.startswith("figures/")}
        assert json.loads(files["config.json"])["model_type"].startswith("delta_vae_")
        assert "auto_map" not in files["config.json"].decode()
        assert str(run.path) not in str(card)
    assert {"samples/samples_auxiliary.png", "samples/samples_auxiliary.txt"} & files_of(
        hub, "user/auxiliary_prior"
    ).keys()


def test_the_command_publishes_a_part_in_place_of_the_whole_and_back(
    published_runs: dict[str, RunFolder], hub: Any
) -> None:
    run = str(published_runs["text"].path)
    for options in ([], ["--part", "encoder"], ["--part", "auxiliary_prior"]):
        result = CliRunner().invoke(app, ["push", run, "user/a-part", *options])
        assert result.exit_code == 0, result.output
    left = {name for name in files_of(hub, "user/a-part") if not name.startswith("samples/")}
    assert left == COMMON | {"model.safetensors"}  # no shim, tokenizer, figures or prior of what was there before
    publish(published_runs["text"].path, "user/a-model")
    publish(published_runs["text"].path, "user/a-part")
    assert files_of(hub, "user/a-part").keys() == files_of(hub, "user/a-model").keys()


def test_a_part_that_there_is_not_is_refused_in_one_line(
    published_runs: dict[str, RunFolder], hub: Any, tmp_path: Path
) -> None:
    run = published_runs["text"].path
    result = CliRunner().invoke(app, ["push", str(run), "user/a-part", "--part", "posterior"])
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "error: part 'posterior': a model has none of this name; choose auxiliary_prior, prior, encoder or decoder"
    )
    assert result.stderr.count("\n") == 1
    without = shutil.copytree(run, tmp_path / "without")
    results = json.loads((without / "results.json").read_text())
    del results["model"]["auxiliary_prior"]
    (without / "results.json").write_text(json.dumps(results))
    with pytest.raises(
        ValueError, match="^part 'auxiliary_prior': the model of .*without has none; of it can be published: prior, enc"
    ) as at:
        publish(without, "user/a-part", part="auxiliary_prior")
    assert "\n" not in str(at.value)
    assert hub.requests == []


def test_what_failed_is_run_again_with_the_part(published_runs: dict[str, RunFolder], hub: Any) -> None:
    hub.fails["/commit/"] = 500
    with pytest.raises(ValueError, match="user/a-part --part encoder --private$"):
        publish(published_runs["text"].path, "user/a-part", part="encoder", private=True)
