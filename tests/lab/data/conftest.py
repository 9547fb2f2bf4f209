"""Known sentences, and the same on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import Dataset, disable_progress_bars, enable_progress_bars


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
