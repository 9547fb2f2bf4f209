"""Training batches from a stream too large to hold: windows of sentences, in an order that resumes exactly."""

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from transformers import PreTrainedTokenizerFast

from delta_vae_lab.data.batch import check_position, rows_per_process
from delta_vae_lab.data.hub_text import not_blank
from delta_vae_lab.data.text_batches import BUCKET_BATCHES, TextBatch, bucketed, collate
from delta_vae_lab.data.tokens import tokenize
from delta_vae_lab.randomness import derive_seed

logger = logging.getLogger(__name__)


class StreamingTextBatches:
    """Endless training batches over a stream of rows `{"text": sentence}`; the interface of `TextBatches`.

    Each process reads its own share of the stream into windows of exactly `bucket_batches` batches, sorts and shuffles
    inside the window, and goes on into the next pass over the stream inside a window. So nothing is left over, every
    sentence of at most `max_length` tokens comes once a pass, and no process waits for another that has run out.

    Shards: where the number of files is a multiple of `world_size`, each process reads its own files; otherwise every
    process reads all of them and keeps every `world_size`-th row, which costs `world_size` times the reading.

    A position belongs to one process (save one a rank) and to one `world_size`. It holds the state of the stream at the
    start of the window, so resuming reads one window again.
    """

    def __init__(
        self,
        stream: IterableDataset,
        tokenizer: PreTrainedTokenizerFast,
        *,
        batch_size: int,
        seed: int,
        max_length: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        bucket_batches: int = BUCKET_BATCHES,
    ) -> None:
        self.rows_per_process = rows_per_process(batch_size, world_size)
        if rank == 0 and stream.num_shards % world_size:
            logger.warning(
                "%d files for %d processes: every process reads all of them; a multiple of %d would be shared out",
                stream.num_shards,
                world_size,
                world_size,
            )
        self.stream = stream
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.seed = seed
        self.max_length = max_length
        self.rank = rank
        self.world_size = world_size
        self.bucket_batches = bucket_batches
        self.dropped = 0

    def iterate(self, position: dict[str, Any] | None = None) -> Iterator[tuple[TextBatch, dict[str, Any]]]:
        """Batches without end, each with the JSON-serialisable position that resumes this process after it."""
        order = {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "bucket_batches": self.bucket_batches,
            "rank": self.rank,
            "world_size": self.world_size,
        }
        position = position or {**order, "epoch": 0, "stream": None, "window": 0, "batch": 0, "dropped": 0}
        check_position(position, order)
        return self._iterate(position)

    def _iterate(self, position: dict[str, Any]) -> Iterator[tuple[TextBatch, dict[str, Any]]]:
        stream = split_dataset_by_node(self.stream, self.rank, self.world_size)
        stream.set_epoch(position["epoch"])
        if position["stream"] is not None:
            stream.load_state_dict(position["stream"])
        self.dropped = position["dropped"]
        sentences = self._sentences(stream, whole_pass=position["stream"] is None)
        rows = list(range(self.rank, self.batch_size, self.world_size))
        while True:
            window = self._window(sentences)
            lengths = np.array([len(sentence) for sentence in window])
            # The same for every process, so that the batches of one step are of similar length everywhere.
            rng = np.random.default_rng(derive_seed(self.seed, "windows", position["window"]))
            batches = bucketed(lengths, len(rows), self.bucket_batches, rng)
            for index in range(position["batch"], len(batches)):
                batch = collate([window[i] for i in batches[index]], self.tokenizer.pad_token_id, rows)
                yield batch, {**position, "batch": index + 1}
            position = {
                **position,
                "epoch": stream.epoch,
                "stream": stream.state_dict(),
                "window": position["window"] + 1,
                "batch": 0,
                "dropped": self.dropped,
            }

    def _window(self, sentences: Iterator[str]) -> list[npt.NDArray[np.int32]]:
        """Just enough sentences of at most `max_length` tokens, read no further, for `bucket_batches` batches."""
        size = self.bucket_batches * self.rows_per_process
        window: list[npt.NDArray[np.int32]] = []
        while missing := size - len(window):
            text = tokenize(
                self.tokenizer, list(islice(sentences, missing)), max_length=self.max_length, too_long="drop"
            )
            if text.dropped == size:
                raise ValueError(f"{size} sentences on end are longer than max_length={self.max_length}; set it higher")
            window.extend(text)
            self.dropped += text.dropped
        return window

    def _sentences(self, stream: IterableDataset, whole_pass: bool) -> Iterator[str]:
        """Pass after pass over this process's share of the stream, which its `epoch` counts."""
        while True:
            read = 0
            for sentence in not_blank(row["text"] for row in stream):
                read += 1
                yield sentence
            if whole_pass and read < self.rows_per_process:
                raise ValueError(
                    f"{read} training sentences for this process do not fill its {self.rows_per_process} rows of "
                    f"batch_size={self.batch_size}; use a smaller batch_size or more text"
                )
            logger.info("end of pass %d; sentences left out as too long so far: %d", stream.epoch + 1, self.dropped)
            stream.set_epoch(stream.epoch + 1)
            whole_pass = True
