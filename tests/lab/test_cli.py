"""The `delta-vae` command as a user types it, on saved models of text and of images."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration, DeltaVaeImageProcessor
from delta_vae_decoders import ImageDecoderConfig, TextDecoderConfig
from delta_vae_encoders import ImageEncoderConfig, TextEncoderConfig
from delta_vae_lab.cli import app
from delta_vae_lab.data import train_tokenizer
from delta_vae_priors import AR1PriorConfig, AuxiliaryPriorConfig

SENTENCES = ["a cat sat", "the dog ran off", "a mat", "they sat on the mat", "the cat ran", "off they ran"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def prior_and_auxiliary() -> dict[str, Any]:
    return {
        "prior": AR1PriorConfig(latent_dim=2, alpha=0.8),
        "auxiliary_prior": AuxiliaryPriorConfig(latent_dim=2, hidden_size=4),
    }


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of digits, and its processor."""
    folder = tmp_path_factory.mktemp("images")
    sizes: dict[str, Any] = {"channels": 1, "height": 8, "width": 8, "levels": 17, "hidden_size": 8, "num_layers": 1}
    sizes |= {"num_heads": 2, "attention_layers": 0, "latent_dim": 2}
    torch.manual_seed(0)
    config = DeltaVaeConfig(
        encoder=ImageEncoderConfig(**sizes), decoder=ImageDecoderConfig(**sizes, components=2), **prior_and_auxiliary()
    )
    DeltaVaeForImageGeneration(config).save_pretrained(folder)
    DeltaVaeImageProcessor.for_model(config, input_levels=17).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of text, and its tokenizer."""
    folder = tmp_path_factory.mktemp("text")
    tokenizer = train_tokenizer(iter(SENTENCES * 10), 265)
    tokenizer.save_pretrained(folder)
    sizes: dict[str, Any] = {"vocab_size": 265, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "latent_dim": 2}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    config = DeltaVaeConfig(
        encoder=TextEncoderConfig(**sizes), decoder=TextDecoderConfig(**sizes, **tokens), **prior_and_auxiliary()
    )
    DeltaVaeForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six held-out sentences, and as many to train on."""
    folder = tmp_path_factory.mktemp("sentences")
    for split in ("train", "heldout"):
        (folder / f"{split}.txt").write_text("\n".join(SENTENCES))
    return folder


def test_an_image_model_is_diagnosed_and_written_about(image_model: Path, tmp_path: Path) -> None:
    result = run("diagnose", image_model, "--data", "builtin", "--examples", "12", "--output", tmp_path, "--seed", "3")
    assert result.exit_code == 0, result.output
    assert "sklearn-digits: 12 held-out images, 768 dimensions, seed 3" in result.stdout
    assert "IW NLL, training prior (K = 16, 12 images)" in result.stdout
    assert "\nCollapsed: another image's z costs the decoder " in result.stdout
    assert "- The decoder ignores z: " in result.stdout
    written = json.loads((tmp_path / "diagnosis.json").read_text())
    assert written["model"] == str(image_model)
    assert (written["seed"], written["data"]["name"], written["data"]["levels"]) == (3, "sklearn-digits", 17)
    assert {"command", "commit", "device", "versions"} <= written.keys()
    committed = 0.5 * 2 * (6 * math.log(1 + 0.8**2) - math.log(1 - 0.8**2))
    assert written["metrics"]["committed_rate_nats"] == pytest.approx(committed, rel=1e-5)
    assert torch.tensor(written["rate_by_step_and_dimension"]["kl_nats"]).shape == (8, 2)
    assert (tmp_path / "rate_by_step_and_dimension.png").stat().st_size > 10_000
    assert (tmp_path / "rate_by_step_and_dimension.svg").exists()


def test_a_text_model_is_diagnosed_in_json(text_model: Path, sentences: Path) -> None:
    result = run("diagnose", text_model, "--data", sentences, "--json", "--importance-samples", "2")
    assert result.exit_code == 0, result.output
    diagnosis = json.loads(result.stdout)
    metrics = diagnosis["metrics"]
    assert (metrics["sentences"], metrics["importance_samples"]) == (6, 2)
    assert metrics["words"] == sum(len(sentence.split()) + 1 for sentence in SENTENCES)
    nats_per_word = 6 * metrics["importance_weighted_nll_nats"] / metrics["words"]
    assert metrics["importance_weighted_perplexity_per_word"] == pytest.approx(math.exp(nats_per_word))
    assert isinstance(diagnosis["collapsed"], bool)
    assert diagnosis["verdict"].startswith(("Collapsed: ", "Not collapsed: "))


