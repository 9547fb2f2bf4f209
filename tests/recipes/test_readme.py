"""The README: its code runs on what its commands wrote, and its tables are those of the results."""

import re
from pathlib import Path

import pytest

from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_lab.report import render

ROOT = Path(__file__).parents[2]


def test_the_codes_of_the_readme_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    models = []
    for block in blocks:
        namespace: dict = {}
        exec(compile("from delta_vae_priors import AR1PriorConfig\n" + block, "README.md", "exec"), namespace)
        models.append(type(namespace.get("model")))
    assert models == [DeltaVaeForCausalLM, type(None), DeltaVaeForCausalLM, DeltaVaeForImageGeneration, type(None)]


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    document = (ROOT / "README.md").read_text()
    assert render(document, ROOT) == document
