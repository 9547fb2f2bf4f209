"""The run folder: one run each, metrics that a resumed run goes on writing, results that say where they come from."""

import json
import logging
import math
import subprocess
from pathlib import Path

import pytest
import torch

from delta_vae_lab import run_folder
from delta_vae_lab.configuration import load_config
from delta_vae_lab.run_folder import RunFolder, commit, describe_device, provenance
from delta_vae_lab.sections import PriorSection, RunConfig, TextRunConfig


def config_with(seed: int = 0, log_every: int = 50) -> TextRunConfig:
    return TextRunConfig(prior=PriorSection(latent_dim=1, alpha=[0.9]), seed=seed, log_every=log_every)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / "quick")
    folder.start(config_with(), resume=False)
    return folder


def test_a_run_begins_with_its_config(run: RunFolder) -> None:
    assert load_config(TextRunConfig, run.config_file) == config_with()
    assert sorted(file.name for file in run.path.iterdir()) == [".lock", "config.yaml"]


def test_a_second_run_does_not_write_over_the_first(run: RunFolder) -> None:
    with pytest.raises(ValueError, match=r"quick already holds a run: add --resume .* or choose another folder$"):
        run.start(config_with(), resume=False)


def test_resuming_where_nothing_is_begins_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = RunFolder(tmp_path / "new")
    with caplog.at_level(logging.WARNING, "delta_vae_lab"):
        run.start(config_with(), resume=True)
    assert run.holds_a_run
    assert "new has no checkpoint to resume from: a new run starts" in caplog.text
    (run.checkpoints / "step-00000001").mkdir(parents=True)
    caplog.clear()
    run.start(config_with(), resume=True)
    assert not caplog.text


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path / "new").check(config_with(), resume=True)
    assert not list(tmp_path.iterdir())


def test_resuming_with_another_config_names_the_keys(run: RunFolder) -> None:
    with pytest.raises(ValueError, match=r"started with another config; differing keys: seed; resume with the values"):
        run.start(config_with(seed=1), resume=True)
    assert load_config(TextRunConfig, run.config_file).seed == 0


def test_resuming_with_another_cadence_is_written_down(run: RunFolder) -> None:
    run.start(config_with(log_every=1), resume=True)
    assert load_config(TextRunConfig, run.config_file).log_every == 1


def test_what_has_lost_its_config_is_not_resumed(run: RunFolder) -> None:
    run.log({"step": 1})
    run.config_file.unlink()
    with pytest.raises(ValueError, match=r"has no config.yaml to resume by"):
        run.start(config_with(), resume=True)


def test_metrics_are_cut_back_to_a_step_without_a_change_to_what_stays(run: RunFolder) -> None:
    lines = [{"step": step, "rate_nats": math.pi / step} for step in (2, 4, 6)]
    for line in lines[:2]:
        run.log(line)
    at_four = run.metrics_file.read_bytes()
    run.log(lines[2])
    assert run.metrics() == lines
    run.cut_metrics(5)
    assert run.metrics_file.read_bytes() == at_four
    run.cut_metrics(0)
    assert run.metrics_file.read_bytes() == b""


def test_a_line_that_a_kill_cut_short_is_dropped(run: RunFolder) -> None:
    run.log({"step": 2})
    with run.metrics_file.open("a") as file:
        file.write('{"step": 4, "rate_na')
    assert run.metrics() == [{"step": 2}]
    run.cut_metrics(9)
    run.log({"step": 4})
    assert run.metrics() == [{"step": 2}, {"step": 4}]


def test_results_say_where_they_come_from(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["recipes/lm1b.py", "--config", "quick start"])
    model = {"decoder": {"latent_dim": 2}}
    run.write_results({"rate_nats": 2.5}, config_with(seed=3), "x86_64 CPU", {"name": "builtin"}, model)
    results = json.loads(run.results_file.read_text())
    assert results["run"] == "quick"
    assert results["command"] == "recipes/lm1b.py --config 'quick start'"
    assert results["seed"] == 3
    assert results["device"] == "x86_64 CPU"
    assert results["data"] == {"name": "builtin"}
    assert results["model"] == model
    assert results["metrics"] == {"rate_nats": 2.5}
    assert results["versions"]["torch"] == torch.__version__
    assert results["commit"] == commit()


def test_a_result_that_is_no_number_is_not_written(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_results({"rate_nats": math.nan}, config_with(), "cpu", {}, {})
    assert not run.results_file.exists()


def test_the_commit_is_the_one_that_tracks_this_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*command: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    module = tmp_path / "module.py"
    module.write_text("")
    monkeypatch.setattr(run_folder, "__file__", str(module))
    git("init")
    git("commit", "--allow-empty", "--message=first")
    assert commit() is None  # installed inside somebody else's checkout
    git("add", "module.py")
    git("commit", "--message=second")
    assert commit() == git("rev-parse", "HEAD")
    module.write_text("changed")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"


def test_without_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "module.py"))
    assert commit() is None


def test_a_device_is_named_with_its_number() -> None:
    assert describe_device(torch.device("cpu"), 1).endswith(" CPU")
    assert describe_device(torch.device("cpu"), 2).startswith("2 x ")


def test_results_say_what_an_auxiliary_prior_was_fitted_to(tmp_path: Path) -> None:
    run, config = RunFolder(tmp_path), config_with()
    run.write_results({}, config, "x86_64 CPU", {"name": "builtin"}, {})
    assert "fitted_to" not in json.loads(run.results_file.read_text())
    config.auxiliary_prior.fit_to = "runs/first/model"
    run.write_results({}, config, "x86_64 CPU", {"name": "builtin"}, {})
    assert json.loads(run.results_file.read_text())["fitted_to"] == "runs/first/model"


def test_an_installed_command_is_named_without_the_machine_s_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(Path.home() / "venv/bin/delta-vae"), "reproduce", "figure-1"])
    assert provenance(RunConfig(), "x86_64 CPU")["command"] == "delta-vae reproduce figure-1"