def test_what_a_user_gets_wrong_is_one_line_and_code_2(
    image_model: Path, text_model: Path, sentences: Path, tmp_path: Path
) -> None:
    silent, other = tmp_path / "silent", tmp_path / "gpt2"
    config = TextDecoderConfig(vocab_size=20, hidden_size=8, num_layers=1, num_heads=2, latent_dim=0)
    DeltaVaeForCausalLM(DeltaVaeConfig(decoder=config)).save_pretrained(silent)
    train_tokenizer(iter(SENTENCES * 10), 265).save_pretrained(silent)
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "gpt2"}')
    mistakes = [
        (image_model, sentences, [], "is a model of images: "),
        (image_model, sentences / "heldout.txt", [], "is a model of images: "),
        (image_model, "builtin", ["--importance-samples", "0"], "importance_samples=0: the bound is a mean over"),
        (image_model, "builtin", ["--examples", "1"], "examples=1: a standard error needs 2 or more"),
        (text_model, tmp_path / "nowhere", [], "is a model of text: "),
        (silent, sentences, [], "this model has no encoder (latent_dim=0): without latents nothing can collapse"),
        (sentences, "builtin", [], "has no config.json; give the folder that save_pretrained wrote"),
        (tmp_path / "nowhere", "builtin", [], "nowhere: there is no such folder; "),
        (other, "builtin", [], "a model of type 'gpt2', not 'delta_vae'; any other VAE is examined in Python"),
    ]
    for model, data, options, message in mistakes:
        result = run("diagnose", model, "--data", data, *options)
        assert result.exit_code == 2, (message, result.output)
        assert result.stderr.startswith("error: "), result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
        assert message in result.stderr
        assert result.stdout == ""


def test_images_of_another_kind_are_refused(image_model: Path, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(40):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    result = run("diagnose", image_model, "--data", tmp_path)
    assert result.exit_code == 2
    assert "has images of 3 x 8 x 8 at 256 levels" in result.stderr
    assert "is a model of 1 x 8 x 8 at 17 levels: give data of its kind" in result.stderr


def test_an_image_model_is_probed(image_model: Path) -> None:
    """As JSON: held-out accuracy of the classes of the built-in digits."""
    result = run("probe", image_model, "--data", "builtin", "--train-limit", "60", "--json")
    assert result.exit_code == 0, result.output
    assert 0 <= json.loads(result.stdout)["metrics"]["pooled_accuracy"] <= 1
    refused = run("probe", image_model, "--data", "builtin", "--train-limit", "0")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: train_limit=0: ")


def test_debug_keeps_the_traceback(image_model: Path) -> None:
    result = run("diagnose", image_model, "--data", "builtin", "--examples", "1", "--debug")
    assert isinstance(result.exception, ValueError)


def test_help_answers_without_the_libraries_that_take_seconds_to_load() -> None:
    program = (
        "import sys; from delta_vae_lab.cli import main\n"
        "sys.argv = ['delta-vae', *sys.argv[1:]]\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'matplotlib', 'datasets'} & set(sys.modules)))"
    )
    for arguments in (["--help"], ["sample", "--help"], ["diagnose", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]"
        assert f"Usage: delta-vae {arguments[0]} " in done.stdout or "diagnose" in done.stdout
    assert "delta-vae diagnose runs/cifar10-quickstart/model --data builtin\n" in done.stdout


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("sample", ["count", "source", "temperature", "max-new-tokens", "seed", "output", "json", "debug"]),
        ("reconstruct", ["data", "count", "seed", "output", "json", "debug"]),
        ("interpolate", ["data", "first", "second", "steps", "seed", "output", "json", "debug"]),
        ("encode", ["data", "output", "examples", "split", "seed", "json", "debug"]),
        (
            "evaluate",
            ["data", "importance-samples", "importance-examples", "examples", "words", "seed", "json", "debug"],
        ),
        ("doctor", ["json"]),
    ],
)
def test_the_examples_of_a_verb_are_asked_for_with_its_options(verb: str, options: list[str]) -> None:
    """What --help shows as an example names no option that the verb has not."""
    result = run(verb, "--help")
    assert result.exit_code == 0, result.output
    shown, examples = result.stdout.split("Examples:")
    assert f"\n  {verb} " in run("--help").stdout
    for option in options:
        assert f"--{option}" in shown, option
    lines = examples.strip().splitlines()
    assert len(lines) == 2
    for line in lines:
        program, named, *rest = line.split()
        assert (program, named) == ("delta-vae", verb)
        assert {word for word in rest if word.startswith("--")} <= {f"--{option}" for option in options}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "images"])
