"""The smallest runs that have everything: dropout, micro-steps, an average, evaluations and checkpoints on the way.

And how two of them are compared.
"""

import json
import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.reliability.warm import Life, Warm

STEPS = 72
_COMMON = f"""
prior: {{latent_dim: 2, alpha: [0.6, 0.9]}}
auxiliary_prior: {{hidden_size: 4}}
optimization: {{steps: {STEPS}, batch_size: 8, warmup_steps: 4, polyak_decay: 0.9, accumulation: 2}}
evaluation: {{every: 4, examples: 8, importance_samples: 2, batch_size: 8}}
checkpoint: {{every: 3, keep: 2}}
log_every: 1
tracker: none
"""
_OWN = {
    "lm1b": """
encoder: {hidden_size: 8, num_layers: 1, num_heads: 2, dropout: 0.1}
decoder: {hidden_size: 8, num_layers: 1, num_heads: 2, dropout: 0.1}
tokenizer: {vocab_size: 280}
max_length: 64
""",
    "cifar10": """
encoder: {hidden_size: 8, num_layers: 1, attention_layers: 0, num_heads: 2, dropout: 0.1}
decoder: {hidden_size: 8, num_layers: 1, attention_layers: 1, num_heads: 2, components: 2, dropout: 0.1}
data: {horizontal_flips: true}
""",
}
_WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "after", "one", "ball", "in", "old", "park")


def tiny_run(recipe: str, folder: Path) -> list[str]:
    """The command line of a tiny run of a recipe in this folder, where its config and data are written beside."""
    config, corpus = folder.with_name(f"{recipe}.yaml"), folder.with_name("corpus.txt")
    config.write_text(_COMMON + _OWN[recipe])
    data = []
    if recipe == "lm1b":
        draw = random.Random(0)
        sentences = (" ".join(draw.choices(_WORDS, k=draw.randint(2, 12))) for _ in range(200))
        corpus.write_text("".join(f"{sentence}\n" for sentence in sentences))
        data = ["--data", str(corpus)]
    return ["--config", str(config), *data, "--output-dir", str(folder)]


def start(recipe: str, warm: Warm, folder: Path, processes: int, *more: str) -> list[Life]:
    """The processes of a tiny run, as a launcher would start them."""
    arguments = [*tiny_run(recipe, folder), *more]
    if processes == 1:
        return [warm.start(recipe, arguments)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    ranks = [where | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return [warm.start(recipe, arguments, environment) for environment in ranks]


def finish(recipe: str, warm: Warm, folder: Path, processes: int, *more: str) -> list[Life]:
    """The same, when it has come to its end."""
    lives = start(recipe, warm, folder, processes, *more)
    assert [life.wait() for life in lives] == [0] * processes, [life.stderr() for life in lives]
    return lives


def assert_same_run(calm: Path, other: Path) -> None:
    """All that two runs leave is the same to the byte, but for what says when and how they ran."""
    files = files_of(calm)
    assert files == files_of(other)
    last = f"checkpoints/step-{STEPS:08d}"
    for name in ("model.safetensors", "polyak.safetensors", "optimizer.bin", "progress.json"):
        assert f"{last}/{name}" in files
    assert {"metrics.jsonl", "model/model.safetensors", "config.yaml"} <= files
    for file in sorted(files):
        assert (calm / file).read_bytes() == (other / file).read_bytes(), file
    assert timeless(calm / "results.json") == timeless(other / "results.json")


def files_of(run: Path) -> set[str]:
    """But those that say when and how it ran; and nothing is drawn from the random states that Accelerate saves."""
    ignored = (".lock", "results.json", "README.md", "manifest.json", "random_states_0.pkl", "random_states_1.pkl")
    files = (path for path in run.rglob("*") if path.is_file() and path.name not in ignored)
    return {str(path.relative_to(run)) for path in files}


def timeless(results: Path) -> Mapping[str, Any]:
    """What results.json says but for the command, the commit, the name of the folder, and how long it took."""
    found = json.loads(results.read_text())
    metrics = {name: value for name, value in found["metrics"].items() if not name.endswith("_seconds")}
    about_now = ("command", "commit", "run")
    return {key: value for key, value in found.items() if key not in about_now} | {"metrics": metrics}
