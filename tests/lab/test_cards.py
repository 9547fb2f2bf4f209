"""The model card of every kind of model: it claims what the model's own config supports, and its code runs."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import PreTrainedConfig

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.architecture import image_model_config, text_model_config
from delta_vae_lab.cards import committed_card, main, model_section, read_results, render_card, write_card
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data import heldout_batches, heldout_image_batches, tokenize, train_tokenizer
from delta_vae_lab.evaluation import evaluate
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import ImageRunConfig, TextRunConfig
from delta_vae_priors import (
    AR1PriorConfig,
    AuxiliaryPriorConfig,
    IndependentDeltaPriorConfig,
    LSTMPriorConfig,
    StandardNormalPriorConfig,
)

ROOT = Path(__file__).parents[2]
RESULTS = [file for kind in ("lm1b-layout", "cifar10-lossless") for file in sorted((ROOT / "results" / kind).iterdir())]
SENTENCES = ["a cat sat", "the dog ran off", "a mat", "they sat on the mat"]
FLOOR = "cannot fall below its committed part"
PRIORS = {
    "ar1": AR1PriorConfig(latent_dim=2, alpha=0.9),
    "independent_delta": IndependentDeltaPriorConfig(latent_dim=2, delta=0.07),
    "standard_normal": StandardNormalPriorConfig(latent_dim=2),
    "lstm": LSTMPriorConfig(latent_dim=2, hidden_size=8),
}


def config_of(prior: str, encoder: PreTrainedConfig | None, decoder: PreTrainedConfig) -> DeltaVaeConfig:
    """With an auxiliary prior, but in the ordinary VAE; a decoder without latents has no prior at all."""
    if prior == "none":
        return DeltaVaeConfig(decoder=decoder)
    auxiliary = None if prior == "standard_normal" else AuxiliaryPriorConfig(latent_dim=2, hidden_size=8)
    return DeltaVaeConfig(prior=PRIORS[prior], encoder=encoder, decoder=decoder, auxiliary_prior=auxiliary)


def text_card(folder: Path, prior: str, *, direction: str = "anticausal", attention: str = "causal") -> ModelCard:
    """The card of an untrained text model, in a run folder with what is measured of it."""
    run = RunFolder(folder / "a-run")
    tokenizer = train_tokenizer(iter(SENTENCES * 10), 265)
    tokenizer.save_pretrained(run.model)
    latent_dim = 0 if prior == "none" else 2
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_layers": 1, "num_heads": 2, "latent_dim": latent_dim}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    encoder = TextEncoderConfig(**sizes, direction=direction) if latent_dim else None
    decoder = TextDecoderConfig(**sizes, **tokens, latent_attention=attention)
    torch.manual_seed(0)
    model = DeltaVaeForCausalLM(config_of(prior, encoder, decoder))
    model.save_pretrained(run.model)
    batches = heldout_batches(tokenize(tokenizer, SENTENCES), 2, tokenizer.pad_token_id)
    metrics = evaluate(model, batches, words=17, importance_samples=2)
    return written_card(run, model.config, metrics, {"sentences": 4, "sha256": "0" * 64})


def image_card(
    folder: Path, prior: str, *, direction: str = "anticausal", attention: str = "causal", channels: int = 1
) -> ModelCard:
    """The card of an untrained image model, in a run folder with what is measured of it."""
    run = RunFolder(folder / "a-run")
    latent_dim = 0 if prior == "none" else 2
    sizes = {"height": 4, "width": 3, "channels": channels, "levels": 17, "latent_dim": latent_dim}
    sizes |= {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "attention_layers": channels // 3}
    encoder = ImageEncoderConfig(**sizes, direction=direction) if latent_dim else None
    decoder = ImageDecoderConfig(**sizes, components=2, latent_attention=attention)
    torch.manual_seed(0)
    model = DeltaVaeForImageGeneration(config_of(prior, encoder, decoder))
    model.save_pretrained(run.model)
    DeltaVaeImageProcessor.for_model(model.config).save_pretrained(run.model)
    images = np.random.default_rng(0).integers(0, 17, (4, channels, 4, 3), dtype=np.uint8)
    metrics = evaluate(model, heldout_image_batches(images, 2), importance_samples=2)
    return written_card(run, model.config, metrics, {"images": 4, "sha256": "0" * 64})


def written_card(run: RunFolder, config: DeltaVaeConfig, metrics: dict[str, float], split: dict[str, Any]) -> ModelCard:
    results = {
        "run": "a-run",
        "command": "recipe.py",
        "commit": None,
        "seed": 0,
        "device": "a CPU",
        "versions": {"python": "3"},
        "data": {"name": "four-examples", "source": "this file", "train": split, "heldout": split},
        "model": model_section(config),
        "metrics": metrics,
    }
    run.results_file.write_text(json.dumps(results))
    write_card(run)
    return ModelCard.load(run.model / "README.md")


TEXT_MODELS = {
    "ar1": (
        {"prior": "ar1"},
        ["a-run: a text δ-VAE", "anti-causal", "latents up to the token", "AR(1)", FLOOR, "An auxiliary prior"],
        ["whole sentence", "all latents", "ordinary", "baseline", "standard normal"],
    ),
    "ar1, non-causal with full attention": (
        {"prior": "ar1", "direction": "none", "attention": "full"},
        ["a-run: a text δ-VAE", "sees the whole sentence", "attends over all latents", "AR(1)", FLOOR],
        ["anti-causal", "up to the token", "ordinary"],
    ),
    "independent delta": (
        {"prior": "independent_delta"},
        ["a-run: a text δ-VAE", "anti-causal", "a standard normal", "at least 0.07 nats", FLOOR],
        ["AR(1)", "ordinary"],
    ),
    "ordinary VAE": (
        {"prior": "standard_normal"},
        ["a-run: a text VAE", "ordinary VAE, whose rate can fall to zero", "anti-causal"],
        ["a text δ-VAE", FLOOR, "AR(1)", "A committed rate is not information", "An auxiliary prior"],
    ),
    "learned prior": (
        {"prior": "lstm"},
        ["a-run: a text VAE", "an LSTM trained with the rest and commits nothing", "rate can fall to zero"],
        ["a text δ-VAE", FLOOR, "AR(1)", "standard normal"],
    ),
    "without latents": (
        {"prior": "none"},
        ["a-run: a text decoder without latents", "No latents: ", "no bound"],
        ["δ-VAE", FLOOR, "causal", "AR(1)", "shuffle gap", "upper bound", "KL("],
    ),
}


IMAGE_MODELS = {
    "ar1": (
        {"prior": "ar1"},
        ["a-run: an image δ-VAE", "3 x 4 pixels", "below", "down to the row", "AR(1)", FLOOR, "An auxiliary prior"],
        ["whole image", "all rows", "ordinary", "baseline", "standard normal", "and attention", "sentence", "token"],
    ),
    "ar1, non-causal with full attention, in colour": (
        {"prior": "ar1", "direction": "none", "attention": "full", "channels": 3},
        [
            "a-run: an image δ-VAE",
            "sees the whole image",
            "the latents of all rows",
            "and attention",
            FLOOR,
            "has 36 of",
        ],
        ["anti-causal", "down to the row", "ordinary"],
    ),
    "independent delta": (
        {"prior": "independent_delta"},
        ["a-run: an image δ-VAE", "anti-causal", "a standard normal", "at least 0.07 nats", FLOOR],
        ["AR(1)", "ordinary"],
    ),
    "ordinary VAE": (
        {"prior": "standard_normal"},
        ["a-run: an image VAE", "ordinary VAE, whose rate can fall to zero", "anti-causal"],
        ["an image δ-VAE", FLOOR, "AR(1)", "A committed rate is not information", "An auxiliary prior"],
    ),
    "without latents": (
        {"prior": "none"},
        ["a-run: an image decoder without latents", "No latents: ", "no bound", "0 … 16 of 1 x 4 x 3", "has 12 of"],
        ["δ-VAE", FLOOR, "causal", "AR(1)", "shuffle gap", "upper bound", "KL("],
    ),
}


@pytest.mark.parametrize(("model", "said", "unsaid"), TEXT_MODELS.values(), ids=TEXT_MODELS.keys())
def test_a_card_claims_what_a_text_model_is_and_no_more(
    model: dict[str, str], said: list[str], unsaid: list[str], tmp_path: Path
) -> None:
    card = text_card(tmp_path, **model)
    check_claims(card, said, unsaid)
    check_listing(card, "text-generation", "nats_per_token", FLOOR in said, model["prior"] != "none")
    assert run_code(card)["ids"].shape[0] == 2


@pytest.mark.parametrize(("model", "said", "unsaid"), IMAGE_MODELS.values(), ids=IMAGE_MODELS.keys())
def test_a_card_claims_what_an_image_model_is_and_no_more(
    model: dict[str, Any], said: list[str], unsaid: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = image_card(tmp_path, **model)
    check_claims(card, said, unsaid)
    check_listing(card, "unconditional-image-generation", "bits_per_dim", FLOOR in said, model["prior"] != "none")
    monkeypatch.chdir(tmp_path)
    run_code(card)
    for name in ("sample-0.png", "sample-1.png"):
        with Image.open(name) as image:
            assert image.size == (3, 4)
            assert image.mode == ("RGB" if "channels" in model else "L")


def test_a_card_shows_the_figures_and_samples_that_there_are(tmp_path: Path) -> None:
    image_card(tmp_path, "ar1")
    run = RunFolder(tmp_path / "a-run")
    assert "![" not in str(render_card(run))
    assert "## Samples" not in str(render_card(run))
    for file in ("figures/rate_by_position.png", "figures/training.png", "samples/samples_prior.png"):
        (run.path / file).parent.mkdir(exist_ok=True)
        (run.path / file).touch()
    for repo, root in ((None, "../"), ("user/a-model", "")):
        links = re.findall(r"!\[.*\]\((.*)\)", str(render_card(run, repo)))
        assert links == [f"{root}figures/rate_by_position.png", f"{root}samples/samples_prior.png"]
        assert f"[results.json]({root}results.json)" in str(render_card(run, repo))


def test_a_published_card_loads_from_its_repository_and_branch(tmp_path: Path) -> None:
    text_card(tmp_path, "ar1")
    run = RunFolder(tmp_path / "a-run")
    published = render_card(run, "user/a-model", "dev")
    assert published.text.count('from_pretrained("user/a-model", revision="dev"') == 3  # and once as remote code
    assert str(tmp_path) not in str(published)
    assert "trust_remote_code" not in str(render_card(run))
    assert (published.data.license, published.data.library_name) == ("other", "transformers")
    assert published.data.datasets is None
    results = json.loads(run.results_file.read_text())
    results["data"] |= {"name": "somebody/corpus", "license": "cc-by-4.0"}
    run.results_file.write_text(json.dumps(results))
    assert render_card(run).data.datasets == ["somebody/corpus"]
    assert "| data | cc-by-4.0 |" in render_card(run).text


def test_a_card_needs_no_more_than_results_json(tmp_path: Path) -> None:
    card = text_card(tmp_path, "ar1")
    run = RunFolder(tmp_path / "a-run")
    shutil.rmtree(run.model)
    assert str(render_card(run)) == str(card)


def test_results_that_do_not_say_what_the_model_is_are_refused(tmp_path: Path) -> None:
    text_card(tmp_path, "ar1")
    run = RunFolder(tmp_path / "a-run")
    results = json.loads(run.results_file.read_text())
    del results["model"]
    run.results_file.write_text(json.dumps(results))
    with pytest.raises(ValueError, match="results.json: has no 'model'; give the results.json of a run, or evaluate"):
        render_card(run)


@pytest.mark.parametrize("prior", [*PRIORS, "none"])
@pytest.mark.parametrize("make", [text_card, image_card])
def test_the_card_of_a_part_says_whose_it_is_and_shows_what_concerns_it(make: Any, prior: str, tmp_path: Path) -> None:
    make(tmp_path, prior)
    run = RunFolder(tmp_path / "a-run")
    metrics = json.loads(run.results_file.read_text())["metrics"]
    config = DeltaVaeConfig.from_pretrained(run.model)
    rows = {
        "auxiliary_prior": ["rate, training prior", "rate, auxiliary prior"],
        "prior": ["rate, training prior", "of it slack", "marginal KL"],
        "encoder": ["rate, training prior", "mutual information", "active units"],
        "decoder": ["distortion", "shuffle gap"] if prior != "none" else ["distortion"],
    }
    for part, shown in rows.items():
        if getattr(config, part) is None:
            continue
        card = render_card(run, "user/a-part", "dev", part)
        (table,) = re.findall(r"```text\n(.*?)```", card.text, re.DOTALL)
        assert [row for row in shown if row not in table] == []
        assert ("distortion" in table) == (part == "decoder")
        (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
        assert len([line for line in code.splitlines() if line]) <= 6
        assert 'from_pretrained("user/a-part", revision="dev"' in code
        assert "`a-run`" in card.text
        assert part.replace("_", "-") in card.data.tags
        assert card.data.model_name == f"a-run, {part.replace('_', ' ')}"
        listed = {result.metric_type: result.metric_value for result in card.data.eval_results}
        assert listed == {name: pytest.approx(metrics[name]) for name in listed} != {}
        assert "{{" not in card.text
    if config.auxiliary_prior is not None:
        text = " ".join(render_card(run, "user/a-part", part="auxiliary_prior").text.split())
        less = metrics["rate_nats"] - metrics["auxiliary_rate_nats"]
        assert f"it takes back {less:.2f} nats" in text if less > 0 else "it takes back nothing" in text


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_the_architecture_in_committed_results_is_what_their_command_asks_for(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has as many parameters as the run counted."""
    results = read_results(file)
    words = shlex.split(results["command"])
    recipe = ROOT / words[0]
    monkeypatch.setattr("sys.argv", words)
    spec = importlib.util.spec_from_file_location(f"recipe_of_{recipe.stem}", recipe)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments, presets = module.parse_arguments(), recipe.parent / "configs" / recipe.stem
    if recipe.stem == "lm1b":
        text = load_config(TextRunConfig, arguments.config, arguments.overrides, presets)
        tokenizer = train_tokenizer(iter(SENTENCES * 10), 265)
        tokenizer.add_tokens([f"token-{i}" for i in range(265, text.tokenizer.vocab_size)])
        config = text_model_config(text, tokenizer)
    else:
        images = load_config(ImageRunConfig, arguments.config, arguments.overrides, presets)
        config = image_model_config(images, (3, 32, 32), 256)  # CIFAR-10's
    assert results["model"] == model_section(config)
    with torch.device("meta"):
        model = (DeltaVaeForCausalLM if recipe.stem == "lm1b" else DeltaVaeForImageGeneration)(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == results["metrics"]["parameters"]


def test_the_committed_cards_are_those_of_the_committed_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change: python -m delta_vae_lab.cards results/{lm1b-layout,cifar10-lossless}/*.json --output ..."""
    folder = ROOT / "hub_cards/rendered"
    monkeypatch.setattr("sys.argv", ["cards", *map(str, RESULTS), "--output", str(tmp_path)])
    main()
    assert {file.name for file in folder.iterdir()} == {file.name for file in tmp_path.iterdir()}
    for file in RESULTS:
        card = committed_card(file, folder)
        name = f"{read_results(file)['run']}.md"
        assert (folder / name).read_text(encoding="utf-8") == str(card)
        links = re.findall(r"\]\((?!https)(.*?)\)", card.text)
        assert [(folder / link).resolve() for link in links] == [file]


def check_claims(card: ModelCard, said: list[str], unsaid: list[str]) -> None:
    text = " ".join(card.text.split("## Citation")[0].split())
    assert [claim for claim in said if claim not in text] == []
    assert [claim for claim in unsaid if claim in text] == []
    for licence in ("| code | Apache-2.0", "see the data's own licence", "whatever terms their training data carries"):
        assert licence in text
    assert "{{" not in text
    assert ". ." not in text


def check_listing(card: ModelCard, task: str, bound: str, commits: bool, latents: bool) -> None:
    """What the Hub's search finds."""
    assert card.data.pipeline_tag == task
    assert ("delta-vae" in card.data.tags) == commits
    assert ("variational-autoencoder" in card.data.tags) == latents
    listed = {result.metric_type: result.metric_name for result in card.data.eval_results}
    assert ("rate_nats" in listed) == ("shuffle_gap_nats" in listed) == latents
    assert listed[bound].startswith("Negative ELBO" if latents else "Negative log-likelihood")


def run_code(card: ModelCard) -> dict[str, Any]:
    """The names that the card's code leaves."""
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), namespace)
    return namespace
