"""Sentences of data sets that the `datasets` library loads, by Hub name or from a local folder of parquet files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, IterableDataset

from delta_vae_lab.data.hub import PARQUET_REVISION, load_splits

LM1B = "billion-word-benchmark/lm1b"


@dataclass(frozen=True)
class HubText:
    """The splits of a data set, each cut down to one column `text`; `heldout` is None where the data set has none."""

    train: Dataset | IterableDataset
    heldout: Dataset | IterableDataset | None
    name: str
    source: str


def load_hub_text(spec: str, *, streaming: bool, config: str | None, revision: str | None, column: str) -> HubText:
    """The training split, and the first of validation, valid, heldout, dev and test.

    LM1B's Hub repository is a script, which `datasets` no longer runs, so it is read from the Hub's parquet copy. There
    the held-out split is all fifty held-out shards, not the one shard of Tensor2Tensor's protocol.
    """
    spec = LM1B if spec == "lm1b" else spec
    revision = PARQUET_REVISION if spec == LM1B and revision is None else revision
    splits, heldout = load_splits(spec, streaming=streaming, config=config, revision=revision)
    for split in filter(None, ("train", heldout)):
        features = splits[split].features or {}
        if getattr(features.get(column), "dtype", None) not in ("string", "large_string"):
            raise ValueError(
                f"data {spec!r} has no text in a column {column!r} of its split {split!r}; choose from {list(features)}"
            )
    name = Path(spec).resolve().name if Path(spec).is_dir() else spec
    return HubText(
        train=_only(column, splits["train"]),
        heldout=_only(column, splits[heldout]) if heldout else None,
        name=name,
        source=" ".join(filter(None, (name, config, revision))) + (f", held out: {heldout}" if heldout else ""),
    )


def all_sentences(dataset: Dataset | IterableDataset) -> Iterator[str]:
    """The sentences of the column `text`, read by the thousand."""
    return not_blank(text for batch in dataset.iter(batch_size=1000) for text in batch["text"])


def not_blank(texts: Iterable[str | None]) -> Iterator[str]:
    """Each text stripped, if anything is left."""
    return (text.strip() for text in texts if text and not text.isspace())


def _only(column: str, dataset: Dataset | IterableDataset) -> Dataset | IterableDataset:
    dataset = dataset.select_columns([column])
    return dataset if column == "text" else dataset.rename_column(column, "text")
