"""The models that experiments compare: what they commit, that a name is one model, and that the paper's sizes build."""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_lab.architecture import image_model_config, text_model_config
from delta_vae_lab.configuration import check_config, flatten
from delta_vae_lab.data import train_tokenizer
from delta_vae_lab.experiments import figure_4
from delta_vae_lab.experiments.image_models import HIGH, LOW, committed_nats, independent_delta_vae
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.trials import CONFIGS, Preset, Trial

RECIPES = Path(__file__).parents[2] / "recipes/configs"
IMAGES = ("table_1", "table_3", "table_6", "figure_4", "collapse", "fixed_z")
TEXT = ("text", "text_collapse")
DIGITS, SMALL, PAPER = Preset("digits", "small", "x"), Preset("images", "small", "x"), Preset("images", "paper", "x")


def committed_bits(rows: int, latent_dim: int, low: float, high: float) -> float:
    """Razavi et al. 2019, section 2.1: 1/2 sum_k [(T - 2) log2(1 + a_k^2) - log2(1 - a_k^2)]."""
    a = np.linspace(low, high, latent_dim)
    return float(0.5 * ((rows - 2) * np.log2(1 + a * a) - np.log2(1 - a * a)).sum())


class _Captured(Exception):  # noqa: N818 - no error
    """What an experiment was about to train."""


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The trials of an experiment, none of them trained."""

    def capture(todo: list[Trial], jobs: int) -> None:
        raise _Captured(todo)

    def of(name: str, scale: str) -> list[Trial]:
        module = import_module(f"delta_vae_lab.experiments.{name}")
        where = import_module("delta_vae_lab.experiments.collapse") if name == "text_collapse" else module
        for needed in ("image_references", "_teach"):  # they read the data
            monkeypatch.setattr(where, needed, lambda *_: None, raising=False)
        monkeypatch.setattr(where, "run_trials", capture)
        with pytest.raises(_Captured) as captured:
            module.run(Request(scale, (0,), tmp_path))
        todo: list[Trial] = captured.value.args[0]
        return todo

    return of


def test_the_delta_vaes_of_images_commit_the_papers_rates() -> None:
    """79.447 bits at the low rate, .0259 bits/dim; and 666.63, .217 bits/dim. Razavi et al. 2019, table 6: .03, .22."""
    for family, rows in (("images", 32), ("digits", 8)):
        preset = Preset(family, "small", "x")
        for latent_dim, low, high in (LOW[family], HIGH[family]):
            bits = committed_nats(preset, latent_dim, low, high) / math.log(2)
            assert bits == pytest.approx(committed_bits(rows, latent_dim, low, high))
    assert committed_nats(SMALL, *LOW["images"]) / math.log(2) == pytest.approx(79.447, abs=5e-4)
    assert committed_nats(SMALL, *HIGH["images"]) / math.log(2) == pytest.approx(666.63, abs=5e-3)
    assert committed_nats(SMALL, *LOW["images"]) == committed_nats(SMALL, *LOW["images"])


@pytest.mark.parametrize("preset", [DIGITS, SMALL, PAPER], ids=lambda preset: f"{preset.family}-{preset.scale}")
def test_the_independent_delta_vae_commits_the_low_rate(preset: Preset) -> None:
    """To the digits of its delta, which is shared out evenly: delta nats a step and dimension."""
    ((_, overrides),) = independent_delta_vae(preset).items()
    prior = preset.config(overrides).prior
    rows = {"digits": 8, "images": 32}[preset.family]
    assert prior.kind == "independent_delta"
    assert prior.delta * rows * prior.latent_dim == pytest.approx(
        committed_nats(preset, *LOW[preset.family]), abs=5e-7 * 256
    )
    assert prior.delta * rows * prior.latent_dim / math.log(2) == pytest.approx(
        committed_bits(rows, *LOW[preset.family]), rel=1e-5
    )


@pytest.mark.parametrize("preset", [DIGITS, SMALL, PAPER], ids=lambda preset: f"{preset.family}-{preset.scale}")
def test_free_bits_are_given_what_the_delta_vaes_commit(preset: Preset) -> None:
    """Model by model, as a floor a step and dimension; their names tell the bits."""
    models = {name: preset.config(overrides) for name, overrides in figure_4.rivals(preset).items()}
    rows = {"digits": 8, "images": 32}[preset.family]
    ours = [config.prior for name, config in models.items() if name.startswith("delta-vae-")]
    floors = {name: config for name, config in models.items() if name.startswith("free-bits-")}
    assert len(ours) == len(floors) == {"small": 4, "paper": 5}[preset.scale]
    for prior, (name, config) in zip(ours, floors.items(), strict=True):
        bits = committed_bits(rows, prior.latent_dim, prior.alpha_low, prior.alpha_high)
        assert config.objective.per == "dimension"
        floor_bits = config.objective.floor_nats * rows * config.prior.latent_dim / math.log(2)
        assert floor_bits == pytest.approx(bits, rel=1e-4)
        assert name == f"free-bits-{bits:.1f}-bits"


@pytest.mark.parametrize(
    ("ours", "recipe"), [("images", "cifar10/ablation-low.yaml"), ("text", "lm1b/base.yaml")], ids=["images", "text"]
)
def test_the_papers_sizes_are_those_of_the_recipes(ours: str, recipe: str) -> None:
    """Byte for byte."""
    assert (CONFIGS / ours / "paper.yaml").read_bytes() == (RECIPES / recipe).read_bytes()


@pytest.mark.parametrize("name", IMAGES)
def test_image_models_of_the_papers_sizes_build(name: str, planned: Any) -> None:
    todo = planned(name, "paper")
    assert len({trial.name for trial in todo}) == len(todo) > 1
    for trial in todo:
        check_config(trial.config)
        assert trial.config.data.name == "uoft-cs/cifar10"
        config = image_model_config(trial.config, (3, 32, 32), 256)
        with torch.device("meta"):
            model = DeltaVaeForImageGeneration(config)
        assert sum(parameter.numel() for parameter in model.decoder.parameters()) > 1e6, trial.name
        assert (model.encoder is None) == (trial.name == "without-latents")


@pytest.mark.parametrize("name", TEXT)
def test_text_models_of_the_papers_sizes_build(name: str, planned: Any) -> None:
    tokenizer = train_tokenizer(iter(["a cat sat", "on a mat"] * 10), 265)
    todo = planned(name, "paper")
    assert len({trial.name for trial in todo}) == len(todo) > 1
    for trial in todo:
        check_config(trial.config)
        assert trial.config.data.name == "billion-word-benchmark/lm1b"
        with torch.device("meta"):
            model = DeltaVaeForCausalLM(text_model_config(trial.config, tokenizer))
        assert sum(parameter.numel() for parameter in model.decoder.parameters()) > 1e7, trial.name
        assert (model.encoder is None) == (trial.name == "without-latents")


@pytest.mark.parametrize("scale", ["smoke", "small", "paper"])
def test_a_name_is_one_model_whatever_asks_for_it(scale: str, planned: Any) -> None:
    """So that an experiment may take the trials of another. And two names are two models."""
    for names in (IMAGES, TEXT):
        configs: dict[str, Any] = {}
        for trial in (trial for name in names for trial in planned(name, scale)):
            config = flatten(trial.config)
            assert configs.setdefault(trial.name, config) == config, trial.name
        distinct = {repr(sorted(config.items(), key=str)) for config in configs.values()}
        assert len(distinct) == len(configs)
