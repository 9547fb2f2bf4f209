"""The doctor of the installation: what it calls wrong, and what it never says."""

import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from typer.testing import CliRunner

from delta_vae_lab import installation
from delta_vae_lab.cli import app
from delta_vae_lab.installation import Finding, devices, examine, hub, packages, render, unwritable

INSTALLED = {"delta-vae-lab": "0.3.0", "delta-vae-core": "0.3.0", "torch": "2.11.0+cu128", "numpy": "2.4.1"}


def version(name: str) -> str:
    if name not in INSTALLED:
        raise metadata.PackageNotFoundError(name)
    return INSTALLED[name]


def problems(*requirements: str) -> list[tuple[str, str]]:
    found = packages(requirements, version)
    return [(finding.name, finding.problem) for finding in found if finding.problem is not None]


def test_what_suits_is_no_problem() -> None:
    requirements = ["delta-vae-core==0.3.0", "torch>=2.11", "numpy>=2"]
    assert problems(*requirements) == []
    shown = list(packages(requirements, version))
    assert shown == [
        Finding("delta-vae-lab", "0.3.0"),
        Finding("delta-vae-core", "0.3.0"),
        Finding("torch", "2.11.0+cu128"),
    ]


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("delta-vae-core==0.4.0", 'is not in step with delta-vae-lab 0.3.0: pip install "delta-vae-core==0.4.0"'),
        ("torch>=2.12", 'is older than 2.12, the oldest supported: pip install --upgrade "torch>=2.12"'),
        ("torch>=3", 'is older than 3, the oldest supported: pip install --upgrade "torch>=3"'),
        ("numpy>=2.10", 'is older than 2.10, the oldest supported: pip install --upgrade "numpy>=2.10"'),
        ("jinja2>=3.1", 'is not installed: pip install "jinja2>=3.1"'),
    ],
)
def test_what_does_not_suit_is_named_with_its_remedy(requirement: str, problem: str) -> None:
    assert problems(requirement) == [(Requirement(requirement).name, problem)]


@pytest.mark.parametrize("installed", ["2.9", "2.11", "2.11.0", "2.11.1", "2.11.0+cpu", "3.0.0", "2.2.12"])
@pytest.mark.parametrize("needed", ["2.11", "2.11.0", "2.2", "3"])
def test_versions_are_compared_as_installers_do(installed: str, needed: str) -> None:
    older = list(packages([f"x>={needed}"], lambda name: installed))[1:]
    assert bool(older) == (Version(installed) < Version(needed))


def test_what_an_extra_needs_may_be_missing_but_not_too_old() -> None:
    asked = ['trackio>=0.43 ; extra == "trackio"', 'wandb>=0.31 ; extra == "wandb"']

    def version(name: str) -> str:
        if name == "wandb":
            raise metadata.PackageNotFoundError(name)
        return "0.42"

    _, trackio = packages(asked, version)
    assert trackio.problem == 'is older than 0.43, the oldest supported: pip install --upgrade "trackio>=0.43"'


def test_our_own_requirements_can_all_be_read_and_hold_here() -> None:
    requirements = metadata.requires("delta-vae-lab")
    assert requirements
    assert {Requirement(r).name for r in requirements} >= {"torch", "delta-vae-core", "safetensors"}
    assert all(finding.problem is None for finding in packages(requirements))


def test_a_folder_that_cannot_be_written_to_is_a_problem(tmp_path: Path) -> None:
    assert unwritable(tmp_path / "not/yet/there") is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert "cannot be written to (Not a directory at " in str(unwritable(tmp_path / "file"))


def test_the_token_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = CliRunner().invoke(app, ["doctor"])
    assert "Hub token" in result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("Hub token")]
    assert line.split()[-1] == "set"
    assert "secret" not in result.output
    assert "secret" not in CliRunner().invoke(app, ["doctor", "--json"]).output


def test_a_gpu_that_torch_does_not_see_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(installation.shutil, "which", lambda name: None)
    assert next(devices()) == Finding("CUDA", "no")
    monkeypatch.setattr(installation.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert "torch sees no GPU and is built for the CPU alone: install a CUDA build" in str(next(devices()).problem)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert next(devices()) == Finding("CUDA", "hidden by CUDA_VISIBLE_DEVICES")


def test_what_cannot_be_imported_is_a_problem_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, name, None)
    for finding in (next(devices()), next(hub())):
        assert "cannot be imported" in str(finding.problem)
        assert "install it anew" in str(finding.problem)


@pytest.mark.parametrize("problem", [None, "is broken: mend it"])
def test_the_exit_code_says_whether_something_is_wrong(monkeypatch: pytest.MonkeyPatch, problem: str | None) -> None:
    monkeypatch.setattr(installation, "examine", lambda: [Finding("a", "1"), Finding("thing", "2", problem)])
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == (0 if problem is None else 1)
    last = "All is well." if problem is None else "Wrong: thing is broken: mend it"
    assert result.stdout.splitlines() == ["a      1", "thing  2", "", last]
    said: Any = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert said["well"] is (problem is None)
    assert said["findings"][1] == {"name": "thing", "value": "2", "problem": problem}


def test_it_looks_at_everything_once() -> None:
    names = [finding.name for finding in examine()]
    assert len(names) == len(set(names))
    assert {"python", "delta-vae-lab", "delta-vae", "torch", "transformers", "CUDA", "cache", "Hub token"} <= set(names)
    assert render(examine()).splitlines()[0].startswith("python")
