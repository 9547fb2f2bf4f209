"""DIR/anomaly.json: what is known of the step that stopped a run, in strict JSON."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from delta_vae_lab.optimization import whole

NAMED = 10  # parameters


@dataclass(frozen=True)
class Scene:
    """A step that may go wrong: under what it is taken, what it gave, and where that would be reported.

    position: in the data, after the batch. rows: those of the batch that this process has. norms: of the gradients
    before they are clipped.
    """

    folder: Path
    step: int
    learning_rate: float
    rate_weight: float
    mixed_precision: str
    position: dict[str, Any]
    rows: list[int]
    loss: Tensor
    norms: dict[str, Tensor]
    outputs: list[Any]

    @property
    def file(self) -> Path:
        return anomaly_file(self.folder)


def anomaly_file(folder: Path) -> Path:
    """Of a run in this folder."""
    return folder / "anomaly.json"


def report_anomaly(scene: Scene, tensor: str, model: nn.Module, accelerator: Accelerator) -> None:
    """Write what is known of the step. Every process calls it; the main process writes."""
    gradients = [(name, whole(p.grad)) for name, p in model.named_parameters() if p.grad is not None]
    largest = sorted(((name, _norm(gradient)) for name, gradient in gradients), key=_by_size)[:NAMED]
    own = {"loss": _plain(float(scene.loss)), "examples": _examples(scene.rows, scene.outputs)}
    parts = gather_object([own])
    report = {
        "step": scene.step,
        "tensor": tensor,
        "learning_rate": scene.learning_rate,
        "rate_weight": scene.rate_weight,
        "mixed_precision": scene.mixed_precision,
        "position": scene.position,
        "gradient_norms": {name: _plain(float(whole(norm))) for name, norm in scene.norms.items()},
        "largest_gradient_norms": {name: _plain(norm) for name, norm in largest},
        "last_checkpoint": max((path.name for path in scene.folder.glob("checkpoints/step-*")), default=None),
        "loss_of_each_process": [part["loss"] for part in parts],
        "examples": [example for part in parts for example in part["examples"]],
    }
    if accelerator.is_main_process:
        partial = scene.file.with_name("anomaly.json.partial")
        partial.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        partial.replace(scene.file)


def _examples(rows: list[int], outputs: list[Any]) -> list[dict[str, Any]]:
    """The row in the global batch and what the bound is made of, for each example that the model has answered."""
    names = {"rate_nats": "rate", "distortion_nats": "distortion", "auxiliary_rate_nats": "auxiliary_rate"}
    parts = {unit: [getattr(output, name) for output in outputs] for unit, name in names.items()}
    columns = {
        unit: torch.cat(values).detach().tolist()
        for unit, values in parts.items()
        if values and all(value is not None for value in values)
    }
    return [{"row": row} | {unit: _plain(values[i]) for unit, values in columns.items()} for i, row in enumerate(rows)]


def _norm(gradient: Tensor) -> float:
    return float(gradient.detach().double().norm())


def _by_size(named: tuple[str, float]) -> tuple[bool, float]:
    """What is not finite comes first, then the largest."""
    return math.isfinite(named[1]), -named[1] if math.isfinite(named[1]) else 0.0


def _plain(value: float) -> float | str:
    """The number; "nan", "inf" or "-inf", for which JSON has no number."""
    return value if math.isfinite(value) else str(value)
