"""What is asked of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """One `delta-vae reproduce`.

    scale: smoke (seconds: does it run), small (minutes on two cores), paper (the true sizes, for GPUs).
    seeds: each a whole repetition. output: the folder that results, figures and trained models go to; models that are
    there already are taken. data: None is what the experiment has built in. probe_data: labelled sentences for
    linear probes of models of text. jobs: models trained at a time.
    """

    scale: str
    seeds: Sequence[int]
    output: Path
    data: str | None = None
    probe_data: str | None = None
    jobs: int = 1
