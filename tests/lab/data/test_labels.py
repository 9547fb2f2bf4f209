"""Labels line up with exactly the images and sentences that are used."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from sklearn.datasets import load_digits

from delta_vae_lab.data import load_images, load_text
from delta_vae_lab.data.labels import labelled_images, labelled_text

SHARED = Path(__file__).parents[3] / "../shared/data"
KINDS = ClassLabel(names=["cat", "dog", "owl"])
BROKEN = b"not an image"


def png(value: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(file: Path, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=Features(features)).to_parquet(file, batch_size=4)  # several row groups


def write_images(file: Path, values: list[int], broken: tuple[int, ...] = ()) -> None:
    """Images of one level each, whose label is that level modulo 3."""
    cells = [{"bytes": BROKEN if value in broken else png(value), "path": None} for value in values]
    columns = {"img": cells, "label": [value % 3 for value in values], "level": values}
    write(file, columns, {"img": ImageFeature(), "label": KINDS, "level": Value("int64")})


def write_text(file: Path, texts: list[str | None], labels: list[Any], kind: Any = KINDS, column: str = "text") -> None:
    write(file, {column: texts, "label": labels}, {column: Value("string"), "label": kind})


def test_digits_are_labelled_in_the_order_of_their_images() -> None:
    images, labels = labelled_images("builtin")
    digits = load_digits()
    pixels = np.concatenate([images.train, images.heldout]).reshape(1797, -1)
    assert np.array_equal(pixels, digits.data)
    assert np.array_equal(np.concatenate([labels.train, labels.heldout]), digits.target)
    assert (len(labels.train), len(labels.heldout)) == (len(images.train), len(images.heldout))
    assert labels.names == tuple("0123456789")


@pytest.mark.parametrize("heldout", [True, False])
def test_images_that_cannot_be_read_take_their_labels_with_them(tmp_path: Path, heldout: bool) -> None:
    write_images(tmp_path / "train.parquet", list(range(50)), broken=(0, 7, 19, 20))
    if heldout:
        write_images(tmp_path / "test.parquet", list(range(50, 60)), broken=(51,))
    images, labels = labelled_images(str(tmp_path))
    assert images.fingerprint["unreadable"] == (5 if heldout else 4)
    for pixels, classes in ((images.train, labels.train), (images.heldout, labels.heldout)):
        assert (pixels[:, 0, 0, 0] % 3).tolist() == classes.tolist()
    assert len(labels.train) + len(labels.heldout) == (55 if heldout else 46)
    assert (labels.names, labels.column) == (("cat", "dog", "owl"), "label")


def test_another_column_can_be_the_label(tmp_path: Path) -> None:
    write_images(tmp_path / "train.parquet", [5, 9, 5, 7])
    _, labels = labelled_images(str(tmp_path), "level")
    assert labels.names == ("5", "7", "9")
    assert [labels.names[label] for label in (*labels.train, *labels.heldout)] == ["5", "9", "5", "7"]


@pytest.mark.parametrize("heldout", [True, False])
def test_blank_sentences_take_their_labels_with_them(tmp_path: Path, heldout: bool) -> None:
    texts = [None if i % 7 == 0 else "  " if i % 7 == 1 else f"sentence of {i % 3}" for i in range(60)]
    write_text(tmp_path / "train.parquet", texts, [i % 3 for i in range(60)])
    if heldout:
        write_text(tmp_path / "validation.parquet", texts[:20], [i % 3 for i in range(20)])
    text, labels = labelled_text(str(tmp_path))
    assert text == load_text(str(tmp_path))
    for sentences, classes in ((list(text.train), labels.train), (text.heldout, labels.heldout)):
        assert [int(sentence[-1]) for sentence in sentences] == classes.tolist()


def test_a_missing_label_is_no_class(tmp_path: Path) -> None:
    write_text(tmp_path / "train.parquet", ["a", "b", "c", "d"], [0, None, -1, 2])
    write_text(tmp_path / "test.parquet", ["e"], [1])
    _, labels = labelled_text(str(tmp_path))
    assert labels.train.tolist() == [0, -1, -1, 2]
    write_text(tmp_path / "words/train.parquet", ["a", "b", "c"], ["x", None, "w"], Value("string"), column="text")
    write_text(tmp_path / "words/test.parquet", ["e"], ["x"], Value("string"))
    _, labels = labelled_text(str(tmp_path / "words"), "label")
    assert labels.train.tolist() == [1, -1, 0]
    assert labels.heldout.tolist() == [1]


def test_the_only_column_of_strings_holds_the_sentences(tmp_path: Path) -> None:
    write_text(tmp_path / "train.parquet", ["a b", "c d", "e f"], [0, 1, 2], column="sentence")
    text, labels = labelled_text(str(tmp_path))
    assert [*text.train, *text.heldout] == ["a b", "c d", "e f"]
    assert [*labels.train, *labels.heldout] == [0, 1, 2]


def test_the_fingerprint_tells_labels_apart(tmp_path: Path) -> None:
    for name, last in (("one", 2), ("other", 1)):
        write_text(tmp_path / f"{name}/train.parquet", ["a", "b", "c"], [0, 1, last])
    fingerprints = [labelled_text(str(tmp_path / name))[1].fingerprint for name in ("one", "other")]
    assert fingerprints[0]["sha256"]["train"] == fingerprints[1]["sha256"]["train"]
    assert fingerprints[0]["sha256"]["heldout"] != fingerprints[1]["sha256"]["heldout"]
    assert fingerprints[0]["classes"] == ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("read", "data", "column", "message"),
    [
        (labelled_text, "builtin", None, r"data 'builtin' has no labels; give the built-in digits, or a folder"),
        (labelled_text, "lines.txt", None, r"lines.txt' has no labels; give"),
        (labelled_text, "images", None, r"images' has no text, only the columns \['img', 'label', 'level'\]"),
        (labelled_images, "text", None, r"text' has no images, only the columns \['text', 'label'\]"),
        (labelled_images, "builtin", "kind", r"label_column='kind': the built-in digits have no columns"),
        (labelled_images, "cifar", None, r"cifar': no labels are read of this layout; give"),
        (labelled_text, "plain", None, r"plain' has no columns of class labels; name one with label_column, of \['te"),
        (labelled_text, "text", "mood", r"label_column='mood': .* has no labels there, .* choose from \['text', 'lab"),
        (labelled_images, "images", "img", r"label_column='img': .* has no labels there"),
        (labelled_text, "pairs", None, r"pairs' has several columns of strings, \['first', 'second'\]"),
    ],
)
def test_data_without_usable_labels(
    tmp_path: Path, read: Callable[..., Any], data: str, column: str | None, message: str
) -> None:
    write_images(tmp_path / "images/train.parquet", [1, 2, 3])
    write_text(tmp_path / "text/train.parquet", ["a", "b", "c"], [0, 1, 2])
    write_text(tmp_path / "plain/train.parquet", ["a", "b", "c"], [0, 1, 2], Value("int64"))
    pairs = {"first": Value("string"), "second": Value("string"), "label": KINDS}
    write(tmp_path / "pairs/train.parquet", {"first": ["a"], "second": ["b"], "label": [0]}, pairs)
    (tmp_path / "lines.txt").write_text("a\nb\n")
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar/data_batch_1.bin").write_bytes(b"")
    spec = data if data == "builtin" else str(tmp_path / data)
    with pytest.raises(ValueError, match=message) as error:
        read(spec, column)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "cifar10-lossless").is_dir(), reason="needs the shared copy of CIFAR-10")
def test_cifar10_has_its_ten_classes() -> None:
    images, labels = labelled_images(str(SHARED / "cifar10-lossless"))
    assert np.array_equal(images.heldout, load_images(str(SHARED / "cifar10-lossless")).heldout)
    assert labels.names[labels.train[0]] == "frog", "the first image of CIFAR-10"
    assert [labels.names[label] for label in labels.heldout[:4]] == ["cat", "ship", "ship", "airplane"]
