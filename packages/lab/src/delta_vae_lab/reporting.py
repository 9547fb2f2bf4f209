"""What a run writes when it has been trained: estimates, results.json, card, figures, and what it says in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator

from delta_vae import DeltaVaeModel
from delta_vae_lab.cards import model_section, write_card
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.evaluation import estimate, evaluate
from delta_vae_lab.figures import write_figures
from delta_vae_lab.measurement import measure, rate_profile
from delta_vae_lab.modality import modality_of
from delta_vae_lab.model_folder import save_model
from delta_vae_lab.run_folder import RunFolder, describe_device
from delta_vae_lab.sections import RunConfig
from delta_vae_lab.verdict import render_table, verdict


@dataclass(frozen=True)
class HeldoutBound:
    """`evaluate` of `train`: the bound on some held-out batches and what z is used for, names led by `heldout_`.

    All of `evaluate` but the importance-weighted bound, which would decode each example many times.
    """

    batches: Sequence[Batch]
    seed: int

    def __call__(self, model: DeltaVaeModel, step: int) -> dict[str, float]:
        metrics = evaluate(model, self.batches, seed=self.seed, importance_samples=None)
        return {f"heldout_{name}": value for name, value in metrics.items()}


def write_report(
    model: DeltaVaeModel,
    heldout: Sequence[Batch],
    config: RunConfig,
    run: RunFolder,
    accelerator: Accelerator,
    data: Mapping[str, Any],
    write_samples: Callable[[], None],
    words: int | None = None,
    training_seconds: float | None = None,
) -> str:
    """Evaluate on all held-out batches, write everything, and give the table and verdict.

    `data`: its name and fingerprint. `words`: the running words of held-out text.
    `training_seconds`: of a run that was not resumed.
    """
    started = time.monotonic()
    settings = config.evaluation
    save_model(model, run.model)
    record = measure(model, heldout, config.seed)
    metrics = estimate(
        model,
        record,
        words=words,
        seed=config.seed,
        importance_samples=settings.importance_samples,
        importance_examples=settings.importance_examples,
    )
    metrics |= {
        "steps": config.optimization.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "evaluation_seconds": round(time.monotonic() - started, 1),
    }
    if training_seconds is not None:
        metrics["training_seconds"] = round(training_seconds, 1)
    device = describe_device(accelerator.device, accelerator.num_processes)
    run.write_results(metrics, config, device, data, model_section(model.config))
    profile = rate_profile(model, record) if model.prior is not None else None
    about = {"data": data["name"], "seed": config.seed}
    write_figures(run.figures, run.metrics(), profile, **about, modality=modality_of(metrics))
    write_samples()
    write_card(run)
    table = render_table(metrics, **about)
    return f"\n{table}\n\n{verdict(metrics)}\n\nEverything is in {run.path}; the model is in {run.model}."
