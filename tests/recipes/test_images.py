"""The image recipes as a user runs them: the presets, the run folder, what is loaded from it, and mistakes."""

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # at the top only with torchvision, once

from delta_vae import DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_lab.architecture import image_model_config
from delta_vae_lab.configuration import load_config, result_changes
from delta_vae_lab.sections import ImageRunConfig
from delta_vae_priors import AR1Prior

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "recipes/configs"


@pytest.fixture
def run(place: Path) -> Path:
    return place / "runs/cifar10-quickstart"


def test_the_run_folder_is_complete(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        "checkpoints",
        "config.yaml",
        "figures",
        "metrics.jsonl",
        "model",
        "results.json",
        "samples",
        "trackers",
    }
    assert {path.name for path in (run / "model").iterdir()} == {
        "checksums.json",
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert {path.name for path in (run / "samples").iterdir()} == {
        "samples_prior.png",
        "samples_auxiliary.png",
        "fixed_z.png",
        "reconstructions.png",
        "interpolations.png",
    }
    for grid in (run / "samples").glob("*.png"):
        with Image.open(grid) as image:
            assert min(image.size) > 100
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 3, 4, 6, 6]


def test_results_are_in_bits_per_dim_against_both_priors(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    assert results["data"]["name"] == "sklearn-digits"
    assert "cifar10.py --config quickstart" in results["command"]
    metrics = results["metrics"]
    assert (metrics["images"], metrics["dimensions"]) == (24, 24 * 64)
    bits = 1 / (64 * math.log(2))
    assert metrics["bits_per_dim"] == pytest.approx(metrics["negative_elbo_nats"] * bits)
    assert metrics["auxiliary_bits_per_dim"] == pytest.approx(metrics["auxiliary_negative_elbo_nats"] * bits)
    assert metrics["rate_bits_per_dim"] == pytest.approx(metrics["rate_nats"] * bits)
    assert metrics["smallest_batch_slack_nats"] > -1e-3
    assert metrics["training_seconds"] > 0


def test_it_ends_with_a_table_and_a_plain_sentence(place: Path) -> None:
    printed = (place / "cifar10.txt").read_text()
    assert re.search(r"rate, training prior +\d", printed)
    assert re.search(r"^(Collapsed|Not collapsed): .* nats an image", printed, re.MULTILINE)


def test_the_model_and_its_processor_load_from_the_run(run: Path) -> None:
    model = DeltaVaeForImageGeneration.from_pretrained(run / "model")
    processor = AutoImageProcessor.from_pretrained(run / "model")
    assert isinstance(processor, DeltaVaeImageProcessor)
    assert (processor.levels, processor.input_levels) == (17, 17)
    images = model.sample(2, generator=torch.Generator().manual_seed(0))
    assert images.shape == (2, 1, 8, 8)
    assert [picture.size for picture in processor.postprocess(images)] == [(8, 8)] * 2


def test_the_card_says_what_results_say_and_its_code_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[1])
    card = ModelCard.load(run / "model/README.md")
    results = json.loads((run / "results.json").read_text())
    listed = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert listed["bits_per_dim"] == results["metrics"]["bits_per_dim"]
    assert re.search(r"\*\*Is it collapsed\?\*\* (Collapsed|Not collapsed)", card.text)
    assert "{{" not in card.text
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    exec(compile(code, "card", "exec"), {})


PRESET_NAMES = [f"{path.parent.name}/{path.stem}" for path in sorted(PRESETS.glob("*/*.yaml"))]
IMAGE_PRESETS = [name for name in PRESET_NAMES if not name.startswith("lm1b/")]


def test_the_presets_are_those_that_the_recipes_name() -> None:
    assert IMAGE_PRESETS == [
        "cifar10/ablation-high",
        "cifar10/ablation-low",
        "cifar10/large",
        "cifar10/quickstart",
        "cifar10/small-cpu",
        "imagenet32/ablation-low",
        "imagenet32/large",
    ]


