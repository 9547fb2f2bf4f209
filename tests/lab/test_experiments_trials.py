"""Trials: one that is finished is taken, one that was interrupted goes on, and another's is refused."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from datasets import ClassLabel, Dataset, Features, disable_progress_bars, enable_progress_bars
from datasets import Image as ImageFeature
from PIL import Image

from delta_vae_lab import experiments
from delta_vae_lab.experiments.request import Request
from delta_vae_lab.experiments.trials import (
    Preset,
    Trial,
    image_preset,
    outcome,
    run_trials,
    shared,
    text_preset,
    trials,
)

DIGITS = Preset("digits", "smoke", "builtin")


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()
    AcceleratorState._reset_state(reset_partial_state=True)


def digits(folder: Path, *overrides: str, seed: int = 0, probed: str | None = None) -> Trial:
    return Trial("model", DIGITS, overrides, seed, folder, probed)


def numbers(found: dict[str, Any]) -> dict[str, Any]:
    """All of an outcome but how long it took."""
    return {name: value for name, value in found.items() if name != "training_seconds"}


def test_a_finished_trial_is_taken_as_it_is(tmp_path: Path) -> None:
    trial = digits(tmp_path)
    found = outcome(trial)
    file = trial.run.path / "outcome.json"
    assert json.loads(file.read_text()) == found
    assert outcome(trial) == found
    planted = found | {"heldout": found["heldout"] | {"rate_nats": 123.0}}
    file.write_text(json.dumps(planted))
    written = file.stat().st_mtime_ns
    assert outcome(trial) == planted
    assert file.stat().st_mtime_ns == written


def test_another_trial_of_the_same_name_is_refused(tmp_path: Path) -> None:
    outcome(digits(tmp_path))
    with pytest.raises(
        ValueError, match=r"model-seed-0: holds another model; choose another output, or remove it"
    ) as error:
        outcome(digits(tmp_path, "prior.alpha_high=0.9"))
    assert "\n" not in str(error.value)
    shutil.rmtree(tmp_path / "digits-model-seed-0/checkpoints")
    (tmp_path / "digits-model-seed-0/outcome.json").unlink()
    with pytest.raises(ValueError, match=r"was started with another config; differing keys: prior.alpha_high") as error:
        outcome(digits(tmp_path, "prior.alpha_high=0.9"))
    assert "\n" not in str(error.value), "nor is one gone on with that was interrupted"


@pytest.mark.parametrize("lost", ["the report", "the last steps", "all steps"])
def test_an_interrupted_trial_comes_out_as_one_that_was_not(tmp_path: Path, lost: str) -> None:
    """With dropout, so that its draws must be the same too."""
    overrides = ("optimization.steps=4", "checkpoint.every=2", "decoder.dropout=0.2")
    whole, trial = outcome(digits(tmp_path / "whole", *overrides)), digits(tmp_path / "stopped", *overrides)
    assert numbers(outcome(trial)) == numbers(whole)
    (trial.run.path / "outcome.json").unlink()
    shutil.rmtree(trial.run.model)
    kept, last = (trial.run.checkpoints / f"step-0000000{step}" for step in (2, 4))
    for checkpoint in {"the report": [], "the last steps": [last], "all steps": [kept, last]}[lost]:
        shutil.rmtree(checkpoint)
    before = {path: path.stat().st_mtime_ns for path in trial.run.checkpoints.glob("*/progress.json")}
    again = outcome(trial)
    assert numbers(again) == numbers(whole)
    assert again["training_seconds"] is None, "the time of a part is not that of the whole"
    assert {path: path.stat().st_mtime_ns for path in before} == before, "no step is trained twice"
    assert sorted(trial.run.checkpoints.iterdir()) == [kept, last]


def test_a_trial_is_probed_later_without_being_trained_again(tmp_path: Path) -> None:
    found = outcome(digits(tmp_path))
    assert found["probe"] == {}
    weights = next((tmp_path / "digits-model-seed-0/checkpoints").glob("*/model.safetensors"))
    trained = weights.stat().st_mtime_ns
    probed = outcome(digits(tmp_path, probed="builtin"))
    assert weights.stat().st_mtime_ns == trained
    assert probed["probe"]["heldout_examples"] == 16
    assert probed["training_seconds"] == found["training_seconds"]
    alike = {"probe": None, "probed": None}
    assert probed | alike == found | alike
    assert numbers(outcome(digits(tmp_path))) | {"probed": None} == numbers(found), "not asked for, not told"


def test_a_seed_decides_everything_that_is_drawn(tmp_path: Path) -> None:
    first, second = outcome(digits(tmp_path, seed=0)), outcome(digits(tmp_path, seed=1))
    assert first["heldout"]["distortion_nats"] != second["heldout"]["distortion_nats"]
    assert numbers(outcome(digits(tmp_path / "again", seed=1))) == numbers(second)


@pytest.mark.slow
def test_two_at_a_time_give_the_numbers_of_one_after_the_other(tmp_path: Path) -> None:
    models = {"ours": ("prior.latent_dim=1",), "ordinary": ("prior.kind=standard_normal",)}
    found = []
    for jobs in (1, 2):
        todo = trials(Request("smoke", (0,), tmp_path / str(jobs)), DIGITS, models)
        found.append([numbers(one) for one in run_trials(todo, jobs)])
    assert found[0] == found[1]
    assert [one["model"] for one in found[0]] == ["ours", "ordinary"]


def test_colour_images_of_a_labelled_folder_are_trained_on_and_probed(tmp_path: Path) -> None:
    """Dark and bright 32 x 32 images, in the preset of such images cut down to two steps of a tiny model."""
    kinds = Features({"img": ImageFeature(), "label": ClassLabel(names=["dark", "bright"])})
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 12)):
        labels = [i % 2 for i in range(count)]
        pictures = [
            Image.fromarray((rng.integers(0, 100, (32, 32, 3)) + 150 * label).astype(np.uint8)) for label in labels
        ]
        (tmp_path / "pictures").mkdir(exist_ok=True)
        columns = {"img": pictures, "label": labels}
        Dataset.from_dict(columns, features=kinds).to_parquet(tmp_path / f"pictures/{split}.parquet")

    sizes = [
        f"{part}.{key}" for part in ("encoder", "decoder") for key in ("hidden_size=4", "num_layers=1", "num_heads=1")
    ]
    sizes += ["decoder.attention_layers=0", "decoder.components=1", "optimization.steps=2", "optimization.batch_size=4"]
    sizes += ["evaluation.every=1", "evaluation.examples=8", "evaluation.importance_samples=2"]
    request = Request("small", (0,), tmp_path, data=str(tmp_path / "pictures"))
    preset = image_preset(request)
    assert (preset.family, preset.scale) == ("images", "small")
    found = run_trials(trials(request, preset, {"tiny": sizes}, probed=preset.data), 1)
    (one,) = found
    assert one["data"]["name"] == "pictures"
    assert (one["data"]["train"]["images"], one["heldout"]["images"]) == (24, 8)
    assert (one["probe"]["train_examples"], one["probe"]["heldout_examples"]) == (24, 8)
    committed = sum(15 * np.log1p(a * a) - 0.5 * np.log1p(-a * a) for a in np.linspace(0.5, 0.95, 8))
    assert one["heldout"]["committed_rate_nats"] == pytest.approx(committed, rel=1e-5)
    result = shared(found, preset)
    assert result["preset"]["data"] == "pictures", "no path"
    expected = dict(text.split("=") for text in sizes)
    assert {key: str(value) for key, value in result["runs"][0]["overrides"].items()} == expected
    assert experiments.stem({**result, "experiment": "table-1"}) == "table-1-pictures"


def test_the_name_of_a_hub_data_set_is_no_folder() -> None:
    result = {"experiment": "table-1", "preset": {}, "data": {"name": "uoft-cs/cifar10"}}
    assert experiments.stem(result) == "table-1-uoft-cs-cifar10"


def test_what_data_a_scale_takes_by_itself(tmp_path: Path) -> None:
    def images(scale: str, data: str | None = None) -> Preset:
        return image_preset(Request(scale, (0,), tmp_path, data))

    assert images("small") == images("small", "builtin") == Preset("digits", "small", "builtin")
    assert images("paper") == Preset("images", "paper", "uoft-cs/cifar10")
    assert images("paper", "here") == Preset("images", "paper", "here")
    assert text_preset(Request("small", (0,), tmp_path)) == Preset("text", "small", "builtin")
    assert text_preset(Request("paper", (0,), tmp_path)) == Preset("text", "paper", "billion-word-benchmark/lm1b")
    assert text_preset(Request("paper", (0,), tmp_path, "here")).config().data.name == "here"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("figure-5", {}, r"reproduce 'figure-5': no such experiment; did you mean 'figure-[14]'\?"),
        ("everything", {}, r"reproduce 'everything': no such experiment; there are: figure-1, .*, slow-factor"),
        ("table-1", {"scale": "huge"}, r"scale='huge': table-1 has no such scale; choose from smoke, small, paper"),
        ("slow-factor", {"scale": "paper"}, r"scale='paper': slow-factor has no such scale; choose from smoke, small"),
        ("table-1", {"seeds": ()}, r"seeds=\[\]: give one or more, each once"),
        ("text", {"seeds": (1, 2, 1)}, r"seeds=\[1, 2, 1\]: give one or more, each once"),
        ("collapse", {"jobs": 0}, r"jobs=0: train 1 or more models at a time"),
        ("table-1", {"data": "sentences"}, r"sentences holds no training images; give it image files"),
        ("collapse", {"data": "sentences"}, r"sentences holds no training images; give it image files"),
        ("text", {"data": "pictures"}, r"pictures holds no training text; give it"),
        ("text", {"probe_data": "pictures"}, r"data '.*pictures' has no labels; give"),
        ("figure-4", {"data": "pictures"}, r"data '.*pictures' has no labels; give the built-in digits, or a folder"),
        ("fixed-z", {"data": "pictures"}, r"data '.*pictures' has no labels; give the built-in digits, or a folder"),
        ("collapse", {"data": "absent/folder/here"}, r"absent/folder/here': no such file or folder"),
        ("collapse", {"data": "pictures", "scale": "smoke"}, r"scale smoke is of the built-in digits alone; choose"),
        ("figure-1", {"data": "pictures"}, r"data='.*pictures': of no use to figure-1; leave it out"),
        ("slow-factor", {"jobs": 2}, r"jobs=2: of no use to slow-factor; leave it out"),
        ("table-1", {"probe_data": "sentences"}, r"probe_data='.*sentences': of no use to table-1; leave it out"),
        (
            "collapse",
            {"data": "wide"},
            r"wide': has images of 16 rows, and the rates of this experiment are those of 32",
        ),
        ("collapse", {"data": "builtin", "scale": "paper"}, r"data='builtin': the paper's sizes are of 32 x 32 images"),
    ],
)
def test_what_cannot_be_reproduced_is_refused_in_one_line(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    for folder in ("sentences", "pictures", "wide"):
        (tmp_path / folder).mkdir()
    (tmp_path / "sentences/train.txt").write_text("a cat sat\non a mat\n" * 20)
    for number in range(40):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"pictures/{number:02}.png")
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"wide/{number:02}.png")
    settings: dict[str, Any] = {"scale": "small", "seeds": (0,), "output": tmp_path / "out"} | changes
    for key in {"data", "probe_data"} & changes.keys():
        settings[key] = str(tmp_path / changes[key]) if (tmp_path / changes[key]).exists() else changes[key]
    with pytest.raises(ValueError, match=message) as error:
        experiments.reproduce(name, Request(**settings))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").rglob("*.*")), "nothing is written"
