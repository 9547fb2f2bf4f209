"""The plan: counted once and committed, by formulas that hold, and shown on the page as it is."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.plan import PAGE, RESULTS, Assumptions, project, put, tables
from delta_vae import DeltaVaeForImageGeneration
from delta_vae_lab.architecture import image_model_config
from delta_vae_lab.configuration import load_config
from delta_vae_lab.sections import ImageRunConfig, TextRunConfig

RECIPES = PAGE.parents[1] / "recipes/configs"
RESULT: dict[str, Any] = json.loads(RESULTS.read_text())
TEXT, IMAGES = RESULT["counted"]
ASSUMED = Assumptions(**RESULT["assumptions"])


def test_the_page_shows_what_was_counted() -> None:
    assert put(PAGE.read_text(), tables(RESULT)) == PAGE.read_text()


@pytest.mark.parametrize(
    ("counted", "kind", "file"),
    [(TEXT, TextRunConfig, "lm1b/base.yaml"), (IMAGES, ImageRunConfig, "imagenet32/large.yaml")],
)
def test_the_plan_is_of_the_presets_as_they_are(counted: dict[str, Any], kind: Any, file: str) -> None:
    settings = load_config(kind, RECIPES / file).optimization
    planned = (counted["steps"], counted["examples"], counted["accumulation"])
    assert planned == (settings.steps, settings.batch_size, settings.accumulation)


def test_the_operations_of_text_are_those_of_the_formula() -> None:
    """12 H^2 weights a token and block, half of the square of attention; thrice forward."""
    H, V, layers, D, L = 512, 32_000, 6, 2, 32
    block = 2 * L * 12 * H**2 + 2 * 2 * L * L * H // 2
    over_latents = 2 * L * (2 * H**2 + 2 * H * D) + 2 * 2 * L * L * H // 2
    heads = 2 * L * H * V + 2 * L * H * 2 * D + 2 * L * 256 * 2 * D  # tokens, statistics, the auxiliary prior's
    assert TEXT["operations"] == 3 * (layers * (2 * block + over_latents) + heads)


def test_the_parameters_of_images_are_those_of_the_model() -> None:
    config = image_model_config(load_config(ImageRunConfig, RECIPES / "imagenet32/large.yaml"), (3, 32, 32), 256)
    with torch.device("meta"):
        model = DeltaVaeForImageGeneration(config)
    assert IMAGES["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_time_is_operations_over_what_the_gpus_do() -> None:
    alone = project(TEXT, 1, ASSUMED)
    operations = TEXT["operations"] * 512 * 300_000
    assert alone["hours"] * 3600 == pytest.approx(operations / (0.25 * 989e12))
    free = replace(ASSUMED, overlap=1.0)
    assert project(TEXT, 64, free)["gpu_hours"] == pytest.approx(alone["gpu_hours"])
    assert project(TEXT, 8, ASSUMED, recomputed=True)["hours"] < 4 / 3 * project(TEXT, 8, ASSUMED)["hours"]


def test_an_exchange_moves_each_gradient_twice_but_for_ones_own_part() -> None:
    slow, free = ASSUMED, replace(ASSUMED, overlap=1.0)
    seconds = (project(TEXT, 64, slow)["hours"] - project(TEXT, 64, free)["hours"]) * 3600 / TEXT["steps"]
    assert seconds == pytest.approx(2 * 63 / 64 * 4 * TEXT["parameters"] / slow.network_bandwidth)


def test_memory_is_five_numbers_a_parameter_and_the_activations_of_the_rows() -> None:
    for gpus, rows in ((1, 256), (8, 32), (64, 4)):
        expected = 20 * IMAGES["parameters"] + rows * IMAGES["activations"]
        assert project(IMAGES, gpus, ASSUMED)["memory_bytes"] == expected


def test_files_that_do_not_divide_are_read_by_every_process() -> None:
    per_second = project(TEXT, 8, ASSUMED)["examples_per_second"] * TEXT["example_bytes"]
    assert project(TEXT, 8, ASSUMED)["read_bytes"] == pytest.approx(per_second)
    assert project(TEXT | {"files": 96}, 8, ASSUMED)["read_bytes"] == pytest.approx(per_second / 8)
