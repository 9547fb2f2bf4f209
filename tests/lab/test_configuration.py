"""Run configs: what a file and overrides say is what comes out, and every mistake is one line with a remedy."""

import re
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env

from delta_vae_lab.configuration import flatten, load_config, result_changes, save_config
from delta_vae_lab.sections import TextRunConfig

RECIPES = Path(__file__).parents[2] / "recipes"
QUICK = "prior: {latent_dim: 2, alpha: [0.5, 0.9]}\noptimization: {steps: 12, learning_rate: 3e-3}\n"


@pytest.fixture
def presets(tmp_path: Path) -> Path:
    (tmp_path / "quick.yaml").write_text(QUICK)
    return tmp_path


def test_a_preset_is_found_by_name_or_path(presets: Path) -> None:
    assert load_config(TextRunConfig, "quick", presets=presets) == load_config(TextRunConfig, presets / "quick.yaml")


def test_a_file_overrides_defaults_and_overrides_override_the_file(presets: Path) -> None:
    config = load_config(
        TextRunConfig, "quick", ["optimization.steps=7", "prior.alpha=[.1,.2]", "tokenizer.name=x"], presets
    )
    assert config.optimization.steps == 7
    assert config.optimization.learning_rate == 3e-3
    assert config.optimization.batch_size == TextRunConfig().optimization.batch_size
    assert config.prior.alpha == [0.1, 0.2]
    assert config.tokenizer.name == "x"


def test_a_bare_no_is_not_false(presets: Path) -> None:
    (presets / "bare.yaml").write_text(QUICK.replace("steps: 12", "mixed_precision: no"))
    for source, overrides in [("bare", []), ("quick", ["optimization.mixed_precision=no"])]:
        assert load_config(TextRunConfig, source, overrides, presets).optimization.mixed_precision == "no"


def test_what_is_saved_is_complete_and_loads_equal(presets: Path) -> None:
    config = load_config(TextRunConfig, "quick", ["seed=5", "optimization.betas=[0.5,0.6]"], presets)
    save_config(config, presets / "config.yaml")
    saved = yaml.safe_load((presets / "config.yaml").read_text())
    assert (saved.pop("delta_vae_version"), saved.pop("delta_vae_format")) == (metadata.version("delta-vae"), 1)
    assert {key for key, value in flatten(config).items()} == {
        f"{section}.{key}" if isinstance(entries, dict) else section
        for section, entries in saved.items()
        for key in (entries if isinstance(entries, dict) else [section])
    }
    assert load_config(TextRunConfig, presets / "config.yaml") == config


@pytest.mark.parametrize("rate", [0.1 + 0.2, 1e-12, 3e-4, 1.0, 123456.789])
def test_numbers_survive_the_file_exactly(presets: Path, rate: float) -> None:
    config = load_config(TextRunConfig, "quick", [f"optimization.learning_rate={rate!r}", f"seed={2**62 + 1}"], presets)
    assert config.optimization.learning_rate == rate
    save_config(config, presets / "config.yaml")
    assert load_config(TextRunConfig, presets / "config.yaml") == config


MISTAKES = {
    "optimization.learnin_rate=1": r"did you mean 'optimization.learning_rate'\? optimization has: steps,",
    "learning_rate=1": r"unknown key 'learning_rate'; did you mean 'optimization.learning_rate'\?",
    "nothing.like_it=1": r"unknown key 'nothing'; a config has: prior, auxiliary_prior,",
    "prior.kind=ar2": r"prior.kind: Invalid value 'ar2', expected one of \['ar1', ",
    "optimization.steps=1.5": r"optimization.steps: Value '1.5' of type 'float' could not be converted to Integer",
    "optimization.steps=0": r"optimization.steps=0: must be at least 1",
    "optimization.learning_rate=fast": r"Value 'fast' of type 'str' could not be converted to Float",
    "optimization.learning_rate=0": r"optimization.learning_rate=0.0: must be greater than 0",
    "optimization.learning_rate=nan": r"optimization.learning_rate=nan: must be greater than 0 and finite",
    "objective.beta=inf": r"objective.beta=inf: must be at least 0 and finite",
    "optimization.betas=[0.9,1.0]": r"optimization.betas=\(0.9, 1.0\): must both be in \[0, 1\)",
    "optimization.betas=[0.9]": r"length 1 does not match type hint length 2",
    "optimization.accumulation=7": r"optimization.batch_size=64: must be divisible by optimization.accumulation=7",
    "decoder.dropout=1": r"decoder.dropout=1.0: must be in \[0, 1\)",
    "seed=null": r"seed: Incompatible value 'None'",
    "prior=3": r"prior=3: .*PriorSection",
    "optimization=null": r"field 'optimization' is not Optional",
    "steps": r"'steps': an override must read section.key=value",
    "tracker=[": r"tracker=\[: while parsing",
    "seed=${prior.nothing}": r"Interpolation key 'prior.nothing' not found",
    "prior.alpha=null": r"takes exactly one of alpha, alpha_low \+ alpha_high, committed_bits \+ steps, got none",
    "prior.committed_bits=8": r"got alpha and committed_bits \+ steps; set the keys of the others to null",
    "prior.alpha=[0.5]": r"prior.alpha=\[0.5\]: has 1 values for prior.latent_dim=2; give one a dimension",
    "prior.latent_dim=0": r"prior.kind=none is the decoder without latents",
    "prior.hidden_size=0": r"prior.hidden_size=0: must be at least 1 and finite",
    "objective.beta=0.5": r"objective.beta=0.5: does nothing with negative_elbo; set objective.name=beta",
    "objective.annealing=linear": r"objective.annealing_steps=0: must be at least 1 with objective.annealing=linear",
}


