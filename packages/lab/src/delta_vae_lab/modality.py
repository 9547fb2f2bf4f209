"""The words and units of a kind of data, as results.json, tables and figures use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Modality:
    """Names, in metrics, of what there is of one kind of data.

    example, examples: one of the evaluation set, and the metric that counts them. unit, units: what a likelihood is
    shared out to, and the metric that counts them. units_per_example: of a training batch. bound: the negative ELBO a
    unit, in bound_unit.
    """

    example: str
    examples: str
    unit: str
    units: str
    units_per_example: str
    bound: str
    bound_unit: str

    @property
    def an_example(self) -> str:
        """With its article, as in nats a sentence, nats an image."""
        return f"{'an' if self.example[0] in 'aeiou' else 'a'} {self.example}"


TEXT = Modality("sentence", "sentences", "token", "tokens", "tokens_per_sequence", "nats_per_token", "nats a token")
IMAGES = Modality("image", "images", "dimension", "dimensions", "dimensions_per_image", "bits_per_dim", "bits/dim")
# What an outside VAE is about, whatever it is; its dimensions are counted only if they are told.
EXAMPLES = Modality(
    "example", "examples", "dimension", "dimensions", "dimensions_per_example", "bits_per_dim", "bits/dim"
)


def modality_of(metrics: Mapping[str, Any]) -> Modality:
    """The kind of data that these metrics are of."""
    return next((kind for kind in (IMAGES, EXAMPLES) if kind.examples in metrics), TEXT)
