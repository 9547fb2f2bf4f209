"""What the presets for GPUs would take: counted on the CPU, and projected to GPUs under assumptions that have names.

`python -m benchmarks.plan [--save]` counts and prints the tables of docs/scale.md; `--save` also writes
results/plan.json and puts the tables into the page. No GPU is measured.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measurement import ROOT
from benchmarks.memory import LiveBytes
from benchmarks.operations import operations
from delta_vae import DeltaVaeForCausalLM, DeltaVaeForImageGeneration
from delta_vae_lab.architecture import image_model_config, text_model_config
from delta_vae_lab.configuration import load_config
from delta_vae_lab.optimization import recompute_activations
from delta_vae_lab.run_folder import commit
from delta_vae_lab.sections import ImageRunConfig, TextRunConfig

RESULTS = ROOT / "results/plan.json"
PAGE = ROOT / "docs/scale.md"
GPUS = (1, 8, 64)
LENGTH = 32  # tokens of LM1B's mean sentence, EOS included


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here. Bytes and operations a second are of one GPU."""

    peak_operations: float = 989e12  # dense bfloat16 of an H100 or H200, by its maker
    utilisation: float = 0.25  # of the peak, by the operations that a step cannot do without
    memory_bytes: float = 80e9
    node_gpus: int = 8
    node_bandwidth: float = 300e9  # of an all-reduce within a node
    network_bandwidth: float = 25e9  # of one between nodes
    overlap: float = 0.0  # of the exchange with computing
    recomputing: float = 4 / 3  # of the operations, with activation checkpointing


@dataclass(frozen=True)
class Counted:
    """A preset and its model. Activations are in float32, of the longest example; bfloat16 takes less.

    examples: of a step. files: of the training data, 0 where it is in memory. example_bytes: as it is read.
    validation: examples decoded once by the evaluation at the end.
    """

    preset: str
    steps: int
    examples: int
    accumulation: int
    parameters: int
    operations: int
    activations: int
    activations_recomputed: int
    files: int
    example_bytes: int
    validation: int


def count() -> list[Counted]:
    """LM1B `base` and ImageNet 32 x 32 `large`."""
    return [_text(), _images()]


def _text() -> Counted:
    config = load_config(TextRunConfig, ROOT / "recipes/configs/lm1b/base.yaml")
    config.encoder.dropout = config.decoder.dropout = 0.0  # fused on a GPU, and not on a CPU
    model, few_words = (
        DeltaVaeForCausalLM(text_model_config(config, _Vocabulary(size))).train()  # type: ignore[arg-type]  # enough of one
        for size in (config.tokenizer.vocab_size, 64)  # logits of a large batch are not kept, but computed by parts
    )
    return Counted(
        preset="lm1b/base",
        files=99,
        example_bytes=140,
        validation=6_075 + config.evaluation.importance_samples * (config.evaluation.importance_examples or 0),
        operations=operations(lambda: model(_sentence(LENGTH)).loss),
        **_sizes(config, model, *_activations(few_words, _sentence(config.max_length))),
    )


def _sentence(length: int) -> Tensor:
    """BOS and so many tokens, (1, length + 1)."""
    return torch.cat([torch.zeros(1, 1, dtype=torch.long), torch.randint(3, 64, (1, length))], dim=1)


def _images() -> Counted:
    config = load_config(ImageRunConfig, ROOT / "recipes/configs/imagenet32/large.yaml")
    model = DeltaVaeForImageGeneration(image_model_config(config, (3, 32, 32), 256)).train()
    image = torch.randint(0, 256, (1, 3, 32, 32))
    return Counted(
        preset="imagenet32/large",
        files=0,
        example_bytes=3 * 32 * 32,
        validation=50_000 + config.evaluation.importance_samples * (config.evaluation.importance_examples or 0),
        operations=operations(lambda: model(image).loss),
        **_sizes(config, model, *_activations(model, image)),
    )


class _Vocabulary(SimpleNamespace):
    """As much of a tokenizer as a model is built by."""

    def __init__(self, size: int) -> None:
        super().__init__(size=size, bos_token_id=0, eos_token_id=1, pad_token_id=2)

    def __len__(self) -> int:
        return int(self.size)


def _sizes(config: TextRunConfig | ImageRunConfig, model: nn.Module, kept: int, recomputed: int) -> dict[str, int]:
    settings = config.optimization
    return {
        "steps": settings.steps,
        "examples": settings.batch_size,
        "accumulation": settings.accumulation,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "activations": kept,
        "activations_recomputed": recomputed,
    }


