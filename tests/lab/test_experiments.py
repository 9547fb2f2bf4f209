"""`delta-vae reproduce` of images, on the digits at its smallest: a result is what was measured, of what it says.

All targets share a folder, as a user's do, and so their trials. Nothing is claimed of models of two steps.
"""

import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from delta_vae import DeltaVaeForImageGeneration
from delta_vae_core.versions import FORMAT_KEY, VERSION_KEY
from delta_vae_lab import experiments
from delta_vae_lab.cli import app
from delta_vae_lab.data import heldout_image_batches
from delta_vae_lab.evaluation import evaluate, evaluate_bound
from delta_vae_lab.experiments.request import Request

Result = dict[str, Any]
Reproduced = Callable[[str], tuple[Result, str]]

LOW, HIGH = "delta-vae-4-dims-alpha-0.5-0.95", "delta-vae-4-dims-alpha-0.9-0.99"
RIVALS = ["free-bits-5.6-bits", "beta-normal-0.5", "beta-lstm-0.5", "beta-lstm-1", "linear-annealing"]
RIVALS += ["cyclical-annealing", "ordinary-vae", "without-latents"]
MODELS = {
    "table-1": [LOW, "ordinary-vae", "without-latents"],
    "table-3": [LOW, "independent-delta-vae"],
    "table-6": [LOW, HIGH, f"{LOW}-non-causal", f"{HIGH}-non-causal"],
    "figure-4": ["delta-vae-2-dims-alpha-0.5-0.95", *RIVALS],
    "collapse": [LOW, "ordinary-vae", "ordinary-vae-non-causal"],
    "fixed-z": [HIGH, LOW, "ordinary-vae"],
}
FIGURES = {"figure-4": ["rate_distortion", "probe"], "collapse": ["curves"], "fixed-z": ["grids"]}
PROBED = ("table-1", "table-3", "figure-4")
SEEDS = {"table-1": (0, 1), "fixed-z": (1, 0)}  # the others: 0
NAMES = [pytest.param(name, id=name) for name in MODELS]


def committed_nats(*alphas: float, rows: int = 8) -> float:
    """Razavi et al. 2019, section 2.1: 1/2 sum_k [(T - 2) ln(1 + a_k^2) - ln(1 - a_k^2)]."""
    return sum(0.5 * ((rows - 2) * math.log(1 + a * a) - math.log(1 - a * a)) for a in alphas)


NORMAL = {"prior.kind": "standard_normal"}
NON_CAUSAL = {"encoder.direction": "none", "decoder.latent_attention": "full"}
OF_LOW = {"prior.latent_dim": 4}
OF_HIGH = {"prior.latent_dim": 4, "prior.alpha_low": 0.9, "prior.alpha_high": 0.99}
# Models by what distinguishes them from the preset: 2 dimensions, alpha .5 and .95, 2 steps.
OVERRIDES: dict[str, dict[str, Any]] = {
    LOW: OF_LOW,
    HIGH: OF_HIGH,
    f"{LOW}-non-causal": OF_LOW | NON_CAUSAL,
    f"{HIGH}-non-causal": OF_HIGH | NON_CAUSAL,
    "independent-delta-vae": {
        "prior.kind": "independent_delta",
        "prior.latent_dim": 4,
        "prior.delta": pytest.approx(committed_nats(0.5, 0.65, 0.8, 0.95) / (8 * 4), abs=1e-6),
    },
    "ordinary-vae": NORMAL,
    "ordinary-vae-non-causal": NORMAL | NON_CAUSAL,
    "without-latents": {"prior.kind": "none"},
    "delta-vae-2-dims-alpha-0.5-0.95": {},
    "free-bits-5.6-bits": NORMAL
    | {
        "objective.name": "free_bits",
        "objective.floor_nats": pytest.approx(committed_nats(0.5, 0.95) / (8 * 2), abs=1e-6),
    },
    "beta-normal-0.5": NORMAL | {"objective.name": "beta", "objective.beta": 0.5},
    "beta-lstm-0.5": {"prior.kind": "lstm", "objective.name": "beta", "objective.beta": 0.5},
    "beta-lstm-1": {"prior.kind": "lstm"},
    "linear-annealing": NORMAL | {"objective.annealing": "linear", "objective.annealing_steps": 1},
    "cyclical-annealing": NORMAL | {"objective.annealing": "cyclical", "objective.annealing_steps": 2},
}


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("digits")


@pytest.fixture(scope="module")
def reproduced(output: Path) -> Reproduced:
    """Run a target, the first time that it is asked for."""

    @cache
    def of(name: str) -> tuple[Result, str]:
        return experiments.reproduce(name, Request("smoke", SEEDS.get(name, (0,)), output))

    return of


def on_disk(name: str, output: Path) -> Result:
    result: Result = json.loads((output / f"{name}-sklearn-digits.json").read_text())
    return result


