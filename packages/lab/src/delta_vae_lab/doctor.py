"""The collapse doctor: whether the latents of a VAE are used, ours or anybody's, and what says so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from delta_vae import DeltaVaeModel
from delta_vae_lab.data.batch import Batch
from delta_vae_lab.evaluation import INFORMATION_EXAMPLES, Metrics, check_limits, estimate
from delta_vae_lab.figures import write_figures
from delta_vae_lab.measurement import RateProfile, measure, rate_profile
from delta_vae_lab.modality import modality_of
from delta_vae_lab.outside import OutsideVae
from delta_vae_lab.places import check_folder
from delta_vae_lab.run_folder import describe_device, provenance
from delta_vae_lab.saved_model import load_heldout, load_model
from delta_vae_lab.sections import RunConfig
from delta_vae_lab.subject import as_subject
from delta_vae_lab.verdict import is_collapsed, reasons, render_table, verdict

# Decoding K z of each of so many examples takes about as long as all else together.
IMPORTANCE_SAMPLES, IMPORTANCE_EXAMPLES = 16, 256


@dataclass(frozen=True)
class Diagnosis:
    """What was found of a model on `data`: `metrics` as in `evaluate`, and where the rate is spent."""

    metrics: Metrics
    profile: RateProfile
    data: str
    seed: int

    @property
    def collapsed(self) -> bool:
        """Whether the decoder is served as well by any other example's z."""
        return is_collapsed(self.metrics)

    @property
    def verdict(self) -> str:
        """Collapsed or not, and why, on one line."""
        return verdict(self.metrics)

    @property
    def reasons(self) -> list[str]:
        """What was found, a sentence each."""
        return reasons(self.metrics)

    def __str__(self) -> str:
        """The table of estimates, the verdict and its reasons."""
        table = render_table(self.metrics, data=self.data, seed=self.seed)
        return "\n".join([table, "", self.verdict, "", *(f"- {reason}" for reason in self.reasons)])

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return {
            "collapsed": self.collapsed,
            "verdict": self.verdict,
            "reasons": self.reasons,
            "metrics": dict(self.metrics),
            "rate_by_step_and_dimension": {
                "kl_nats": self.profile.kl.tolist(),
                "committed_nats": self.profile.committed.tolist(),
                "examples": self.profile.sequences.tolist(),
            },
        }

    def write(self, folder: Path, origin: Mapping[str, Any] | None = None) -> None:
        """FOLDER/diagnosis.json, led by `origin`, the heat map of the rate and its course by position."""
        about: dict[str, Any] = {"data": self.data, "seed": self.seed}
        write_figures(folder, [], self.profile, **about, modality=modality_of(self.metrics))
        partial = folder / "diagnosis.json.partial"
        partial.write_text(_json({**(about if origin is None else origin), **self.to_dict()}) + "\n", encoding="utf-8")
        partial.replace(folder / "diagnosis.json")


def diagnose(
    model: DeltaVaeModel | OutsideVae,
    data: Tensor | Iterable[Any],
    *,
    name: str = "data",
    words: int | None = None,
    seed: int = 0,
    importance_samples: int | None = IMPORTANCE_SAMPLES,
    importance_examples: int | None = IMPORTANCE_EXAMPLES,
    information_examples: int | None = INFORMATION_EXAMPLES,
) -> Diagnosis:
    """Examine a model on held-out data: batches of ours for one of our models, tensors for an `OutsideVae`.

    name: of the data, for tables and figures. The other arguments as in `evaluate`. A posterior is judged by the data
    that it is given: on training data a model that overfits looks better than it is.
    """
    limits = {"importance_examples": importance_examples, "information_examples": information_examples}
    check_limits(importance_samples, **limits)
    if isinstance(model, DeltaVaeModel) and model.encoder is None:
        raise ValueError(
            "this model has no encoder (latent_dim=0): without latents nothing can collapse; "
            "for its likelihood use delta-vae evaluate, or delta_vae_lab.evaluation.evaluate"
        )
    subject = as_subject(model)
    batches: Iterable[Batch] = data if not isinstance(model, OutsideVae) else model.batches(data)
    record = measure(subject, batches, seed)
    metrics = estimate(subject, record, words=words, seed=seed, importance_samples=importance_samples, **limits)
    return Diagnosis(metrics, rate_profile(subject, record), name, seed)


def run_diagnose(
    model: str,
    data: str,
    *,
    output: Path | None = None,
    examples: int | None = None,
    importance_samples: int = IMPORTANCE_SAMPLES,
    seed: int = 0,
    as_json: bool = False,
) -> None:
    """Examine a saved model on held-out data, print what was found and, with `output`, write it."""
    check_limits(importance_samples)
    if output is not None:
        check_folder(output)
    saved = load_model(model)
    heldout = load_heldout(model, saved, data, examples=examples)
    diagnosis = diagnose(
        saved,
        heldout.batches,
        name=heldout.name,
        words=heldout.words,
        seed=seed,
        importance_samples=importance_samples,
    )
    origin = {
        "model": model,
        **provenance(RunConfig(seed=seed), describe_device(saved.device, 1)),
        "data": {"name": heldout.name, **heldout.fingerprint},
    }
    print(_json({**origin, **diagnosis.to_dict()}) if as_json else diagnosis)
    if output is not None:
        diagnosis.write(output, origin)
        if not as_json:
            print(f"\nWritten to {output}.")


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, allow_nan=False)
