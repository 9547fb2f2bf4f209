"""The LM1B recipe as a user runs it: its run folder and its errors."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from accelerate import Accelerator
from huggingface_hub import ModelCard
from transformers import PreTrainedTokenizerFast

from delta_vae import DeltaVaeForCausalLM
from delta_vae_lab import text_run
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data import TextSplits, train_tokenizer
from delta_vae_lab.run_folder import RunFolder
from delta_vae_lab.sections import TextRunConfig
from delta_vae_lab.text_run import run_tokenizer, text_fingerprint

ROOT = Path(__file__).parents[2]
PRESETS = ROOT / "recipes/configs/lm1b"


def test_the_run_folder_is_complete(place: Path) -> None:
    run = place / "runs/lm1b-quickstart"
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
    assert yaml.safe_load((run / "config.yaml").read_text())["optimization"]["steps"] == 6
    assert {path.stem for path in (run / "figures").glob("*.png")} == {
        "rate_by_position",
        "rate_by_step_and_dimension",
        "training",
    }
    assert {path.stem for path in (run / "samples").iterdir()} == {
        "interpolations",
        "reconstructions",
        "samples_auxiliary",
        "samples_prior",
    }
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 3, 4, 6, 6]


def test_results_say_what_was_measured_and_how(place: Path) -> None:
    results = json.loads((place / "runs/lm1b-quickstart/results.json").read_text())
    assert results["data"]["name"] == "cpython-language-reference"
    assert len(results["data"]["heldout"]["sha256"]) == 64
    assert results["seed"] == 0
    assert "lm1b.py --config quickstart" in results["command"]
    metrics = results["metrics"]
    assert metrics["sentences"] == 24
    estimates = [name for name in metrics if f"{name}_stderr" in metrics]
    assert {
        "rate_nats",
        "slack_nats",
        "auxiliary_rate_nats",
        "distortion_nats",
        "negative_elbo_nats",
        "importance_weighted_nll_nats",
        "mutual_information_nats",
        "shuffle_gap_nats",
        "perplexity_per_token",
        "perplexity_per_word",
    } <= set(estimates)
    assert metrics["smallest_batch_slack_nats"] > -1e-3
    assert metrics["rate_nats"] + metrics["distortion_nats"] == pytest.approx(metrics["negative_elbo_nats"])
    assert math.log(metrics["perplexity_per_token"]) == pytest.approx(metrics["nats_per_token"])


def test_it_ends_with_a_table_and_a_plain_sentence(place: Path) -> None:
    printed = (place / "lm1b.txt").read_text()
    assert re.search(r"rate, training prior +\d", printed)
    assert re.search(r"^(Collapsed|Not collapsed): .* nats", printed, re.MULTILINE)


def test_the_card_says_what_results_say_and_its_code_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    card = ModelCard.load(place / "runs/lm1b-quickstart/model/README.md")
    results = json.loads((place / "runs/lm1b-quickstart/results.json").read_text())
    assert card.data.library_name == "transformers"
    listed = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert listed["rate_nats"] == results["metrics"]["rate_nats"]
    assert results["commit"] is None or results["commit"] in card.text
    assert re.search(r"\*\*Is it collapsed\?\*\* (Collapsed|Not collapsed)", card.text)
    assert "{{" not in card.text
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    exec(compile(code, "card", "exec"), {})


def test_every_preset_is_a_valid_config() -> None:
    names = {path.stem for path in PRESETS.glob("*.yaml")}
    assert names == {"base", "quickstart", "small"}
    for name in names:
        load_config(TextRunConfig, name, presets=PRESETS)


@pytest.fixture(scope="module")
def recipe(load_recipe: Callable[[str], ModuleType]) -> ModuleType:
    return load_recipe("lm1b")


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "quikstart"], "config 'quikstart': is neither a file nor a preset; did you mean 'quickstart'"),
        (["encoder.hiden_size=4"], "unknown key 'encoder.hiden_size'; did you mean 'encoder.hidden_size'"),
        (["optimization.steps=many"], "optimization.steps"),
        (["optimization.learning_rate=-1"], "optimization.learning_rate=-1.0: must be greater than 0"),
        (["prior.alpha=[0.5]"], "has 1 values for prior.latent_dim=2"),
        (["prior.alpha=[0.5,1.5]"], "prior.alpha=[0.5, 1.5]: each must be inside (-1, 1)"),
        (["prior.alpha=null", "prior.committed_bits=400", "prior.steps=4"], "needs alpha="),
        (["encoder.num_heads=5"], "hidden_size=16: use a multiple of num_heads=5"),
        (["max_length=5"], "more than max_length=5 tokens; set max_length to"),
        (["tokenizer.vocab_size=9000"], "vocab_size=9000 is more than the training text yields"),
        (["optimization.batch_size=5000"], "training sentences"),
        (["--data", "./no-such-file.txt"], "no-such-file.txt"),
        (["--data", "EMPTY"], "EMPTY"),
        (["--data", "BINARY"], "BINARY"),
        (["tracker=no-such-tracker"], "no-such-tracker"),
        (["optimization.learning_rate=1e30", "optimization.max_grad_norm=0"], "is not finite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_user_gets_wrong_is_one_line(
    recipe: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
    tiny_text: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "EMPTY", b"")
    write(tmp_path / "BINARY", b"PK\x03\x04\x00\x00\xff\xfe" * 50)
    overrides = [*tiny_text, *(argument for argument in arguments if "=" in argument)]
    options = [argument for argument in arguments if "=" not in argument]
    monkeypatch.setattr(sys, "argv", ["lm1b.py", *options, *overrides])
    parsed = recipe.parse_arguments()
    with pytest.raises(SystemExit) as stopped, recipe.one_line_errors():
        recipe.main(parsed)
    assert stopped.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    if "is not finite" not in message:  # which is seen in a run only
        assert not (tmp_path / "runs").exists(), "the corrected command would be told that there is a run"


def test_one_line_is_all_that_a_quiet_launcher_leaves_of_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "-q", str(ROOT / "recipes/lm1b.py")]
    finished = subprocess.run(
        [*command, "--config", "quikstart"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert finished.returncode != 0
    assert finished.stderr.count("error:") == 1
    assert "did you mean 'quickstart'? (--debug shows where)" in finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("local_rank", "lines"), [("0", 1), ("1", 0)])
def test_one_process_of_a_machine_tells_the_error(
    recipe: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    local_rank: str,
    lines: int,
) -> None:
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    with pytest.raises(SystemExit) as stopped, recipe.one_line_errors():
        raise ValueError("wrong")
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_named_tokenizer_is_given_the_tokens_that_it_lacks(tmp_path: Path) -> None:
    text = TextSplits(["a b c d"] * 9, ["a b"], "letters", {"train": "0"})
    backend = train_tokenizer(text.train, 259).backend_tokenizer
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **end).save_pretrained(tmp_path / "gpt")
    run, accelerator = RunFolder(tmp_path / "run"), Accelerator(cpu=True)

    def make(*overrides: str, resume: bool = False) -> PreTrainedTokenizerFast:
        config = load_config(
            TextRunConfig, "quickstart", [f"tokenizer.name={tmp_path / 'gpt'}", *overrides], presets=PRESETS
        )
        return run_tokenizer(config, text, run, accelerator, resume)

    with pytest.raises(ValueError, match=r"has no pad_token; name one, as in tokenizer.pad_token='<s>'"):
        make()
    tokenizer = make("tokenizer.pad_token=<|pad|>")
    assert not run.path.exists()
    ids = tokenizer(["a b", "a"], padding=True).input_ids
    assert tokenizer.batch_decode(ids) == ["<|endoftext|>a b<|endoftext|>", "<|endoftext|>a<|endoftext|><|pad|><|pad|>"]

    tokenizer.save_pretrained(run.model)
    shutil.rmtree(tmp_path / "gpt")
    resumed = make("tokenizer.pad_token=<|pad|>", resume=True)
    assert text_fingerprint(text, resumed) == text_fingerprint(text, tokenizer)


def test_a_model_to_fit_to_keeps_its_tokenizer_whatever_the_data(tmp_path: Path) -> None:
    theirs = train_tokenizer(["the theatre", "a theme"] * 9, 262)
    theirs.save_pretrained(tmp_path / "model")
    text = TextSplits(["songs and long gongs"] * 9, ["a song"], "others", {"train": "0"})
    overrides = [f"auxiliary_prior.fit_to={tmp_path / 'model'}", "tokenizer.vocab_size=262"]
    config = load_config(TextRunConfig, "quickstart", overrides, presets=PRESETS)
    tokenizer = run_tokenizer(config, text, RunFolder(tmp_path / "run"), Accelerator(cpu=True))
    assert text_fingerprint(text, tokenizer) == text_fingerprint(text, theirs)
    assert text_fingerprint(text, tokenizer) != text_fingerprint(text, train_tokenizer(text.train, 262))


def test_a_folder_that_holds_a_run_is_not_overwritten(
    recipe: ModuleType,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tiny_text: list[str],
) -> None:
    monkeypatch.chdir(place)
    before = (place / "runs/lm1b-quickstart/results.json").read_bytes()
    monkeypatch.setattr(sys, "argv", ["lm1b.py", *tiny_text])
    with pytest.raises(SystemExit), recipe.one_line_errors():
        recipe.main(recipe.parse_arguments())
    assert "already holds a run: add --resume" in capsys.readouterr().err
    assert (place / "runs/lm1b-quickstart/results.json").read_bytes() == before


def test_a_streamed_run_goes_on_where_it_ended(
    recipe: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_text: list[str],
) -> None:
    """Two steps and then two more give the metrics and weights of four at once, with the tokenizer of the run."""
    monkeypatch.chdir(tmp_path)
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "and",
        "then",
        "it",
        "ran",
        "to",
        "the",
        "big",
        "red",
        "house",
        "of",
        "mice",
    ]
    (tmp_path / "text").mkdir()
    for shard in range(3):
        lines = (" ".join(words[i % 15 : i % 15 + 3 + i % 7]) for i in range(shard, 60, 2))
        (tmp_path / "text" / f"train-{shard}.txt").write_text("\n".join(lines))
    (tmp_path / "text" / "heldout.txt").write_text("word1 word2\nword3 word4\nword5")
    settings = [
        *tiny_text,
        "data.streaming=true",
        "tokenizer.vocab_size=262",
        "optimization.schedule=constant",
        "tracker=none",
    ]

    def run(folder: str, steps: int, *more: str) -> None:
        arguments = ["--data", "text", "--output-dir", folder, *more, *settings, f"optimization.steps={steps}"]
        monkeypatch.setattr(sys, "argv", ["lm1b.py", *arguments, "checkpoint.every=2", "log_every=1"])
        recipe.main(recipe.parse_arguments())

    run("whole", 4)
    run("parts", 2)
    with monkeypatch.context() as patch:
        patch.setattr(text_run, "train_tokenizer", None)
        run("parts", 4, "--resume")
    for name in ("metrics.jsonl", "model/model.safetensors", "checkpoints/step-00000004/optimizer.bin"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name

    train_tokenizer(["another text"], 259).save_pretrained(tmp_path / "parts/model")
    with pytest.raises(ValueError, match="was trained with another tokenizer; resume with the same"):
        run("parts", 4, "--resume")


def test_the_model_folder_loads_and_reconstructs_without_the_lab(place: Path) -> None:
    script = (
        "import sys, delta_vae\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "folder = 'runs/lm1b-quickstart/model'\n"
        "model = AutoModelForCausalLM.from_pretrained(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "batch = tokenizer(['a sentence', 'and another one'], return_tensors='pt', padding=True)\n"
        "ids = model.reconstruct(batch.input_ids, batch.attention_mask)\n"
        "assert len(tokenizer.batch_decode(ids)) == 2\n"
        "assert not {'datasets', 'delta_vae_lab'} & set(sys.modules), 'the training stack was loaded'\n"
    )
    finished = subprocess.run([sys.executable, "-c", script], cwd=place, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_the_reported_distortion_is_that_of_the_saved_model(place: Path) -> None:
    """The weights on disk, evaluated again by hand, give the figures of results.json."""
    from transformers import AutoTokenizer

    from delta_vae_lab.data import heldout_batches, load_text, tokenize
    from delta_vae_lab.randomness import derive_seed, latent_noise

    folder = place / "runs/lm1b-quickstart"
    model = DeltaVaeForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    results = json.loads((folder / "results.json").read_text())
    heldout = tokenize(tokenizer, load_text("builtin").heldout[:24])
    seed = derive_seed(results["seed"], "evaluation")
    sums = {"rate": 0.0, "distortion": 0.0}
    for batch in heldout_batches(heldout, 5, tokenizer.pad_token_id):
        noise = latent_noise(batch.attention_mask[:, 1:], model.config.latent_dim, seed, 0, batch.rows)
        with torch.no_grad():
            out = model(batch.input_ids, batch.attention_mask, noise=noise)
        sums = {name: total + float(out[name].sum()) for name, total in sums.items()}
    for name, total in sums.items():
        assert results["metrics"][f"{name}_nats"] == pytest.approx(total / 24, rel=1e-5), name
