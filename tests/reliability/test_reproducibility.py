"""One seed, one result: no draw of ours is from a global random state, and no run reads or changes one."""

import ast
import json
import random
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.style  # noqa: F401 - it draws from Python's global state, once, where it is imported
import torch
from accelerate.state import AcceleratorState
from safetensors import safe_open

from delta_vae_lab.cli import app
from delta_vae_lab.image_run import run_images
from delta_vae_lab.text_run import run_text

ROOT = Path(__file__).parents[2]

# What draws of torch's global state, or of the state that its argument names.
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
TORCH_DRAWS |= {"rand_like", "randn_like", "randint_like", "sample", "rsample"}
METHODS = {"bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_"}
METHODS |= {"trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "orthogonal_"}
METHODS |= {"multinomial", "bernoulli"}
SEEDS = {"manual_seed", "manual_seed_all", "seed", "set_seed", "set_rng_state", "setstate", "set_state"}
LAYERS = {"Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "RReLU"}

INITIAL = "initial parameters: a run makes its model within `seeded(seed, 'parameters')`"
DROPOUT = "dropout, which takes no generator: the loop seeds it by step, micro-step and process"
JUSTIFIED = {
    "core/transformer.py: normal_": INITIAL,
    "core/pixels.py: normal_": INITIAL,
    "encoders/text.py: normal_": INITIAL,
    "encoders/image.py: normal_": INITIAL,
    "decoders/image.py: normal_": INITIAL,
    "priors/lstm.py: normal_": INITIAL,
    "priors/lstm.py: uniform_": INITIAL,
    "core/transformer.py: Dropout": DROPOUT,
    "core/pixels.py: Dropout": DROPOUT,
    "core/attention.py: Dropout": DROPOUT,
    "core/attention.py: dropout_p": DROPOUT,
    "lab/training.py: manual_seed": DROPOUT + "; within `global_state_kept`",
    "delta-vae/modeling_causal_lm.py: manual_seed": "transformers' `generate` takes no generator; within `fork_rng`",
    "delta-vae/drawing.py: multinomial": "within the same, as the draws of transformers",
    "lab/randomness.py: manual_seed": "`seeded`, within `fork_rng`",
    "lab/randomness.py: setstate": "`global_state_kept` puts back what it found",
    "lab/randomness.py: set_state": "`global_state_kept` puts back what it found",
}


def global_draws(source: str) -> set[str]:
    """The names of what draws from, or sets, the global random state of torch, numpy or Python."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {name for call in calls for name in names_drawn(call)}


def names_drawn(call: ast.Call) -> set[str]:
    function, keywords = ast.unparse(call.func), {keyword.arg for keyword in call.keywords}
    owner, _, name = function.rpartition(".")
    if owner in {"np.random", "numpy.random", "random"}:
        own = name in {"default_rng", "Generator", "SeedSequence", "Random"} and call.args
        return set() if own or name in {"get_state", "getstate"} else {name}
    drawn = (name in TORCH_DRAWS and owner == "torch") or name in METHODS
    seeds = name in SEEDS and not owner.startswith("torch.Generator(")
    layer = name in LAYERS or (name == "dropout" and owner in {"F", "functional"})
    found = {name} if (drawn and "generator" not in keywords) or seeds or layer else set()
    return found | ({"dropout_p"} & keywords)


@pytest.mark.parametrize(
    ("source", "drawn"),
    [
        ("torch.randn(3)", {"randn"}),
        ("torch.randn(3, generator=g)", set()),
        ("torch.rand_like(x)", {"rand_like"}),
        ("x.normal_(0, 1)", {"normal_"}),
        ("x.exponential_(generator=g)", set()),
        ("nn.init.xavier_uniform_(w)", {"xavier_uniform_"}),
        ("p.multinomial(1)", {"multinomial"}),
        ("np.random.rand(3)", {"rand"}),
        ("numpy.random.default_rng()", {"default_rng"}),
        ("np.random.default_rng(0).permutation(3)", set()),
        ("random.shuffle(x)", {"shuffle"}),
        ("random.Random(0).shuffle(x)", set()),
        ("torch.manual_seed(0)", {"manual_seed"}),
        ("torch.Generator().manual_seed(0)", set()),
        ("nn.Dropout(0.1)", {"Dropout"}),
        ("F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)", {"dropout_p"}),
    ],
)
def test_a_draw_from_a_global_state_is_found(source: str, drawn: set[str]) -> None:
    assert global_draws(source) == drawn


def test_every_draw_is_from_a_generator_but_for_these(seen: Callable[..., None]) -> None:
    files = sorted(ROOT.glob("packages/*/src/**/*.py"))
    found = {
        f"{file.relative_to(ROOT / 'packages').parts[0]}/{file.name}: {name}"
        for file in files
        for name in global_draws(file.read_text(encoding="utf-8"))
    }
    assert found == JUSTIFIED.keys()
    seen(modules=len(files), justified=len(JUSTIFIED))


# Runs, and what is done with their models, from global states of different seeds.

SIZES = "{hidden_size: 8, num_layers: 1, num_heads: 2, dropout: 0.1}"
COMMON = """
prior: {latent_dim: 2, alpha: [0.6, 0.9]}
auxiliary_prior: {hidden_size: 4}
evaluation: {every: 2, examples: 12, importance_samples: 2, importance_examples: 4}
checkpoint: {every: 2}
log_every: 1
tracker: none
"""
CONFIGS = {
    "text": f"""{COMMON}
encoder: {SIZES}
decoder: {SIZES}
tokenizer: {{vocab_size: 262}}
optimization: {{steps: 4, batch_size: 4, warmup_steps: 1, polyak_decay: 0.5}}
""",
    "images": f"""{COMMON}
encoder: {SIZES[:-1]}, attention_layers: 0}}
decoder: {SIZES[:-1]}, attention_layers: 1, components: 2}}
data: {{name: builtin, horizontal_flips: true}}
optimization: {{steps: 4, batch_size: 4, warmup_steps: 1}}
""",
}
TEXT = "\n".join(" ".join(["cat", "mat", "sat", "hat"][: 1 + i % 4] * (1 + i % 3)) for i in range(120))
RUNS = {"text": run_text, "images": run_images}
TIMES = {"evaluation_seconds", "training_seconds"}


def states() -> tuple[Any, ...]:
    numpy = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), numpy[1].tolist(), numpy[2:]


def seed_globally(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


def run_once(place: Path, kind: str, *overrides: str, resume: bool = False, corpus: Path | None = None) -> Path:
    """The folder of a run of this kind, trained and reported, which has left the global states as they were."""
    place.mkdir(parents=True, exist_ok=True)
    config, folder = place / "config.yaml", place / "run"
    config.write_text(CONFIGS[kind])
    if corpus is None:
        corpus = place / "corpus.txt"
        corpus.write_text(TEXT)
    arguments = Namespace(
        config=config,
        data=str(corpus) if kind == "text" else None,
        output_dir=folder,
        resume=resume,
        tracker=None,
        push_to_hub=None,
        overrides=list(overrides),
    )
    before = states()
    try:
        RUNS[kind](arguments, Path(kind))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert states() == before
    return folder


def results_of(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    results["metrics"] = {name: value for name, value in results["metrics"].items() if name not in TIMES}
    results["data"].pop("name")  # of text its path
    return results


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Everything that was trained, logged and drawn."""
    names = ("metrics.jsonl", "model/model.safetensors")
    files = [folder / name for name in names] + [file for file in (folder / "samples").rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def seeded_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Two runs of each kind with one seed, from global states of two seeds. Not to be changed."""
    place = tmp_path_factory.mktemp("runs")
    made: dict[str, list[Path]] = {kind: [] for kind in RUNS}
    for seed in (1, 2):
        for kind, folders in made.items():
            seed_globally(seed)
            folders.append(run_once(place / f"{kind}-{seed}", kind))
    return {kind: (folders[0], folders[1]) for kind, folders in made.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_the_global_state_neither_decides_a_run_nor_is_changed_by_it(
    kind: str, seeded_runs: dict[str, tuple[Path, Path]]
) -> None:
    """Same results.json but for times, and the same weights, log and samples byte for byte."""
    first, second = seeded_runs[kind]
    assert results_of(first) == results_of(second)
    ours, theirs = bytes_of(first), bytes_of(second)
    assert len(ours) > 2
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.slow
def test_the_runs_seed_decides_it(seeded_runs: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    other = run_once(tmp_path, "text", "seed=1")
    first = seeded_runs["text"][0]
    changed = {name for name, value in bytes_of(first).items() if bytes_of(other).get(name) != value}
    assert {"metrics.jsonl", "model/model.safetensors"} <= changed


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_a_resumed_run_leaves_the_global_state_too(
    kind: str, seeded_runs: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    """A checkpoint holds random states, and loading it sets them."""
    whole = seeded_runs[kind][0]
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000004")
    seed_globally(3)
    resumed = run_once(tmp_path, kind, resume=True, corpus=whole.with_name("corpus.txt"))
    assert bytes_of(resumed) == bytes_of(whole)


def content_of(file: Path) -> Any:
    """Bytes; of tensors with several notes the values and the notes, which are written in any order."""
    if file.suffix != ".safetensors":
        return file.read_bytes()
    with safe_open(file, framework="np") as opened:
        return opened.metadata(), {name: opened.get_tensor(name).tobytes() for name in opened.keys()}  # noqa: SIM118


COMMANDS = {
    "sample": ["sample", "MODEL", "--count", "2"],
    "reconstruct": ["reconstruct", "MODEL", "--data", "DATA", "--count", "2"],
    "interpolate": ["interpolate", "MODEL", "--data", "DATA", "--steps", "3"],
    "encode": ["encode", "MODEL", "--data", "DATA", "--examples", "3"],
    "evaluate": ["evaluate", "MODEL", "--data", "DATA", "--examples", "4", "--importance-samples", "2", "--json"],
    "diagnose": ["diagnose", "MODEL", "--data", "DATA", "--examples", "4", "--importance-samples", "2", "--json"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_draws_by_its_seed_alone(
    kind: str,
    name: str,
    seeded_runs: dict[str, tuple[Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = seeded_runs[kind][0]
    names = {
        "MODEL": str(folder / "model"),
        "DATA": str(folder.with_name("corpus.txt")) if kind == "text" else "builtin",
    }
    output = {"encode": "out.safetensors"}.get(name, "out.txt" if kind == "text" else "out.png")
    wanted = ["--output", output] if name in {"sample", "reconstruct", "interpolate", "encode"} else []
    made = []
    for seed in (1, 2):
        place = tmp_path / str(seed)
        place.mkdir()
        monkeypatch.chdir(place)
        seed_globally(seed)
        before = states()
        app([names.get(word, word) for word in COMMANDS[name]] + wanted, standalone_mode=False)
        assert states() == before
        printed = [line for line in capsys.readouterr().out.splitlines() if "seconds" not in line]
        made.append({"printed": "\n".join(printed)} | {file.name: content_of(file) for file in place.iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) == 1 + bool(wanted)
    assert wanted or made[0]["printed"]
