"""Versions: what an earlier one wrote is read for ever, what a later one wrote is refused if it must be."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from transformers import AutoConfig, AutoModel

from delta_vae import DeltaVaeConfig, DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_lab import cli
from delta_vae_lab.cards import read_results
from delta_vae_lab.checkpoints import read_progress
from delta_vae_lab.configuration import load_config
from delta_vae_lab.sections import TextRunConfig

HERE = Path(__file__).parent
OLD = sorted((HERE / "fixtures").iterdir())
INSTALLED = metadata.version("delta-vae")
INSTALL = f"was written by delta-vae 99.1.0, and this is {INSTALLED}; pip install --upgrade 'delta-vae>=99.1.0'"


@pytest.fixture(scope="module")
def written() -> ModuleType:
    """written.py, which has written what is in fixtures/."""
    spec = importlib.util.spec_from_file_location("written", HERE / "written.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """{"a/0/b": number} of every leaf."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        return {leaf: found for key, part in entries for leaf, found in flat(part, f"{name}/{key}").items()}
    return {name: value}


def test_what_every_version_wrote_loads_and_answers_as_it_did(
    written: ModuleType, tmp_path: Path, seen: Callable[..., None]
) -> None:
    """Models with tokenizer and processor, every prior by itself, and a run that goes on from its checkpoint."""
    assert OLD
    numbers = 0
    for old in OLD:
        run = Path(shutil.copytree(old / "run", tmp_path / old.name))
        then, now = flat(json.loads((old / "answers.json").read_text())), flat(written.answers(old, run))
        assert now == pytest.approx(then, rel=1e-4, abs=1e-5)
        numbers += len(then)
    seen(versions=len(OLD), folders_each=len(written.PRIORS) + 3, answers=numbers)


def later(file: Path, **changes: Any) -> None:
    """Let a later version have written the config.json."""
    content = json.loads(file.read_text())
    for name, value in changes.items():
        part, _, key = name.rpartition("__")
        (content[part] if part else content)[key] = value
    file.write_text(json.dumps(content | {"delta_vae_version": "99.1.0"}))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD[-1] / "text", tmp_path / "text"))


def test_a_config_says_once_who_wrote_it(text: Path) -> None:
    content = json.loads((text / "config.json").read_text())
    assert (content["delta_vae_version"], content["delta_vae_format"]) == (OLD[-1].name, 1)
    assert all("delta_vae_version" not in content[part] for part in ("prior", "encoder", "decoder", "auxiliary_prior"))
    DeltaVaeConfig.from_pretrained(text).save_pretrained(text / "again")
    assert json.loads((text / "again/config.json").read_text())["delta_vae_version"] == INSTALLED


def test_a_config_without_a_version_is_read(text: Path) -> None:
    """As one that was written by hand, or by transformers from our classes."""
    content = json.loads((text / "config.json").read_text())
    for key in ("delta_vae_version", "delta_vae_format"):
        content.pop(key)
    (text / "config.json").write_text(json.dumps(content))
    assert DeltaVaeForCausalLM.from_pretrained(text).config.latent_dim == 2


def test_what_a_later_version_wrote_loads_where_nothing_in_it_is_new(text: Path) -> None:
    later(text / "config.json")
    assert DeltaVaeForCausalLM.from_pretrained(text).config.latent_dim == 2


@pytest.mark.parametrize(
    "new",
    [
        {"delta_vae_format": 2},
        {"sharpness": 3},
        {"decoder__sharpness": 3},
        {"decoder__positions": "spiral"},
        {"decoder__hidden_size": "4 to 8"},
        {"prior__model_type": "delta_vae_spline"},
    ],
    ids=["format", "key", "key of a part", "value", "type", "part"],
)
@pytest.mark.parametrize("load", [DeltaVaeForCausalLM, AutoConfig], ids=["model", "AutoConfig"])
def test_what_is_new_in_a_later_config_names_the_version_to_install(text: Path, new: dict[str, Any], load: Any) -> None:
    later(text / "config.json", **new)
    with pytest.raises(ValueError, match="DeltaVaeConfig: ") as error:
        load.from_pretrained(text)
    assert INSTALL in str(error.value)
    assert "\n" not in str(error.value)


