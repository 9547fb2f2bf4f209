"""`delta-vae reproduce text` and `text-collapse` at their smallest, on the built-in text, with labelled sentences."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars, enable_progress_bars

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab import experiments
from delta_vae_lab.data import heldout_batches, load_text, load_tokenizer, tokenize
from delta_vae_lab.evaluation import evaluate, evaluate_bound
from delta_vae_lab.experiments.request import Request

Result = dict[str, Any]
WITH_LATENTS = ["delta-vae", "delta-vae-warm-up", "ordinary-vae"]
NON_CAUSAL = {"encoder.direction": "none", "decoder.latent_attention": "full"}
OVERRIDES: dict[str, dict[str, Any]] = {
    "delta-vae": {},
    "delta-vae-warm-up": {"objective.annealing": "linear", "objective.annealing_steps": 1},
    "ordinary-vae": {"prior.kind": "standard_normal"},
    "ordinary-vae-non-causal": {"prior.kind": "standard_normal"} | NON_CAUSAL,
    "without-latents": {"prior.kind": "none"},
}


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module", autouse=True)
def _no_progress_bars() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """So many labelled sentences and half as many held out, of which the first word tells the class."""

    def write(count: int) -> str:
        folder = tmp_path_factory.mktemp("labelled") / f"reviews-{count}"
        folder.mkdir()
        kinds = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
        for split, size in (("train", count), ("test", count // 2)):
            labels = [i % 2 for i in range(size)]
            texts = [f"{'good' if label else 'bad'} film, number {i}" for i, label in enumerate(labels)]
            columns = {"text": texts, "label": labels}
            Dataset.from_dict(columns, features=kinds).to_parquet(folder / f"{split}.parquet")
        return str(folder)

    return write


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory, reviews: Callable[[int], str]) -> Request:
    return Request("smoke", (0,), tmp_path_factory.mktemp("text"), probe_data=reviews(40))


@pytest.fixture(scope="module")
def reproduced(request_: Request) -> tuple[Result, str]:
    return experiments.reproduce("text", request_)


def judged_again(run: Result, output: Path) -> tuple[Result, Result]:
    """The saved model's estimates of the first 16 held-out sentences, and of as many training sentences."""
    folder = output / "models" / f"text-{run['model']}-seed-0" / "model"
    model, tokenizer = DeltaVaeForCausalLM.from_pretrained(folder), load_tokenizer(str(folder))
    text = load_text("builtin")
    assert isinstance(text.train, list)
    words = sum(len(sentence.split()) + 1 for sentence in text.heldout[:16])
    heldout, train = (
        list(heldout_batches(tokenize(tokenizer, part[:16], max_length=192), 5, tokenizer.pad_token_id))
        for part in (text.heldout, text.train)
    )
    estimates = evaluate(model, heldout, words=words, seed=0, importance_samples=2, importance_examples=4)
    return estimates, evaluate_bound(model, train, seed=0)


def test_numbers_are_those_of_the_saved_models(reproduced: tuple[Result, str], request_: Request) -> None:
    result, table = reproduced
    output = request_.output
    stem = output / "text-cpython-language-reference"
    assert json.loads(stem.with_suffix(".json").read_text()) == result
    assert [run["model"] for run in result["runs"]] == [*WITH_LATENTS, "without-latents"]
    assert result["data"] == {"name": "cpython-language-reference", **load_text("builtin").fingerprint}
    with stem.with_suffix(".csv").open() as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    for run in result["runs"]:
        assert run["overrides"] == OVERRIDES[run["model"]]
        heldout, train = judged_again(run, output)
        assert heldout.keys() == run["heldout"].keys()
        for told, again in ((run["heldout"], heldout), (run["train"], train)):
            assert (told["sentences"], told.keys()) == (16, again.keys())
            for key in {"rate_nats", "committed_rate_nats", "distortion_nats", "auxiliary_rate_nats"} & told.keys():
                assert told[key] == pytest.approx(again[key], rel=1e-5, abs=1e-6), (run["model"], key)
        assert run["heldout"]["perplexity_per_word"] == pytest.approx(heldout["perplexity_per_word"], rel=1e-5)
        assert float(rows[run["model"]]["heldout_rate_nats"]) == run["heldout"]["rate_nats"]
        cells = re.split(r"  +", next(line for line in table.splitlines() if line.startswith(f"{run['model']}  ")))
        assert cells[1] == f"{run['heldout']['nats_per_token']:.3f}"
        assert cells[3] == f"{run['heldout']['rate_nats']:.3f}"
    assert "cpython-language-reference, 16 held-out sentences, 2 steps, seed 0" in table


