"""Streamed batches: no sentence lost or doubled in a pass, exact resuming, each process its own share."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import IterableDataset

from delta_vae_lab.data import StreamingTextBatches, TextBatch, load_text, train_tokenizer

TOKENIZER = train_tokenizer(["number one and number two and more"] * 2, vocab_size=265)


@pytest.fixture
def stream(parquet: Path) -> IterableDataset:
    return load_text(str(parquet), streaming=True).train


def batches_of(stream: IterableDataset, **settings: Any) -> StreamingTextBatches:
    return StreamingTextBatches(stream, TOKENIZER, **{"batch_size": 4, "seed": 3, "bucket_batches": 2, **settings})


def read(batch: TextBatch) -> list[str]:
    return TOKENIZER.batch_decode(batch.input_ids, skip_special_tokens=True)


def length(sentence: str) -> int:
    return len(TOKENIZER(sentence).input_ids) - 1


def length_of_all_but_six(sentences: list[str]) -> int:
    return sorted(map(length, sentences))[-7]


def test_every_sentence_comes_once_a_pass(stream: IterableDataset, sentences: list[str]) -> None:
    """Windows of 8 and passes of 27 meet after 8 passes, with nothing left over in between."""
    seen = Counter(text for batch, _ in islice(batches_of(stream).iterate(), 8 * 27 // 4) for text in read(batch))
    assert seen == dict.fromkeys(sentences, 8)


def test_long_sentences_are_left_out_and_counted(stream: IterableDataset, sentences: list[str]) -> None:
    limit = length_of_all_but_six(sentences)
    short = [sentence for sentence in sentences if length(sentence) <= limit]
    batches = batches_of(stream, max_length=limit)
    iterator = batches.iterate()
    seen = Counter(text for batch, _ in islice(iterator, 8 * len(short) // 4) for text in read(batch))
    assert seen == dict.fromkeys(short, 8)
    dropped = [batches.dropped, next(iterator)[1]["dropped"]]
    assert len(set(dropped)) == 1
    assert 8 * (27 - len(short)) - dropped[0] in range(27 - len(short))  # the last pass is not read to its end


@pytest.mark.parametrize("layout", ["parquet", "another column", "text"])
def test_a_position_resumes_exactly(parquet: Path, sentences: list[str], layout: str, tmp_path: Path) -> None:
    """From each batch of three passes, itself resumed from the one before, through JSON."""
    folder = parquet
    if layout == "text":
        folder = tmp_path / "text"
        folder.mkdir()
        for name, text in {"0": sentences[:11], "1": sentences[11:], "heldout": ["held out"]}.items():
            (folder / f"{name}.txt").write_text("\n\n".join(text))
    stream = load_text(str(folder), column="other" if layout == "another column" else "text", streaming=True).train

    settings = {"max_length": length_of_all_but_six(sentences)}
    batches = batches_of(stream, **settings)
    whole = list(islice(batches.iterate(), 24))
    position = None
    for expected, after in whole:
        batch, position = next(batches_of(stream, **settings).iterate(position))
        position = json.loads(json.dumps(position))
        assert torch.equal(batch.input_ids, expected.input_ids)
        assert torch.equal(batch.attention_mask, expected.attention_mask)
        assert [position[key] for key in ("epoch", "dropped")] == [after[key] for key in ("epoch", "dropped")]
    again, _ = next(batches.iterate())  # the same object starts afresh
    assert torch.equal(again.input_ids, whole[0][0].input_ids)


def by_pass(batches: StreamingTextBatches) -> Iterator[tuple[str, int]]:
    """The sentences of batches of one, in the order of reading, each with the pass that it belongs to."""
    for (batch, _), (_, position) in pairwise(batches.iterate()):
        yield read(batch)[0], position["epoch"]


@pytest.mark.parametrize("files", [4, 3])
def test_processes_share_each_pass(
    stream: IterableDataset, sentences: list[str], files: int, caplog: pytest.LogCaptureFixture
) -> None:
    """By files where their number allows it, otherwise by rows, with a warning that says so."""
    if files == 3:
        parts = [sentences[:4], sentences[4:9], sentences[9:]]
        stream = IterableDataset.from_generator(rows_of, gen_kwargs={"parts": parts})
    seen: dict[int, Counter[str]] = {0: Counter(), 1: Counter()}
    for rank in (0, 1):
        for text, epoch in by_pass(batches_of(stream, rank=rank, world_size=2, batch_size=2, bucket_batches=1)):
            if epoch > 1:
                break
            seen[epoch][text] += 1
    assert seen[0] == seen[1] == dict.fromkeys(sentences, 1)
    warning = "3 files for 2 processes: every process reads all of them; a multiple of 2 would be shared out"
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [warning] * (files == 3)


def rows_of(parts: list[list[str]]) -> Iterator[dict[str, str]]:
    return ({"text": text} for part in parts for text in part)


def test_the_rows_of_the_processes_make_up_the_global_batch(stream: IterableDataset) -> None:
    parts = [next(batches_of(stream, rank=rank, world_size=2).iterate())[0] for rank in (0, 1)]
    assert [part.rows for part in parts] == [[0, 2], [1, 3]]
    assert [len(part.input_ids) for part in parts] == [2, 2]


def test_a_window_is_sorted_into_batches_in_random_order(stream: IterableDataset, sentences: list[str]) -> None:
    def window(seed: int) -> list[list[str]]:
        return [read(batch) for batch, _ in islice(batches_of(stream, bucket_batches=5, seed=seed).iterate(), 5)]

    lengths = [list(map(length, batch)) for batch in window(3)]
    assert lengths != sorted(lengths)
    assert all(max(shorter) <= min(longer) for shorter, longer in pairwise(sorted(lengths)))
    assert sorted(text for batch in window(3) for text in batch) == sorted(sentences[:20])
    assert window(3) != window(4)


def test_less_text_than_a_batch(stream: IterableDataset) -> None:
    with pytest.raises(
        ValueError, match="27 training sentences for this process do not fill its 28 rows of batch_size"
    ):
        next(batches_of(stream, batch_size=28).iterate())


def test_a_max_length_that_nothing_passes(stream: IterableDataset) -> None:
    with pytest.raises(ValueError, match="8 sentences on end are longer than max_length=2; set it higher"):
        next(batches_of(stream, max_length=2).iterate())


def test_a_batch_size_that_the_processes_cannot_share(stream: IterableDataset) -> None:
    with pytest.raises(ValueError, match="batch_size=4 cannot be shared by 3 processes; use a multiple of 3"):
        batches_of(stream, world_size=3)


@pytest.mark.parametrize("change", [{"rank": 1, "world_size": 2}, {"seed": 9}])
def test_a_position_of_another_order_is_refused(stream: IterableDataset, change: dict[str, int]) -> None:
    _, position = next(batches_of(stream).iterate())
    with pytest.raises(ValueError, match=r"the position to resume from has (\w+)=\d+, this run has \1=\d+"):
        batches_of(stream, **change).iterate(position)
