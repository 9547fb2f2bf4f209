"""Batches: every sentence once an epoch, the same order again from any position and for any number of processes."""

import json
from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from delta_vae_lab.data import TextBatch, TextBatches, TokenizedText, heldout_batches

PAD, BOS, EOS = 0, 1, 2


def text_of(lengths: list[int], dropped: int = 0) -> TokenizedText:
    """Sentence i is BOS, 10 + i repeated, EOS: `lengths[i]` tokens after BOS."""
    sentences = [[BOS, *[10 + i] * (length - 1), EOS] for i, length in enumerate(lengths)]
    offsets = np.cumsum([0, *map(len, sentences)])
    return TokenizedText(np.concatenate(sentences, dtype=np.int32), offsets, dropped)


TEXT = text_of(np.random.default_rng(0).integers(2, 30, size=103).tolist())


def batches_of(text: TokenizedText = TEXT, **settings: int) -> TextBatches:
    return TextBatches(text, pad_token_id=PAD, **{"batch_size": 10, "seed": 5, "bucket_batches": 4, **settings})


def sentence_indices(batch: TextBatch) -> list[int]:
    return (batch.input_ids[:, 1] - 10).tolist()


def epoch_of(batches: TextBatches) -> list[TextBatch]:
    return [batch for batch, _ in islice(batches.iterate(), batches.batches_per_epoch)]


def assert_equal(one: TextBatch, other: TextBatch) -> None:
    assert torch.equal(one.input_ids, other.input_ids)
    assert torch.equal(one.attention_mask, other.attention_mask)
    assert one.rows == other.rows


def test_a_batch_is_padded_on_the_right_and_masked() -> None:
    [batch] = heldout_batches(text_of([2, 4]), batch_size=2, pad_token_id=PAD)
    assert batch.input_ids.tolist() == [[BOS, 11, 11, 11, EOS], [BOS, 10, EOS, PAD, PAD]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64
    assert batch.to("meta").input_ids.device.type == "meta"
    assert batch.to("meta").rows == batch.rows == [1, 0]


def test_every_sentence_comes_once_an_epoch_but_for_the_rest_that_fills_no_batch() -> None:
    iterator = batches_of().iterate()
    missing = []
    for _ in range(3):
        seen = Counter(index for batch, _ in islice(iterator, 10) for index in sentence_indices(batch))
        assert set(seen.values()) == {1}
        assert len(seen) == 100
        missing.append(set(range(103)) - set(seen))
    assert len(set.union(*missing)) > 3  # the rest is not always the same, nor always the longest


def test_epochs_and_seeds_have_their_own_order() -> None:
    orders = {
        (seed, epoch): [
            sentence_indices(batch) for batch, _ in islice(batches_of(seed=seed).iterate(), 10 * epoch, 10 * epoch + 10)
        ]
        for seed in (5, 6)
        for epoch in (0, 1)
    }
    assert len({str(order) for order in orders.values()}) == 4
    assert orders[5, 1] == [sentence_indices(batch) for batch, _ in islice(batches_of().iterate(), 10, 20)]


def test_sentences_of_a_batch_are_of_similar_length_and_batches_in_random_order() -> None:
    epoch = epoch_of(batches_of())
    spread = [int(batch.attention_mask.sum(1).max() - batch.attention_mask.sum(1).min()) for batch in epoch]
    assert np.mean(spread) < 10  # 28 at most, and about 23 if they were not sorted
    widths = [batch.input_ids.shape[1] for batch in epoch]
    assert widths != sorted(widths)
    assert widths != sorted(widths, reverse=True)


@pytest.mark.parametrize("stop", [1, 7, 10, 11, 24])
def test_a_position_resumes_exactly(stop: int) -> None:
    """Within an epoch, at its end and in a later one, after a round trip through JSON."""
    whole = list(islice(batches_of().iterate(), 35))
    position = json.loads(json.dumps(whole[stop - 1][1]))
    for (batch, after), (expected, expected_after) in zip(
        islice(batches_of().iterate(position), 35 - stop), whole[stop:], strict=True
    ):
        assert_equal(batch, expected)
        assert after == expected_after


@pytest.mark.parametrize("world_size", [2, 5])
def test_the_processes_share_out_the_global_batch(world_size: int) -> None:
    ranks = [epoch_of(batches_of(rank=rank, world_size=world_size)) for rank in range(world_size)]
    for whole, *parts in zip(epoch_of(batches_of()), *ranks, strict=True):
        assert whole.rows == list(range(10)) == sorted(row for part in parts for row in part.rows)
        for part in parts:
            assert [sentence_indices(whole)[row] for row in part.rows] == sentence_indices(part)


def test_a_position_holds_for_another_number_of_processes() -> None:
    whole = list(islice(batches_of().iterate(), 15))
    resumed = batches_of(rank=1, world_size=2).iterate(whole[11][1])
    assert sentence_indices(next(resumed)[0]) == sentence_indices(whole[12][0])[1::2]


@pytest.mark.parametrize("limit", [None, 7, 1000])
def test_heldout_sentences_come_exactly_once_the_longest_first(limit: int | None) -> None:
    batches = list(heldout_batches(TEXT, 10, PAD, limit))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(min(limit or 103, 103)))
    assert all(sentence_indices(batch) == batch.rows for batch in batches)
    lengths = [TEXT.lengths[row] for batch in batches for row in batch.rows]
    assert lengths == sorted(lengths, reverse=True)


def test_a_batch_size_that_the_processes_cannot_share() -> None:
    with pytest.raises(ValueError, match="batch_size=10 cannot be shared by 4 processes; use a multiple of 4"):
        batches_of(world_size=4)


def test_less_text_than_a_batch() -> None:
    with pytest.raises(ValueError, match=r"9 training sentences \(3 more are longer .* smaller batch_size"):
        batches_of(text_of([5] * 9, dropped=3))
    assert batches_of(text_of([5] * 10)).batches_per_epoch == 1


@pytest.mark.parametrize("change", [{"seed": 6}, {"batch_size": 5}, {"text": text_of([5] * 50)}, {"bucket_batches": 3}])
def test_a_position_of_another_order_is_refused(change: dict[str, Any]) -> None:
    _, position = next(batches_of().iterate())
    with pytest.raises(
        ValueError, match=r"the position to resume from has (\w+)=\d+, this run has \1=\d+; resume with"
    ):
        batches_of(**change).iterate(position)


def test_dropped_sentences_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    for rank in (0, 1):
        assert batches_of(text_of([5] * 10, dropped=3), rank=rank, world_size=2).dropped == 3
    assert [record.message for record in caplog.records] == [
        "3 of 13 training sentences are longer than max_length and left out"
    ]
