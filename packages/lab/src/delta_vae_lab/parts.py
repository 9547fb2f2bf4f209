"""The parts of a model that can be published alone, and what of a run concerns each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delta_vae import DeltaVaeConfig
from delta_vae_lab.modality import modality_of


@dataclass(frozen=True)
class Part:
    """A part by its name in the model and in words.

    estimates, figures, samples: what of a run's its card shows. reads: it is of use only with a tokenizer or an image
    processor, and with the prior that belongs to its z.
    """

    name: str
    label: str
    estimates: frozenset[str]
    figures: frozenset[str] = frozenset()
    samples: frozenset[str] = frozenset()
    reads: bool = False

    @property
    def template(self) -> str:
        """Of its card."""
        return f"{self.name}.md.j2"

    def concerned(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a run's metrics, with their errors and caps, and what was counted or set for any of them."""
        kind = modality_of(metrics)
        counts = {kind.examples, kind.units, "latent_dim", "importance_samples"}
        counts |= {f"importance_{kind.examples}", f"information_{kind.examples}"}
        estimates = self.estimates if "latent_dim" in metrics else self.estimates | _WITHOUT_LATENTS
        return {
            name: value
            for name, value in metrics.items()
            if name in counts
            or name.removesuffix("_stderr") in estimates
            or name.replace("_cap_nats", "_nats") in estimates
        }


_RATE = frozenset({"rate_nats", "committed_rate_nats", "slack_nats"})
_INFORMATION = frozenset({"mutual_information_nats", "mutual_information_given_length_nats", "marginal_kl_nats"})
_BOUNDS = frozenset(
    {"negative_elbo_nats", "importance_weighted_nll_nats", "nats_per_token", "perplexity_per_word", "bits_per_dim"}
)
_AUXILIARY = frozenset(f"auxiliary_{name}" for name in _BOUNDS | {"rate_nats"})
# There the distortion is -ln p(x) itself.
_WITHOUT_LATENTS = frozenset({"nats_per_token", "perplexity_per_token", "perplexity_per_word", "bits_per_dim"})
_WHERE_RATE_IS_SPENT = frozenset({"rate_by_step_and_dimension", "rate_by_position"})

PARTS = {
    part.name: part
    for part in (
        Part(
            "auxiliary_prior",
            "auxiliary prior",
            estimates=_BOUNDS | _AUXILIARY | {"rate_nats", "committed_rate_nats"},
            samples=frozenset({"samples_auxiliary"}),
        ),
        Part(
            "prior",
            "prior",
            estimates=_RATE | _INFORMATION,
            figures=_WHERE_RATE_IS_SPENT,
            samples=frozenset({"samples_prior"}),
        ),
        Part(
            "encoder",
            "encoder",
            estimates=_RATE | _INFORMATION | {"active_units", "active_units_above_0.2"},
            figures=_WHERE_RATE_IS_SPENT,
            reads=True,
        ),
        Part(
            "decoder",
            "decoder",
            estimates=frozenset({"distortion_nats", "shuffle_gap_nats"}),
            samples=frozenset({"samples_prior", "samples_auxiliary", "samples_decoder", "fixed_z"}),
            reads=True,
        ),
    )
}


def part_of(config: DeltaVaeConfig, name: str, model: object) -> Part:
    """The part of this name. Raises `ValueError` where there is none, or `model`, whose config this is, lacks it."""
    if name not in PARTS:
        raise ValueError(f"part {name!r}: a model has none of this name; choose {_listed(list(PARTS))}")
    there = [other for other in PARTS if getattr(config, other) is not None]
    if name not in there:
        raise ValueError(f"part {name!r}: {model} has none; of it can be published: {', '.join(there)}")
    return PARTS[name]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