@pytest.mark.parametrize("override", MISTAKES)
def test_a_mistake_is_one_line_with_value_rule_and_remedy(presets: Path, override: str) -> None:
    with pytest.raises(ValueError, match=MISTAKES[override]) as error:
        load_config(TextRunConfig, "quick", [override], presets)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__ or error.value.__context__ is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prior: {alpah: [1]}", r"broken.yaml: unknown key 'prior.alpah'; did you mean 'prior.alpha'\?"),
        ("- prior", r"broken.yaml: must be a mapping of sections"),
        ("prior", r"broken.yaml: must be a mapping of sections"),
        ("prior: [", r"broken.yaml: while parsing a flow node"),
        ("seed: 1\nseed: 2", r"broken.yaml: .*found duplicate key seed"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(presets: Path, text: str, message: str) -> None:
    (presets / "broken.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        load_config(TextRunConfig, "broken", presets=presets)
    assert "\n" not in str(error.value)


def test_an_unknown_preset_is_answered_with_the_nearest(presets: Path) -> None:
    with pytest.raises(ValueError, match=r"config 'qick': is neither a file nor a preset; did you mean 'quick'\?"):
        load_config(TextRunConfig, "qick", presets=presets)
    with pytest.raises(ValueError, match=r"presets: quick$"):
        load_config(TextRunConfig, "absent.yaml", presets=presets)


def test_free_bits_take_a_floor_and_no_annealing(presets: Path) -> None:
    free_bits = ["objective.name=free_bits", "objective.floor_nats=0.1"]
    load_config(TextRunConfig, "quick", free_bits, presets)
    with pytest.raises(ValueError, match=r"weighs the rate, where free_bits has a floor"):
        load_config(
            TextRunConfig, "quick", [*free_bits, "objective.annealing=linear", "objective.annealing_steps=5"], presets
        )


@pytest.mark.parametrize("half", ["alpha_low=0.5", "alpha_high=0.5", "committed_bits=8", "steps=30"])
def test_half_a_way_to_give_alpha_names_the_other_half(presets: Path, half: str) -> None:
    other = {"alpha_low": "alpha_high", "committed_bits": "steps"}
    other |= {value: key for key, value in other.items()}
    with pytest.raises(ValueError, match=rf"prior.{other[half.partition('=')[0]]} is missing"):
        load_config(TextRunConfig, "quick", ["prior.alpha=null", f"prior.{half}"], presets)


@pytest.mark.parametrize("kind", ["none", "standard_normal", "independent_delta", "lstm"])
def test_twins_differ_by_one_override(presets: Path, kind: str) -> None:
    twins = (
        load_config(TextRunConfig, "quick", presets=presets),
        load_config(TextRunConfig, "quick", [f"prior.kind={kind}"], presets),
    )
    assert result_changes(*twins) == ["prior.kind"]


def test_cadence_may_change_on_resume_and_what_is_computed_may_not(presets: Path) -> None:
    cadence = ["evaluation.every=3", "checkpoint.keep=9", "log_every=1", "tracker=none", "optimization.steps=99"]
    constant = "optimization.schedule=constant"
    before = load_config(TextRunConfig, "quick", [constant], presets)
    assert result_changes(before, load_config(TextRunConfig, "quick", [constant, *cadence], presets)) == []
    other = load_config(TextRunConfig, "quick", [constant, "seed=1", "data.name=x"], presets)
    assert result_changes(before, other) == ["seed", "data.name"]


def test_a_cosine_schedule_cannot_be_lengthened(presets: Path) -> None:
    before = load_config(TextRunConfig, "quick", presets=presets)
    assert before.optimization.schedule == "cosine"
    assert result_changes(before, load_config(TextRunConfig, "quick", ["optimization.steps=99"], presets)) == [
        "optimization.steps"
    ]


@pytest.mark.parametrize("file", sorted((RECIPES / "accelerate").glob("*.yaml")), ids=lambda file: file.stem)
def test_accelerate_reads_our_launch_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--config_file", str(file), "--machine_rank", "0", "--main_process_ip", "127.0.0.1", "train.py"]
    parsed, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    written = yaml.safe_load(file.read_text())
    assert defaults.distributed_type == written["distributed_type"]
    assert parsed.num_processes == written["num_processes"]
    assert parsed.multi_gpu == (written["distributed_type"] == "MULTI_GPU")
    assert written.get("fsdp_config", {}).keys() <= vars(launch_command_parser().parse_args(["train.py"])).keys()
    if written["distributed_type"] == "FSDP":
        for name, value in prepare_multi_gpu_env(parsed).items():
            if re.match("FSDP_|ACCELERATE_", name):
                monkeypatch.setenv(name, value)
        plugin = FullyShardedDataParallelPlugin()
        assert plugin.fsdp_version == 2
        assert plugin.transformer_cls_names_to_wrap is None, "a model of text and one of images say what to shard"
        assert plugin.reshard_after_forward is True
