"""Tokenised sentences, packed into one flat array."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

CHUNK = 10_000  # sentences tokenised at a time: bounds the memory that their encodings take


@dataclass(frozen=True)
class TokenizedText:
    """Sentence i is BOS x_1 ... x_n EOS = `tokens[offsets[i] : offsets[i + 1]]`; `dropped` more were too long."""

    tokens: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[np.int32]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[npt.NDArray[np.int32]]:
        return map(self.__getitem__, range(len(self)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """L of each sentence, (N,): the tokens to predict, EOS included and BOS not."""
        return np.diff(self.offsets) - 1


def tokenize(
    tokenizer: PreTrainedTokenizerFast,
    sentences: Sequence[str],
    *,
    max_length: int | None = None,
    too_long: Literal["raise", "drop"] = "raise",
) -> TokenizedText:
    """Tokenise `sentences`, of at most `max_length` predicted tokens each (EOS included, BOS not).

    Nothing is truncated. A longer sentence is an error, so that an evaluation covers all that it says it covers; with
    `too_long="drop"`, for training text, it is left out and counted.
    """
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    flat, sizes = array("i"), array("q")
    for start in range(0, len(sentences), CHUNK):
        for encoding in encode(sentences[start : start + CHUNK]):
            flat.extend(encoding.ids)
            sizes.append(len(encoding.ids))
    tokens, lengths = np.asarray(flat, dtype=np.int32), np.asarray(sizes, dtype=np.int64) - 1
    fits = lengths <= (lengths.max(initial=0) if max_length is None else max_length)
    if too_long == "raise" and not fits.all():
        raise ValueError(
            f"{np.sum(~fits)} of {len(fits)} sentences have more than max_length={max_length} tokens; "
            f"set max_length to {lengths.max()} or more, or take them out of the text"
        )
    offsets = np.concatenate([[0], np.cumsum(lengths[fits] + 1)])
    return TokenizedText(tokens[np.repeat(fits, lengths + 1)], offsets, dropped=int(np.sum(~fits)))
