"""Class labels of exactly the images or sentences that a run uses, for probes of what latents know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import ClassLabel, Dataset, Image

from delta_vae_lab.data.cifar10 import find_cifar10
from delta_vae_lab.data.digits import FIRST_HELDOUT
from delta_vae_lab.data.hub import load_splits
from delta_vae_lab.data.image_splits import ImageSplits, every_twentieth
from delta_vae_lab.data.imagenet32 import find_imagenet32
from delta_vae_lab.data.images import load_images
from delta_vae_lab.data.spec import check_spec
from delta_vae_lab.data.text import TextSplits, load_text

UNLABELLED = -1  # as `datasets` has it, for instance in the test split of a contest

Classes = npt.NDArray[np.int64]

_STRINGS = ("string", "large_string")
_CLASSES = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)), *_STRINGS)
_LABELLED = "give the built-in digits, or a folder of *.parquet files or a Hub data set with a column of labels"


@dataclass(frozen=True)
class Labels:
    """Class indices (N,) into `names`, in the order of the training and of the held-out examples.

    `column`: what they were called in the data. An example without a label has UNLABELLED.
    """

    train: Classes
    heldout: Classes
    names: tuple[str, ...]
    column: str

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What a result says of them: the column, the classes, and the SHA-256 of each split as int64."""
        splits = {"train": self.train, "heldout": self.heldout}
        digests = {name: sha256(np.ascontiguousarray(labels).data).hexdigest() for name, labels in splits.items()}
        return {"column": self.column, "classes": list(self.names), "sha256": digests}


def labelled_images(spec: str, column: str | None = None) -> tuple[ImageSplits, Labels]:
    """`load_images(spec)` without the images that cannot be read, and the label of every other.

    Labels: the digits' own (`builtin`), or the column of a folder of parquet files or of a Hub data set; by default the
    only one of its `ClassLabel` columns.
    """
    if spec == "builtin":
        if column is not None:
            raise ValueError(f"label_column={column!r}: the built-in digits have no columns; leave it out")
        return load_images(spec), _digit_labels()
    path = Path(spec).expanduser()
    if path.exists() and (find_cifar10(path) or find_imagenet32(path)):
        raise ValueError(f"data {spec!r}: no labels are read of this layout; {_LABELLED}")
    splits, held = _table(spec)
    if not any(isinstance(feature, Image) for feature in splits["train"].features.values()):
        raise ValueError(f"data {spec!r} has no images, only the columns {_listed(splits)}; the model is of images")
    column = _label_column(spec, splits["train"], column)
    images = load_images(spec, skip_unreadable=True)
    cells = {name: _cells(splits[name], column) for name in ("train", held) if name is not None}
    if held is None:
        train, heldout = ([cells["train"][row] for row in rows] for rows in every_twentieth(len(cells["train"])))
    else:
        train, heldout = cells["train"], cells[held]
    if images.readable is not None:
        kept, first = images.readable.tolist(), len(train)
        train = [cell for cell, readable in zip(train, kept[:first], strict=True) if readable]
        heldout = [cell for cell, readable in zip(heldout, kept[first:], strict=True) if readable]
    labels = _labels(train, heldout, splits["train"].features[column], column)
    _check_aligned(labels, len(images.train), len(images.heldout))
    return images, labels


def labelled_text(spec: str, column: str | None = None) -> tuple[TextSplits, Labels]:
    """`load_text(spec)` and the label of every sentence that is not blank.

    The data are a folder of parquet files or a Hub data set, of which the sentences are the column `text` or else the
    only one of strings, and the labels as in `labelled_images`.
    """
    splits, held = _table(spec)
    sentences = _sentence_column(spec, splits)
    column = _label_column(spec, splits["train"], column)
    text = load_text(spec, column=sentences)
    train = list(_of_sentences(splits["train"], sentences, column))
    assert isinstance(text.train, list)
    cut = len(text.train)
    heldout = train[cut:] if held is None else list(_of_sentences(splits[held], sentences, column))
    labels = _labels(train[:cut] if held is None else train, heldout, splits["train"].features[column], column)
    _check_aligned(labels, cut, len(text.heldout))
    return text, labels


def _digit_labels() -> Labels:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - it takes two seconds, which no other data should pay

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    return Labels(labels[:FIRST_HELDOUT], labels[FIRST_HELDOUT:], tuple(map(str, digits.target_names)), "target")


def _table(spec: str) -> tuple[dict[str, Dataset], str | None]:
    """The splits of a data set with columns, and which of them is held out, if any."""
    check_spec(spec)
    path = Path(spec).expanduser()
    if spec == "builtin" or path.is_file() or (path.is_dir() and next(path.rglob("*.parquet"), None) is None):
        raise ValueError(f"data {spec!r} has no labels; {_LABELLED}")
    return load_splits(str(path) if path.is_dir() else spec)


def _sentence_column(spec: str, splits: dict[str, Dataset]) -> str:
    columns = [name for name, f in splits["train"].features.items() if getattr(f, "dtype", "") in _STRINGS]
    if "text" in columns or len(columns) == 1:
        return "text" if "text" in columns else columns[0]
    if not columns:
        raise ValueError(f"data {spec!r} has no text, only the columns {_listed(splits)}; the model is of text")
    raise ValueError(f"data {spec!r} has several columns of strings, {columns}; rename that of the sentences to 'text'")


def _label_column(spec: str, train: Dataset, column: str | None) -> str:
    classes = [name for name, feature in train.features.items() if isinstance(feature, ClassLabel)]
    if column is None:
        if len(classes) == 1:
            return classes[0]
        raise ValueError(
            f"data {spec!r} has {len(classes) or 'no'} columns of class labels; name one with label_column, "
            f"of {classes or list(train.features)}"
        )
    feature = train.features.get(column)
    if not isinstance(feature, ClassLabel) and getattr(feature, "dtype", None) not in _CLASSES:
        raise ValueError(
            f"label_column={column!r}: data {spec!r} has no labels there, which are classes, integers or strings; "
            f"choose from {list(train.features)}"
        )
    return column


def _cells(dataset: Dataset, column: str) -> list[Any]:
    return list(dataset.select_columns([column])[column])


def _of_sentences(dataset: Dataset, sentences: str, column: str) -> Iterator[Any]:
    """The cells of `column` beside a sentence that is not blank, as `load_text` keeps them."""
    for batch in dataset.select_columns([sentences, column]).iter(batch_size=1000):
        for sentence, cell in zip(batch[sentences], batch[column], strict=True):
            if sentence and not sentence.isspace():
                yield cell


def _labels(train: Sequence[Any], heldout: Sequence[Any], feature: Any, column: str) -> Labels:
    """Class indices: the feature's own, or else by the order of the values in the training labels."""
    if isinstance(feature, ClassLabel):
        splits = [[UNLABELLED if cell is None else cell for cell in cells] for cells in (train, heldout)]
        names = tuple(feature.names)
    else:
        values = sorted({cell for cells in (train, heldout) for cell in cells if cell is not None})
        index = {value: place for place, value in enumerate(values)}
        splits = [[index.get(cell, UNLABELLED) for cell in cells] for cells in (train, heldout)]
        names = tuple(map(str, values))
    first, second = (np.array(labels, dtype=np.int64) for labels in splits)
    return Labels(first, second, names, column)


def _check_aligned(labels: Labels, train: int, heldout: int) -> None:
    assert (len(labels.train), len(labels.heldout)) == (train, heldout), "a label for each that is used, and no other"


def _listed(splits: dict[str, Dataset]) -> list[str]:
    return list(splits["train"].features)