@pytest.mark.parametrize("name", NAMES)
def test_a_result_says_what_it_is_of(name: str, reproduced: Reproduced, output: Path) -> None:
    result, table = reproduced(name)
    assert on_disk(name, output) == result
    seeds = SEEDS.get(name, (0,))
    assert (result["experiment"], result["scale"], result["seeds"]) == (name, "smoke", list(seeds))
    assert {"command", "commit", "device"} <= result.keys()
    assert result["versions"]["torch"] == torch.__version__
    assert {"python", "delta-vae", "scikit-learn"} < result["versions"].keys()

    levels = load_digits().images[:, None].astype(np.uint8)
    for split, images in (("train", levels[:1415]), ("heldout", levels[1415:])):
        assert result["data"][split] == {"images": len(images), "sha256": sha256(images.tobytes()).hexdigest()}
    assert (result["data"]["name"], result["data"]["levels"]) == ("sklearn-digits", 17)
    assert result["preset"] == {"family": "digits", "scale": "smoke", "data": "sklearn-digits"}

    runs = result["runs"]
    assert [(run["model"], run["seed"]) for run in runs] == [(model, seed) for seed in seeds for model in MODELS[name]]
    for run in runs:
        assert {"commit", "device", "parameters"} < run.keys()
        assert run["training_seconds"] > 0
        assert (run["heldout"]["images"], run["train"]["images"]) == (16, 16)
        assert [point["step"] for point in run["curve"]] == [1, 2]
        assert bool(run["probe"]) == (name in PROBED and run["model"] != "without-latents")
    assert all(any(line.startswith(f"{model}  ") for line in table.splitlines()) for model in MODELS[name])


