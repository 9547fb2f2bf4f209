"""Images of data sets that the `datasets` library loads, by Hub name or from a local folder of parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Image

from delta_vae_lab.data.hub import load_splits
from delta_vae_lab.data.image_decoding import EncodedImage, decode_images
from delta_vae_lab.data.image_splits import ImageSplits, every_twentieth


def load_hub_images(
    spec: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    column: str | None = None,
    size: int | None = None,
    skip_unreadable: bool = False,
) -> ImageSplits:
    """The training split, and the first of validation, valid, heldout, dev and test, or else every twentieth image."""
    splits, held = load_splits(spec, config=config, revision=revision)
    train, name = splits["train"], Path(spec).resolve().name if Path(spec).is_dir() else spec
    column = _image_column(spec, train, column)
    parts: list[tuple[str, Dataset, Sequence[int]]]
    if held is None:
        parts = [("train", train.select(rows), rows) for rows in every_twentieth(len(train))]
    else:
        _image_column(spec, splits[held], column)
        parts = [(split, splits[split], range(len(splits[split]))) for split in ("train", held)]
    decoded = decode_images(
        (image for part in parts for image in _encoded(*part, column)),
        sum(len(rows) for _, _, rows in parts),
        name=name,
        size=size,
        skip_unreadable=skip_unreadable,
    )
    first_heldout = len(parts[0][2])
    source = " ".join(filter(None, (name, config, revision))) + f", held out: {held or 'every 20th image'}"
    return decoded.splits(first_heldout, name=name, source=source)


def _encoded(split: str, dataset: Dataset, rows: Sequence[int], column: str) -> Iterator[EncodedImage]:
    table = dataset.select_columns([column]).with_format("arrow")
    cells = (cell for batch in table.iter(batch_size=1000) for cell in batch[column].to_pylist())
    for row, cell in zip(rows, cells, strict=True):
        yield EncodedImage(f"row {row} of the split {split!r}", partial(_bytes, cell))


def _bytes(cell: dict[str, Any] | None) -> bytes:
    cell = cell or {}
    if cell.get("bytes") is not None:
        return cell["bytes"]
    if not cell.get("path"):
        raise ValueError("the row has no image")
    return Path(cell["path"]).read_bytes()


def _image_column(spec: str, dataset: Dataset, column: str | None) -> str:
    columns = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    if column is None and len(columns) == 1:
        return columns[0]
    if column is None or column not in columns:
        wanted = "no column is named" if column is None else f"it has no images in a column {column!r}"
        raise ValueError(
            f"data {spec!r}: {wanted}; choose data.column from its image columns {columns} "
            f"(all columns: {list(dataset.features)})"
        )
    return column