def test_a_model_is_trained_as_its_config_says(kind: str, sentences: Path, tmp_path: Path) -> None:
    """The run has what was asked for, by the file, an option and an override; its model is one that is evaluated."""
    from accelerate.state import AcceleratorState

    part = "{hidden_size: 8, num_layers: 1, num_heads: 2"
    lines = [
        "prior: {kind: ar1, latent_dim: 2, alpha: [0.5, 0.9]}",
        "optimization: {steps: 3, batch_size: 2, warmup_steps: 1}",
    ]
    if kind == "text":
        lines += ["tokenizer: {vocab_size: 265}", f"encoder: {part}}}", f"decoder: {part}}}"]
    else:
        lines += [f"encoder: {part}, attention_layers: 0}}", f"decoder: {part}, attention_layers: 0, components: 2}}"]
    lines += ["auxiliary_prior: {hidden_size: 4}", "evaluation: {examples: 4, importance_samples: 2}", "tracker: none"]
    (tmp_path / "tiny.yaml").write_text("\n".join(lines))
    data, folder = (sentences if kind == "text" else "builtin"), tmp_path / "run"
    options = ["--config", tmp_path / "tiny.yaml", "--data", data, "--output-dir", folder, "optimization.steps=2"]
    try:
        result = run("train", kind, *options)
        again = run("train", kind, *options)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert result.exit_code == 0, result.output
    results = json.loads((folder / "results.json").read_text())
    assert (results["metrics"]["steps"], results["metrics"][{"text": "sentences", "images": "images"}[kind]]) == (2, 4)
    assert run("evaluate", folder / "model", "--data", data, "--importance-samples", 1).exit_code == 0
    assert again.exit_code == 2
    assert "already holds a run: add --resume to go on with it" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sounds", "--config", "pyproject.toml"], "train 'sounds': is no kind of data; choose text or images"),
        (["text", "--config", "nowhere.yaml"], "config 'nowhere.yaml': is no file; give a YAML file, such as the"),
        (["text", "--config", "{tiny}", "optimization.stepz=2"], "stepz"),
    ],
    ids=["kind", "file", "override"],
)
def test_a_training_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text("optimization: {steps: 3}")
    result = run("train", *(argument.format(tiny="tiny.yaml") for argument in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.slow
def test_the_command_runs_as_a_program(image_model: Path) -> None:
    command = [sys.executable, "-m", "delta_vae_lab.cli", "diagnose", str(image_model), "--data", "builtin"]
    done = subprocess.run([*command, "--examples", "8"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 held-out images" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slow-facter"], "reproduce 'slow-facter': no such experiment; did you mean 'slow-factor'?"),
        (
            ["everything"],
            "reproduce 'everything': no such experiment; there are: figure-1, price-of-information, table-1",
        ),
        (["slow-factor", "--scale", "huge"], "scale='huge': slow-factor has no such scale; choose from smoke, small"),
        (["table-1", "--scale", "smoke", "--jobs", "0"], "jobs=0: train 1 or more models at a time"),
        (["table-1", "--data", "no/such/images"], "data 'no/such/images'"),
        (["slow-factor", "--seed", "1", "--seed", "1"], "seeds=[1, 1]: give one or more, each once"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_experiment_that_does_not_exist_is_refused_in_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run("reproduce", *arguments, "--output", tmp_path / "out")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "out").exists()


def test_an_experiment_is_asked_for_with_these_options() -> None:
    result = run("reproduce", "--help")
    assert result.exit_code == 0, result.output
    for option in ("--scale", "--seed", "--data", "--probe-data", "--output", "--jobs", "--json", "--debug"):
        assert f"  {option} " in result.stdout, option
    assert "  delta-vae reproduce figure-4 --jobs 2\n" in result.stdout


@pytest.mark.slow
def test_an_experiment_prints_its_table_and_writes_its_result(tmp_path: Path) -> None:
    result = run("reproduce", "slow-factor", "--scale", "smoke", "--seed", "3", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "probe of the factor, a draw of z" in result.stdout
    written = json.loads((tmp_path / "out/slow-factor.json").read_text())
    assert (written["scale"], written["seeds"]) == ("smoke", [3])
