"""The example as its user has it: installed as a wheel beside ours, and named by a checkpoint alone."""

import ast
import json
import re
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delta_vae import DeltaVaeConfig

ROOT = Path(__file__).parents[2]
LOAD = """
import sys
from delta_vae import DeltaVaeForCausalLM
assert "seasonal_latents" not in sys.modules
model = DeltaVaeForCausalLM.from_pretrained(sys.argv[1])
print(*(type(part).__module__ for part in (model.prior, model.encoder, model.decoder)))
print(tuple(model.generate(num_sequences=2, max_new_tokens=5, min_new_tokens=5, do_sample=False).shape))
"""
FAIL = """
import sys
from delta_vae import DeltaVaeForCausalLM
try:
    DeltaVaeForCausalLM.from_pretrained(sys.argv[1])
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def installed(fresh_environment: Callable[..., Any], example: Path) -> Any:
    """An environment of the example and what it declares, where its README's first code has run."""
    environment = fresh_environment("seasonal-latents")
    assert "delta-vae-lab" not in environment.distributions
    compose, load = re.findall(r"```python\n(.*?)```", (example / "README.md").read_text(), re.DOTALL)
    environment.run(compose)
    environment.run(load)
    return environment


@pytest.mark.slow
def test_a_checkpoint_loads_in_a_fresh_process_that_imports_nothing_of_it(installed: Any) -> None:
    modules, shape = installed.run(LOAD, "seasonal-model").splitlines()
    assert modules == "seasonal_latents.prior seasonal_latents.encoder seasonal_latents.decoder"
    assert shape == "(2, 6)"


@pytest.mark.slow
def test_where_the_package_is_missing_one_line_names_it(installed: Any, fresh_environment: Callable[..., Any]) -> None:
    without = fresh_environment("delta-vae")
    told = without.run(FAIL, str(installed.folder / "seasonal-model"))
    assert told == (
        "prior.model_type='seasonal_latents_prior' is not registered: "
        "import the package that registers it first, or install it, if it is not\n"
    )


@pytest.mark.slow
def test_the_lab_trains_with_it_and_the_command_examines_the_model(
    fresh_environment: Callable[..., Any], example: Path, tmp_path: Path
) -> None:
    environment = fresh_environment("seasonal-latents", "delta-vae-lab")
    sizes = [f"{part}.{size}" for part in ("encoder", "decoder") for size in ("hidden_size=16", "num_layers=1")]
    steps = ["optimization.steps=4", "optimization.batch_size=8", "evaluation.examples=16", "log_every=2"]
    small = ["tokenizer.vocab_size=300", "max_length=400", "evaluation.importance_samples=2", "tracker=none"]
    quickstart = ROOT / "recipes/configs/lm1b/quickstart.yaml"
    environment.run(
        "import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')",
        *(str(example / "train.py"), "--config", str(quickstart), "--output-dir", "run", *sizes, *steps, *small),
        cwd=tmp_path,
    )
    assert json.loads((tmp_path / "run/model/config.json").read_text())["prior"] == {
        "alpha": 0.9,
        "latent_dim": 2,
        "model_type": "seasonal_latents_prior",
        "period": 4,
    }
    card = (tmp_path / "run/model/README.md").read_text()
    assert "The prior is the `seasonal_latents_prior` of another package, which loading the model needs too." in card
    results = json.loads((tmp_path / "run/results.json").read_text())["metrics"]
    assert results["rate_nats"] >= results["committed_rate_nats"] > 0
    told = environment.run(
        "import sys\nfrom delta_vae_lab.cli import main\nmain()",
        *("diagnose", "run/model", "--data", "builtin", "--examples", "16", "--importance-samples", "2", "--json"),
        cwd=tmp_path,
    )
    assert "committed" in told


def test_a_card_names_the_parts_of_another_package() -> None:
    from jinja2 import Environment, PackageLoader
    from seasonal_latents import BackboneEncoderConfig, GRUDecoderConfig

    config = DeltaVaeConfig(encoder=BackboneEncoderConfig(), decoder=GRUDecoderConfig(vocab_size=50257))
    macros = Environment(loader=PackageLoader("delta_vae_lab", "hub_cards")).get_template("macros.md.j2").module
    for part in ("encoder", "decoder"):
        said = f"The {part} is the `{config.to_dict()[part]['model_type']}` of another package"
        assert getattr(macros, part)(config, True).startswith(said)


def test_a_model_type_that_nobody_registers_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"encoder.model_type='nobodys' is not registered: import .*install") as error:
        DeltaVaeConfig(encoder={"model_type": "nobodys"})
    assert "\n" not in str(error.value)


def test_an_entry_point_names_each_model_type() -> None:
    import seasonal_latents

    configs = [getattr(seasonal_latents, name) for name in seasonal_latents.__all__ if name.endswith("Config")]
    project = tomllib.loads((ROOT / "examples/seasonal-latents/pyproject.toml").read_text())["project"]
    assert project["entry-points"]["delta_vae.components"] == {
        config.model_type: "seasonal_latents" for config in configs
    }


def test_it_declares_what_it_imports(example: Path) -> None:
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=]", requirement)[0].replace("-", "_") for requirement in project["dependencies"]}
    imported = {
        node.module.partition(".")[0]
        for file in (example / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert imported - {"math", "typing", "seasonal_latents"} == declared - {"delta_vae"}


def test_the_page_shows_what_lies_in_the_package(example: Path) -> None:
    page = (ROOT / "docs/write-your-own.md").read_text()
    assert (example / "src/seasonal_latents/prior.py").read_text() in page
    main = re.search(r"^def main.*?(?=\n\n\n)", (example / "train.py").read_text(), re.DOTALL | re.MULTILINE)
    assert main
    assert textwrap.indent(main[0], "    ") in page