@pytest.mark.parametrize("name", NAMES)
def test_models_differ_from_the_preset_by_their_overrides_alone(
    name: str, reproduced: Reproduced, output: Path
) -> None:
    result, _ = reproduced(name)
    for run in result["runs"]:
        assert run["overrides"] == OVERRIDES[run["model"]], run["model"]
        folder = output / "models" / f"digits-{run['model']}-seed-{run['seed']}"
        sections = yaml.safe_load((folder / "config.yaml").read_text())
        trained = {
            f"{section}.{key}" if isinstance(values, dict) else section: value
            for section, values in sections.items()
            for key, value in (values.items() if isinstance(values, dict) else [("", values)])
            if section not in (VERSION_KEY, FORMAT_KEY)
        }
        assert trained == result["config"] | run["overrides"] | {"data.name": "builtin", "seed": run["seed"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_csv_has_a_row_a_run_of_the_same_numbers(name: str, reproduced: Reproduced, output: Path) -> None:
    result, _ = reproduced(name)
    with (output / f"{name}-sklearn-digits.csv").open() as file:
        rows = list(csv.DictReader(file))
    parts = ("heldout", "train", "probe", "fixed_z")
    for run, row in zip(result["runs"], rows, strict=True):
        assert (row.pop("model"), int(row.pop("seed"))) == (run["model"], run["seed"])
        numbers = {
            f"{part}_{key}": value
            for part in parts
            for key, value in run.get(part, {}).items()
            if isinstance(value, int | float)
        }
        assert {key: float(value) for key, value in row.items() if value} == numbers


@pytest.mark.parametrize("name", NAMES)
def test_table_and_figures_follow_from_the_json_alone(name: str, reproduced: Reproduced, output: Path) -> None:
    _, table = reproduced(name)
    written = on_disk(name, output)
    assert experiments.render_experiment(written) == table
    names = [f"{name}-sklearn-digits-{figure}" for figure in FIGURES.get(name, [])]
    assert list(experiments.experiment_figures(written)) == names
    files = {file.name for file in output.glob(f"figures/{name}-*")}
    assert files == {f"{figure}.{kind}" for figure in names for kind in ("png", "svg")}
    for figure in names:
        with Image.open(output / "figures" / f"{figure}.png") as picture:
            assert picture.width > 400
            assert np.asarray(picture.convert("L")).std() > 5, "not a blank page"


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_a_run_are_those_of_its_saved_model(name: str, reproduced: Reproduced, output: Path) -> None:
    """The models are read back and judged anew, in other batches, on digits that come straight from scikit-learn."""
    result, _ = reproduced(name)
    levels = load_digits().images[:, None].astype(np.uint8)
    heldout, train = (list(heldout_image_batches(part[:16], 5)) for part in (levels[1415:], levels))
    for run in result["runs"]:
        folder = output / "models" / f"digits-{run['model']}-seed-{run['seed']}"
        model = DeltaVaeForImageGeneration.from_pretrained(folder / "model")
        assert sum(parameter.numel() for parameter in model.parameters()) == run["parameters"]
        again = evaluate(model, heldout, seed=run["seed"], importance_samples=2, importance_examples=4)
        assert again.keys() == run["heldout"].keys()
        again |= {f"train_{key}": value for key, value in evaluate_bound(model, train, seed=run["seed"]).items()}
        told = run["heldout"] | {f"train_{key}": value for key, value in run["train"].items()}
        for key in ("rate_nats", "committed_rate_nats", "distortion_nats", "auxiliary_rate_nats", "bits_per_dim"):
            for metric in {key, f"train_{key}"} & told.keys():
                assert told[metric] == pytest.approx(again[metric], rel=1e-5, abs=1e-6), (run["model"], metric)
        for metric in ("rate", "distortion"):
            at_last = run["curve"][-1][f"{metric}_nats"]
            assert at_last == pytest.approx(run["heldout"][f"{metric}_nats"], rel=1e-5), "the curve ends there"


def test_delta_vaes_commit_what_they_are_named_after(reproduced: Reproduced) -> None:
    runs = {
        run["model"]: run["heldout"]
        for name in ("table-3", "table-6", "figure-4")
        for run in reproduced(name)[0]["runs"]
    }
    low, high = committed_nats(0.5, 0.65, 0.8, 0.95), committed_nats(0.9, 0.93, 0.96, 0.99)
    of_two = committed_nats(0.5, 0.95)
    expected = {LOW: low, "independent-delta-vae": low, HIGH: high, "delta-vae-2-dims-alpha-0.5-0.95": of_two}
    for model, nats in expected.items():
        assert runs[model]["committed_rate_nats"] == pytest.approx(nats, rel=1e-5), model
        assert runs[model]["rate_nats"] >= nats - 1e-4, model
    assert runs["ordinary-vae"]["committed_rate_nats"] == 0
    assert f"{of_two / math.log(2):.1f}" == "5.6", "free bits are called after them"


def test_table_1_sets_a_model_beside_the_decoder_alone_of_its_seed(reproduced: Reproduced) -> None:
    result, table = reproduced("table-1")
    bound = {(run["model"], run["seed"]): run["heldout"] for run in result["runs"]}
    differences = [
        bound[LOW, seed]["auxiliary_bits_per_dim"] - bound["without-latents", seed]["bits_per_dim"] for seed in (0, 1)
    ]
    expected = f"{np.mean(differences):.4f} ± {np.std(differences, ddof=1) / math.sqrt(2):.4f}"
    (row,) = [line for line in table.splitlines() if line.startswith(LOW)]
    assert re.split(r"  +", row)[5] == expected
    assert "± standard error over seeds." in table


def test_references_are_those_of_the_digits(reproduced: Reproduced) -> None:
    """Held out are the first 16; 3 is the commonest of the training classes."""
    classes = load_digits().target
    commonest = np.bincount(classes[:1415]).argmax()
    for name in PROBED:
        result, table = reproduced(name)
        told = result["references"]
        assert told["majority_accuracy"] == np.mean(classes[1415:1431] == commonest)
        assert 0.8 < told["pixels_accuracy"] <= 1
        assert f"{told['pixels_accuracy']:.3f}" in table
        for run in result["runs"]:
            if run["probe"]:
                assert (run["probe"]["train_examples"], run["probe"]["heldout_examples"]) == (1415, 16)
                assert 0 <= run["probe"]["concatenated_sample_accuracy"] <= 1


def test_one_z_is_decoded_many_times(reproduced: Reproduced) -> None:
    """Four held-out digits; and for the first seed a grid, 8 decodings of each of 6 z, a white line between them."""
    result, _ = reproduced("fixed-z")
    for run in result["runs"]:
        told = run["fixed_z"]
        assert told["examples"] == 4
        assert told["class_kept"] * 32 == pytest.approx(round(told["class_kept"] * 32))
        assert told["variance_share"] < 0.3, "two steps teach no decoder to heed z"
        assert ("grid" in run) == (run["seed"] == 1)
        if "grid" in run:
            grid = np.asarray(Image.open(io.BytesIO(base64.b64decode(run["grid"]))))
            assert grid.shape == (6 * 9 - 1, 8 * 9 - 1)
            assert (grid[8::9] == 255).all()
            assert (grid[:, 8::9] == 255).all()
    assert len(experiments.experiment_figures(result)["fixed-z-sklearn-digits-grids"].axes) == 3


def test_collapse_is_counted_over_seeds(reproduced: Reproduced) -> None:
    """A model of two steps heeds no z: another's costs its decoder nothing that can be told."""
    result, table = reproduced("collapse")
    gaps = [(run["heldout"]["shuffle_gap_nats"], run["heldout"]["shuffle_gap_nats_stderr"]) for run in result["runs"]]
    assert all(gap <= max(3 * error, 0.1) for gap, error in gaps)
    assert table.count("1 of 1") == 3


def test_the_command_takes_what_is_there_and_prints_the_table(reproduced: Reproduced, output: Path) -> None:
    first, table = reproduced("table-3")
    arguments = ["reproduce", "table-3", "--scale", "smoke", "--seed", "0", "--output", str(output)]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert printed.stdout == f"{table}\n"
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert as_json.exit_code == 0, as_json.output
    assert json.loads(as_json.stdout) == on_disk("table-3", output)
    assert json.loads(as_json.stdout)["runs"] == first["runs"], "seconds of training among it"
