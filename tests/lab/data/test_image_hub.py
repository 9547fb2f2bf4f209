"""Data sets with a column of images, as `datasets` lays them out on the Hub and on disk."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image

from delta_vae_lab.data import hub, load_images

CIFAR10_LOSSLESS = Path(__file__).parents[3] / "../shared/data/cifar10-lossless"


def png(levels: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(levels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(file: Path, cells: list[bytes | None], column: str = "img", **others: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    features = Features({column: ImageFeature(), "label": Value("int64")} | {name: ImageFeature() for name in others})
    rows = [None if cell is None else {"bytes": cell, "path": None} for cell in cells]
    columns = {column: rows, "label": list(range(len(cells))), **others}
    Dataset.from_dict(columns, features=features).to_parquet(file, batch_size=4)  # several row groups


@pytest.fixture
def images(noise: Callable[..., Any]) -> Any:
    """23 to train on and four to hold out."""
    return noise(27, 3, 6, 5)


@pytest.fixture
def copy(tmp_path: Path, images: Any) -> Path:
    """Laid out as the Hub's CIFAR-10, in two files."""
    for name, part in (("train-00000", images[:9]), ("train-00001", images[9:23]), ("test-00000", images[23:])):
        write_parquet(tmp_path / f"copy/plain_text/{name}-of-00002.parquet", list(map(png, part)))
    return tmp_path / "copy"


def test_parquet_files_are_read_in_order(copy: Path, images: Any, digest: Callable[..., Any]) -> None:
    splits = load_images(str(copy))
    assert np.array_equal(splits.train, images[:23])
    assert np.array_equal(splits.heldout, images[23:])
    assert (splits.name, splits.levels) == ("copy", 256)
    assert splits.fingerprint == {
        "source": "copy, held out: test",
        "train": digest(images[:23]),
        "heldout": digest(images[23:]),
    }


@pytest.mark.parametrize("spec", ["cifar10", "uoft-cs/cifar10"])
def test_a_name_on_the_hub(monkeypatch: pytest.MonkeyPatch, copy: Path, images: Any, spec: str) -> None:
    def load(name: str, config: str, revision: str, streaming: bool) -> Any:
        assert (name, config, revision, streaming) == (spec, "plain_text", "abc", False)
        return load_dataset(str(copy))

    monkeypatch.setattr(hub, "load_dataset", load)
    splits = load_images(spec, config="plain_text", revision="abc")
    assert np.array_equal(splits.heldout, images[23:])
    assert splits.name == spec
    assert splits.fingerprint["source"] == f"{spec} plain_text abc, held out: test"


def test_validation_is_held_out_before_test(tmp_path: Path, images: Any) -> None:
    for name, part in (("train", images[:3]), ("validation", images[3:5]), ("test", images[5:])):
        write_parquet(tmp_path / f"{name}.parquet", list(map(png, part)))
    assert np.array_equal(load_images(str(tmp_path)).heldout, images[3:5])


def test_every_twentieth_row_is_held_out_where_nothing_else_is(tmp_path: Path, images: Any) -> None:
    write_parquet(tmp_path / "data/train.parquet", list(map(png, images)))
    splits = load_images(str(tmp_path / "data"))
    assert np.array_equal(splits.heldout, images[[19]])
    assert np.array_equal(splits.train, np.delete(images, 19, axis=0))
    assert splits.fingerprint["source"] == "data, held out: every 20th image"


def test_the_column_must_be_named_where_several_hold_images(tmp_path: Path, images: Any) -> None:
    cells = list(map(png, images[:2]))
    write_parquet(tmp_path / "train.parquet", cells, other=[{"bytes": cell, "path": None} for cell in cells[::-1]])
    for column, rule in ((None, "no column is named"), ("label", "it has no images in a column 'label'")):
        with pytest.raises(
            ValueError, match=rf"{rule}; choose data.column from its image columns \['img', 'other'\] \(all columns"
        ):
            load_images(str(tmp_path), column=column)
    assert np.array_equal(load_images(str(tmp_path), column="other").train, images[[1]])


def test_data_without_images(tmp_path: Path) -> None:
    Dataset.from_dict({"text": ["one", "two"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"no column is named; .* image columns \[\] \(all columns: \['text'\]\)"):
        load_images(str(tmp_path))


def test_a_held_out_split_without_the_column(tmp_path: Path, images: Any) -> None:
    class Splits(dict):
        """Two splits of different columns, which one data set can have on the Hub but not in parquet files."""

    write_parquet(tmp_path / "a/train.parquet", list(map(png, images[:2])))
    write_parquet(tmp_path / "b/train.parquet", list(map(png, images[:2])), column="image")
    train, test = (load_dataset(str(tmp_path / name), split="train") for name in ("a", "b"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "load_dataset", lambda *_, **__: Splits(train=train, test=test))
        with pytest.raises(ValueError, match=r"it has no images in a column 'img'; .* image columns \['image'\]"):
            load_images("somebody/something")


def test_broken_rows_are_named_by_split_and_row_and_skipped_on_request(
    tmp_path: Path, images: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cells: list[bytes | None] = list(map(png, images))
    cells[5], cells[22], cells[25] = None, b"no image", cells[25][:-30]
    write_parquet(tmp_path / "data/train.parquet", cells[:23])
    write_parquet(tmp_path / "data/test.parquet", cells[23:])
    with pytest.raises(
        ValueError,
        match=r"^3 of 27 images of data 'data' cannot be read, first row 5 of the split 'train' \(the row has no",
    ):
        load_images(str(tmp_path / "data"))
    splits = load_images(str(tmp_path / "data"), skip_unreadable=True)
    assert np.array_equal(splits.train, np.delete(images[:23], [5, 22], axis=0))
    assert np.array_equal(splits.heldout, images[[23, 24, 26]])
    assert splits.fingerprint["unreadable"] == 3
    assert "3 of 27 images" in caplog.text


def test_images_beside_the_table(tmp_path: Path, images: Any, write_images: Callable[..., list[Path]]) -> None:
    """A data set may hold the paths of its images, as those do that `datasets` has unpacked from an archive."""
    files = write_images(tmp_path / "files", images[:3])
    rows = {"image": [{"bytes": None, "path": str(file)} for file in files]}
    dataset = Dataset.from_dict(rows, features=Features({"image": ImageFeature()}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "load_dataset", lambda *_, **__: {"train": dataset})
        splits = load_images("somebody/something")
    assert np.array_equal(np.concatenate([splits.train, splits.heldout]), images[:3])


def test_a_table_without_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/train.parquet", [])
    with pytest.raises(ValueError, match="data '(data|.*/data)' (has no images|cannot be loaded)"):
        load_images(str(tmp_path / "data"))


def test_resized_rows_change_the_name(copy: Path) -> None:
    splits = load_images(str(copy), size=4)
    assert (splits.name, splits.shape) == ("copy-resized-4x4", (3, 4, 4))


@pytest.mark.skipif(not CIFAR10_LOSSLESS.is_dir(), reason="needs ../shared/data/cifar10-lossless")
def test_cifar10_in_earnest() -> None:
    splits = load_images(str(CIFAR10_LOSSLESS))
    assert splits.train.shape == (5170, 3, 32, 32)
    assert splits.heldout.shape == (1017, 3, 32, 32)
    assert (splits.name, splits.levels) == ("cifar10-lossless", 256)
    first = load_dataset(str(CIFAR10_LOSSLESS), split="test")[0]["img"]
    assert np.array_equal(splits.heldout[0], np.asarray(first).transpose(2, 0, 1))