def test_models_with_latents_write_samples_and_ways(reproduced: tuple[Result, str]) -> None:
    result, table = reproduced
    assert list(result["texts"]) == [*WITH_LATENTS, "without-latents"]
    for model, texts in result["texts"].items():
        samples = [paragraphs for what, paragraphs in texts.items() if what.startswith("samples, ")]
        assert [len(paragraphs) for paragraphs in samples] == ([6] if model == "without-latents" else [6, 6])
        ways = [paragraphs for what, paragraphs in texts.items() if what.startswith("from one z ")]
        assert len(ways) == (model != "without-latents")
        for way in (way for ways_of_model in ways for way in ways_of_model):
            assert [line.split("  ")[0] for line in way] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
        for what, paragraphs in texts.items():
            assert f"{model}, seed 0: {what}" in table
            assert f"  {paragraphs[-1][-1]}".rstrip() in table
    assert experiments.render_experiment(json.loads(json.dumps(result))) == table


def test_probes_are_of_the_labelled_data_that_is_given(
    reproduced: tuple[Result, str], request_: Request, reviews: Callable[[int], str]
) -> None:
    """Trials are not trained again for other labels, nor are another's accuracies taken for these."""
    result, table = reproduced
    models = request_.output / "models"
    trained = {file: file.stat().st_mtime_ns for file in models.glob("*/checkpoints/*/model.safetensors")}
    assert len(trained) == 4

    def examples(found: Result) -> list[int | None]:
        return [run["probe"].get("train_examples") for run in found["runs"]]

    assert examples(result) == [40, 40, 40, None]
    assert result["references"]["data"] == "reviews-40"
    assert (result["references"]["bag_of_words_accuracy"], result["references"]["majority_accuracy"]) == (1, 0.5)
    assert "Probes of reviews-40, mean over steps; words: 1.000, the commonest class: 0.500." in table

    other, _ = experiments.reproduce("text", replace(request_, probe_data=reviews(60)))
    assert examples(other) == [60, 60, 60, None]
    assert other["references"]["data"] == "reviews-60"
    without, table = experiments.reproduce("text", replace(request_, probe_data=None))
    assert examples(without) == [None] * 4
    assert "references" not in without
    assert "Probes of" not in table
    for found in (other, without):
        assert found["texts"] == result["texts"], "the same models, the same draws"
        for run, first in zip(found["runs"], result["runs"], strict=True):
            assert {**run, "probe": {}, "commit": None} == {**first, "probe": {}, "commit": None}
    assert {file: file.stat().st_mtime_ns for file in trained} == trained


def test_collapse_on_sentences(reproduced: tuple[Result, str], request_: Request) -> None:
    result, table = experiments.reproduce("text-collapse", replace(request_, probe_data=None))
    written = json.loads((request_.output / "text-collapse-cpython-language-reference.json").read_text())
    assert written == result
    runs = {run["model"]: run for run in result["runs"]}
    assert {model: run["overrides"] for model, run in runs.items()} == {
        model: OVERRIDES[model] for model in ("delta-vae", "ordinary-vae", "ordinary-vae-non-causal")
    }
    shared = {run["model"]: run["heldout"] for run in reproduced[0]["runs"]}
    assert runs["delta-vae"]["heldout"] == shared["delta-vae"], "one trial of two targets"
    heldout, _ = judged_again(runs["ordinary-vae-non-causal"], request_.output)
    assert runs["ordinary-vae-non-causal"]["heldout"]["rate_nats"] == pytest.approx(heldout["rate_nats"], rel=1e-5)
    assert table.count("1 of 1") == 3, "two steps teach no decoder to heed z"
    assert list(experiments.experiment_figures(written)) == ["text-collapse-cpython-language-reference-curves"]
    assert (request_.output / "figures/text-collapse-cpython-language-reference-curves.svg").exists()