def _activations(model: Any, x: Tensor) -> tuple[int, int]:
    """Bytes at the peak of a step on one example, its gradients apart: kept, and computed anew."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    peaks = []
    for anew in (False, True):
        if anew:
            recompute_activations(model)
        with LiveBytes() as memory:
            model(x).loss.backward()
        peaks.append(memory.peak)
    return peaks[0], peaks[1]


def project(counted: Mapping[str, Any], gpus: int, assumed: Assumptions, recomputed: bool = False) -> dict[str, Any]:
    """A run on so many GPUs with a copy of the model each (DDP): memory, hours, reading."""
    seconds = counted["operations"] * counted["examples"] / (gpus * assumed.peak_operations * assumed.utilisation)
    seconds *= assumed.recomputing if recomputed else 1.0
    bandwidth = assumed.node_bandwidth if gpus <= assumed.node_gpus else assumed.network_bandwidth
    exchange = 2 * (gpus - 1) / gpus * 4 * counted["parameters"] / bandwidth * (1 - assumed.overlap)
    rows = counted["examples"] / (gpus * counted["accumulation"])
    activations = counted["activations_recomputed" if recomputed else "activations"]
    hours = counted["steps"] * (seconds + exchange) / 3600
    reads_all = counted["files"] % gpus if counted["files"] else 0
    return {
        "rows": rows,
        "memory_bytes": model_bytes(counted["parameters"]) + rows * activations,
        "hours": hours,
        "gpu_hours": hours * gpus,
        "exchange_share": exchange / (seconds + exchange),
        "examples_per_second": counted["examples"] / (seconds + exchange),
        "read_bytes": counted["example_bytes"]
        * counted["examples"]
        / (seconds + exchange)
        * (1 if reads_all else 1 / gpus),
        "validation_hours": counted["validation"]
        * counted["operations"]
        / 3
        / (assumed.peak_operations * assumed.utilisation)
        / 3600,
    }


def model_bytes(parameters: int) -> int:
    """Weights, gradients, AdamW's two averages and the Polyak average, each float32."""
    return (1 + 1 + 2 + 1) * 4 * parameters


def checkpoint_bytes(parameters: int) -> int:
    """The same less the gradients."""
    return (1 + 2 + 1) * 4 * parameters


def tables(results: Mapping[str, Any]) -> str:
    """Markdown: what was counted, what is assumed, what follows."""
    assumed, counted = Assumptions(**results["assumptions"]), results["counted"]
    lines = [
        "| counted | " + " | ".join(f"`{one['preset']}`" for one in counted) + " |",
        "|---|" + "---|" * len(counted),
    ]
    facts: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "parameters": lambda one: f"{one['parameters'] / 1e6:.1f} million",
        "operations an example, forward and backward": lambda one: f"{one['operations'] / 1e9:,.1f} G",
        "steps": lambda one: f"{one['steps']:,}",
        "examples a step": lambda one: f"{one['examples']:,} in {one['accumulation']} micro-steps",
        "operations of the run": lambda one: f"{one['operations'] * one['examples'] * one['steps']:.2g}",
        "activations an example": lambda one: f"{one['activations'] / 1e6:,.0f} MB",
        "the same, computed anew": lambda one: (
            f"{one['activations_recomputed'] / 1e6:,.0f} MB"
            f" ({one['activations'] / one['activations_recomputed']:.1f} times less)"
        ),
        "weights, gradients, AdamW, Polyak average": lambda one: f"{model_bytes(one['parameters']) / 1e9:.2f} GB",
        "a checkpoint": lambda one: f"{checkpoint_bytes(one['parameters']) / 1e9:.2f} GB",
    }
    lines += [f"| {name} | {' | '.join(map(say, counted))} |" for name, say in facts.items()]
    lines += ["", "| assumed | value |", "|---|---|"]
    lines += [f"| `{name}` | {value:.4g} |" for name, value in results["assumptions"].items()]
    heads = ["preset", "GPUs", "rows a GPU and micro-step", "memory", "computed anew", "hours", "GPU-hours"]
    heads += ["exchange", "read by each process", "evaluation at the end"]
    lines += ["", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for one in counted:
        for gpus in GPUS:
            plain, anew = (project(one, gpus, assumed, recomputed) for recomputed in (False, True))
            over = " (too much)" if plain["memory_bytes"] > assumed.memory_bytes else ""
            cells = [f"`{one['preset']}`", f"{gpus}", f"{plain['rows']:g}"]
            cells += [f"{plain['memory_bytes'] / 1e9:.1f} GB{over}", f"{anew['memory_bytes'] / 1e9:.1f} GB"]
            cells += [f"{plain['hours']:,.1f}", f"{plain['gpu_hours']:,.0f}", f"{plain['exchange_share']:.0%}"]
            cells += [f"{plain['read_bytes'] / 1e6:.2f} MB/s", f"{plain['validation_hours']:.2f} h"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def put(page: str, content: str) -> str:
    """The page with the content between its two comments."""
    found, times = re.subn(
        r"(<!-- plan -->\n).*?(<!-- /plan -->)", lambda match: f"{match[1]}{content}\n{match[2]}", page, flags=re.DOTALL
    )
    assert times == 1, "the page has one place for the plan"
    return found


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--save", action="store_true", help="write results/plan.json and docs/scale.md")
    save = parser.parse_args().save
    torch.manual_seed(0)
    results: dict[str, Any] = {
        "command": "python -m benchmarks.plan --save",
        "commit": commit(),
        "assumptions": asdict(Assumptions()),
        "counted": [asdict(one) for one in count()],
    }
    print(tables(results))
    if save:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        Path(PAGE).write_text(put(PAGE.read_text(), tables(results)))


if __name__ == "__main__":
    main()
