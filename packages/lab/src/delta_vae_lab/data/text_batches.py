"""Batches of sentences of similar length: in an order that resumes exactly for training, each once for evaluation."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from delta_vae_lab.data.batch import check_position, rows_per_process
from delta_vae_lab.data.tokens import TokenizedText
from delta_vae_lab.modality import TEXT, Modality
from delta_vae_lab.randomness import derive_seed

BUCKET_BATCHES = 50  # sentences are sorted by length among this many batches: little padding, still random company

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextBatch:
    """Right-padded rows BOS x_1 ... x_n EOS of one process, and each row's place.

    input_ids, attention_mask: (b, L+1) int64. rows: in training the row's index in the global batch, in evaluation the
    sentence's index in the held-out text; neither depends on padding or on the number of processes.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    rows: list[int]

    @property
    def modality(self) -> Modality:
        return TEXT

    @property
    def steps(self) -> torch.Tensor:
        """(b, L): one latent a predicted token."""
        return self.attention_mask[:, 1:].bool()

    @property
    def units(self) -> torch.Tensor:
        """(b,), predicted tokens."""
        return self.steps.sum(1)

    def inputs(self) -> dict[str, torch.Tensor]:
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    def part(self, rows: slice) -> "TextBatch":
        return TextBatch(self.input_ids[rows], self.attention_mask[rows], self.rows[rows])

    def to(self, device: torch.device | str) -> "TextBatch":
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
        )


class TextBatches:
    """Endless training batches over tokenised sentences.

    An epoch's order follows from (seed, epoch) alone: a random permutation, whose end that fills no batch is left out
    (other sentences each epoch), sorted by length inside buckets of `bucket_batches` batches, the batches shuffled. Of
    each global batch a process takes every `world_size`-th row, so neither the order nor a position depends on the
    number of processes.
    """

    def __init__(
        self,
        text: TokenizedText,
        *,
        batch_size: int,
        pad_token_id: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        bucket_batches: int = BUCKET_BATCHES,
    ) -> None:
        rows_per_process(batch_size, world_size)
        if len(text) < batch_size:
            raise ValueError(
                f"{len(text)} training sentences ({text.dropped} more are longer than max_length) do not fill one "
                f"batch of batch_size={batch_size}; use a smaller batch_size, a larger max_length or more text"
            )
        if text.dropped and rank == 0:
            logger.warning(
                "%d of %d training sentences are longer than max_length and left out",
                text.dropped,
                len(text) + text.dropped,
            )
        self.text = text
        self.batch_size = batch_size
        self.pad_token_id = pad_token_id
        self.seed = seed
        self.rows = list(range(rank, batch_size, world_size))
        self.bucket_batches = bucket_batches
        self.dropped = text.dropped

    @property
    def batches_per_epoch(self) -> int:
        return len(self.text) // self.batch_size

    def iterate(self, position: dict[str, Any] | None = None) -> Iterator[tuple[TextBatch, dict[str, Any]]]:
        """Batches without end, each with the JSON-serialisable position that resumes after it."""
        order = {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "bucket_batches": self.bucket_batches,
            "sentences": len(self.text),
        }
        position = position or {**order, "epoch": 0, "batch": 0}
        check_position(position, order)
        return self._iterate(position)

    def _iterate(self, position: dict[str, Any]) -> Iterator[tuple[TextBatch, dict[str, Any]]]:
        first = position["batch"]
        for epoch in count(position["epoch"]):
            rng = np.random.default_rng(derive_seed(self.seed, "batches", epoch))
            batches = bucketed(self.text.lengths, self.batch_size, self.bucket_batches, rng)
            for index, batch in enumerate(batches[first:], start=first + 1):
                sentences = [self.text[i] for i in batch[self.rows]]
                yield collate(sentences, self.pad_token_id, self.rows), {**position, "epoch": epoch, "batch": index}
            first = 0


def heldout_batches(
    text: TokenizedText, batch_size: int, pad_token_id: int, limit: int | None = None
) -> Iterator[TextBatch]:
    """Every sentence of the first `limit` exactly once, the longest first, so that a lack of memory shows at once."""
    order = np.argsort(-text.lengths[:limit], kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size].tolist()
        yield collate([text[row] for row in rows], pad_token_id, rows)


def bucketed(
    lengths: npt.NDArray[np.int64], batch_size: int, bucket_batches: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Indices of sentences of similar length, in random order: (N,) -> (N // batch_size, batch_size)."""
    batches = len(lengths) // batch_size
    chosen = rng.permutation(len(lengths))[: batches * batch_size]
    bucket = np.arange(len(chosen)) // (bucket_batches * batch_size)
    by_length = chosen[np.lexsort((lengths[chosen], bucket))]
    return rng.permutation(by_length.reshape(batches, batch_size))


def collate(sentences: Sequence[npt.NDArray[np.int32]], pad_token_id: int, rows: list[int]) -> TextBatch:
    """Sentences of ids (l,) each, padded on the right to the longest: (b, L+1)."""
    lengths = np.array([len(sentence) for sentence in sentences])
    mask = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
    input_ids[mask] = np.concatenate(sentences)
    return TextBatch(torch.from_numpy(input_ids), torch.from_numpy(mask.astype(np.int64)), rows)