def test_the_same_without_a_later_version_is_the_users_mistake(text: Path) -> None:
    later(text / "config.json", sharpness=3)
    content = json.loads((text / "config.json").read_text()) | {"delta_vae_version": INSTALLED}
    (text / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="unknown key 'sharpness'") as error:
        DeltaVaeConfig.from_pretrained(text)
    assert "pip install" not in str(error.value)


@pytest.mark.parametrize("new", [{"delta_vae_format": 2}, {"sharpness": 3}])
def test_a_part_by_itself_likewise(tmp_path: Path, new: dict[str, Any]) -> None:
    for prior in sorted((OLD[-1] / "priors").iterdir()):
        copy = Path(shutil.copytree(prior, tmp_path / prior.name))
        later(copy / "config.json", **new)
        with pytest.raises(ValueError, match="PriorConfig: ") as error:
            AutoModel.from_pretrained(copy)
        assert INSTALL in str(error.value)


def test_images_likewise(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(OLD[-1] / "images", tmp_path / "images"))
    later(copy / "config.json", encoder__sharpness=3)
    with pytest.raises(ValueError, match="DeltaVaeConfig: ") as error:
        DeltaVaeForImageGeneration.from_pretrained(copy)
    assert INSTALL in str(error.value)


@pytest.mark.parametrize(
    "new",
    [{"delta_vae_format": 2}, {"sharpness": 3}, {"optimization": {"schedule": "spiral"}}, {"seed": "by name"}],
    ids=["format", "key", "value", "type"],
)
def test_a_run_of_a_later_version_likewise(tmp_path: Path, new: dict[str, Any]) -> None:
    file = tmp_path / "config.yaml"
    content = yaml.safe_load((OLD[-1] / "run/config.yaml").read_text())
    assert (content["delta_vae_version"], content["delta_vae_format"]) == (OLD[-1].name, 1)
    file.write_text(yaml.safe_dump(content | {"delta_vae_version": "99.1.0"}))
    assert load_config(TextRunConfig, file).seed == 0
    file.write_text(yaml.safe_dump(content | {"delta_vae_version": "99.1.0"} | new))
    with pytest.raises(ValueError, match="config.yaml: ") as error:
        load_config(TextRunConfig, file)
    assert INSTALL in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_a_later_version_names_the_version_to_go_on_with(tmp_path: Path) -> None:
    """What it does not know of a place in the run it leaves aside, as long as the format is the same."""
    checkpoint = Path(shutil.copytree(OLD[-1] / "run/checkpoints/step-00000002", tmp_path / "step-00000002"))
    content = json.loads((checkpoint / "progress.json").read_text())
    new = content | {"delta_vae_version": "99.1.0", "mood": "calm"}
    (checkpoint / "progress.json").write_text(json.dumps(new))
    assert read_progress(checkpoint).step == 2
    (checkpoint / "progress.json").write_text(json.dumps(new | {"format": 2}))
    with pytest.raises(ValueError, match="has format 2, this version reads 1; go on with delta-vae 99.1.0"):
        read_progress(checkpoint)


def test_results_of_a_later_version_likewise(tmp_path: Path) -> None:
    old = min((HERE.parents[1] / "results/lm1b-layout").glob("*.json"))
    content = json.loads(old.read_text())
    assert read_results(old)["run"] == content["run"]
    file = tmp_path / "results.json"
    versions = {"versions": {"delta-vae": "99.1.0"}}
    file.write_text(json.dumps(content | versions | {"delta_vae_format": 2}))
    with pytest.raises(ValueError, match="results.json: ") as error:
        read_results(file)
    assert INSTALL in str(error.value)
    file.write_text(json.dumps({key: value for key, value in content.items() if key != "metrics"} | versions))
    with pytest.raises(ValueError, match="has no 'metrics'") as error:
        read_results(file)
    assert INSTALL in str(error.value)


def test_a_command_refuses_a_later_model_with_code_2_and_one_line(
    text: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    later(text / "config.json", sharpness=3)
    monkeypatch.setattr("sys.argv", ["delta-vae", "sample", str(text)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert INSTALL in capsys.readouterr().err