@pytest.mark.parametrize("name", IMAGE_PRESETS)
def test_every_preset_builds_and_its_twin_is_its_decoder_without_latents(name: str) -> None:
    config = load_config(ImageRunConfig, PRESETS / f"{name}.yaml")
    twin = load_config(ImageRunConfig, PRESETS / f"{name}.yaml", ["prior.kind=none"])
    assert result_changes(config, twin) == ["prior.kind"]
    ours, theirs = (image_model_config(c, (3, 32, 32), 256) for c in (config, twin))
    assert theirs.prior is theirs.encoder is theirs.auxiliary_prior is None
    assert theirs.latent_dim == 0
    changed = {"latent_dim"}
    with torch.device("meta"):
        model = DeltaVaeForImageGeneration(ours)
    assert model.config.latent_dim == config.prior.latent_dim
    same = {k: v for k, v in ours.decoder.to_dict().items() if k not in changed}
    assert same == {k: v for k, v in theirs.decoder.to_dict().items() if k not in changed}


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("cifar10/ablation-low", 79.447),
        ("cifar10/ablation-high", 666.63),
        ("cifar10/large", 79.447),
        ("cifar10/small-cpu", 79.447),
        ("imagenet32/ablation-low", 79.447),
        ("imagenet32/large", 79.447),
    ],
)
def test_the_presets_commit_the_rates_of_the_paper(name: str, bits: float) -> None:
    config = load_config(ImageRunConfig, PRESETS / f"{name}.yaml")
    prior = AR1Prior(image_model_config(config, (3, 32, 32), 256).prior)
    committed = float(prior.committed_rate(torch.tensor([32]))) / math.log(2)
    assert committed == pytest.approx(bits, abs=0.005)


SIZES = {
    "ablation-low": ((128, 8, 2), (128, 8, 2)),
    "ablation-high": ((128, 8, 2), (128, 8, 2)),
    "large": ((128, 20, 6), (256, 30, 6)),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_presets_have_the_sizes_of_the_paper(name: str) -> None:
    preset = yaml.safe_load((PRESETS / f"cifar10/{name}.yaml").read_text())
    sizes = tuple(
        tuple(preset[part][key] for key in ("hidden_size", "num_layers", "attention_layers"))
        for part in ("encoder", "decoder")
    )
    assert sizes == SIZES[name]


def write_images(folder: Path, count: int, size: tuple[int, int] = (6, 6)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i:03d}.png")


@pytest.mark.usefixtures("fresh_accelerator")
def test_imagenet32_says_which_version_it_was(
    load_recipe: Callable[[str], ModuleType],
    tiny_images: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_images(tmp_path / "data/train_32x32", 10, (32, 32))
    write_images(tmp_path / "data/valid_32x32", 3, (32, 32))
    overrides = [*tiny_images, "optimization.steps=1", "evaluation.every=0", "decoder.attention_layers=0"]
    overrides += ["encoder.attention_layers=0", "optimization.mixed_precision=no", "optimization.compile=false"]
    overrides += ["optimization.accumulation=1", "decoder.num_heads=2", "tracker=none"]
    argv = ["imagenet32.py", "--data", str(tmp_path / "data"), "--output-dir", str(tmp_path / "run"), *overrides]
    monkeypatch.setattr(sys, "argv", argv)
    recipe = load_recipe("imagenet32")
    recipe.main(recipe.parse_arguments())
    data = json.loads((tmp_path / "run/results.json").read_text())["data"]
    assert data["name"].startswith("imagenet32-2016")
    assert "partial" in data["name"]
    assert data["train"]["images"] == 10
    assert data["name"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "small-cup"], "config 'small-cup': is neither a file nor a preset; did you mean 'small-cpu'"),
        (["decoder.atention_layers=4"], "unknown key 'decoder.atention_layers'; did you mean 'decoder.attention_la"),
        (["decoder.likelihood=gaussian"], "decoder.likelihood: Invalid value 'gaussian', expected one of"),
        (["decoder.attention_layers=9"], "attention_layers=9: must be 0 to num_layers=1"),
        (["data.levels=40"], "data.levels=40: sklearn-digits has 17; ask for at most as many"),
        (["data.levels=1"], "data.levels=1: must be 2 to 256"),
        (["prior.alpha_high=1.5"], "must be inside (-1, 1)"),
        (["optimization.batch_size=5000"], "training images do not fill one batch of batch_size=5000"),
        (["--data", "./no-such-folder"], "no-such-folder"),
        (["--data", "EMPTY"], "EMPTY"),
        (["--data", "BROKEN"], "1 of 21"),
        (["--data", "MIXED"], "data.size="),
        (["auxiliary_prior.fit_to=./nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("fresh_accelerator")
def test_what_a_user_gets_wrong_is_one_line(
    load_recipe: Callable[[str], ModuleType],
    tiny_images: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    write_images(tmp_path / "BROKEN", 20)
    (tmp_path / "BROKEN/100.png").write_bytes(b"not a picture")
    write_images(tmp_path / "MIXED/a", 4)
    write_images(tmp_path / "MIXED/b", 4, (6, 7))
    recipe = load_recipe("cifar10")
    overrides = [*tiny_images, *(argument for argument in arguments if "=" in argument)]
    options = [argument for argument in arguments if "=" not in argument]
    monkeypatch.setattr(sys, "argv", ["cifar10.py", *options, *overrides])
    parsed = recipe.parse_arguments()
    with pytest.raises(SystemExit) as stopped, recipe.one_line_errors():
        recipe.main(parsed)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "runs").exists(), "the corrected command would be told that there is a run"
