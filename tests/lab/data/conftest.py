"""Known sentences and images, and the same on disk."""

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from datasets import Dataset, disable_progress_bars, enable_progress_bars
from PIL import Image

Levels = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def no_progress_bars() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture
def sentences() -> list[str]:
    """27 different sentences of 3 to 9 words."""
    return [f"number {i}" + " and" * (1 + i * i % 7) for i in range(27)]


@pytest.fixture
def parquet(tmp_path: Path, sentences: list[str]) -> Path:
    """The sentences in four files of 9, 7, 6 and 5, laid out as the Hub's parquet copy of LM1B."""
    files = {"test/0000": ["held out text", "and more of it"]}
    for shard, (start, stop) in enumerate([(0, 9), (9, 16), (16, 22), (22, 27)]):
        files[f"train/{shard:04}"] = sentences[start:stop]
    for name, texts in files.items():
        path = tmp_path / f"copy/plain_text/{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict({"text": texts, "other": texts}).to_parquet(path, batch_size=4)  # several row groups a file
    return tmp_path / "copy"


@pytest.fixture
def noise() -> Callable[..., Levels]:
    """Levels 0 to 255 of the shape that it is called with, others at every call."""
    rng = np.random.default_rng(0)
    return lambda *shape: rng.integers(0, 256, size=shape, dtype=np.uint8)


@pytest.fixture
def write_images() -> Callable[[Path, Levels], list[Path]]:
    """Write (N, C, H, W) into a folder as 0000.png ..., RGB or grey."""

    def write(folder: Path, images: Levels) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{i:04}.png" for i in range(len(images))]
        for file, levels in zip(files, images, strict=True):
            Image.fromarray(levels.transpose(1, 2, 0) if len(levels) == 3 else levels[0]).save(file)
        return files

    return write


@pytest.fixture
def digest() -> Callable[[Levels], dict[str, Any]]:
    """What a fingerprint says of a split."""
    return lambda images: {"images": len(images), "sha256": sha256(images.tobytes()).hexdigest()}
