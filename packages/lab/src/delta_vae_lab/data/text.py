"""Text for a run: the sentences that one data spec names, split into training and held-out text, with a fingerprint."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Features, IterableDataset, Value
from transformers import PreTrainedTokenizerFast

from delta_vae_lab.data import language_reference
from delta_vae_lab.data.hub_text import all_sentences, load_hub_text
from delta_vae_lab.data.spec import check_spec
from delta_vae_lab.data.streaming import StreamingTextBatches
from delta_vae_lab.data.text_batches import TextBatches
from delta_vae_lab.data.text_files import find_text_files, read_sentences
from delta_vae_lab.data.tokens import tokenize

HELDOUT_ONE_IN = 20  # the last 5 %, where the data has no held-out part of its own


@dataclass(frozen=True)
class TextSplits:
    """Sentences to train on and sentences to judge by. Every result carries their `name` and `fingerprint`.

    `train` is a list, or with `streaming` a stream of rows `{"text": sentence}`, one shard a file.
    """

    train: list[str] | IterableDataset
    heldout: list[str]
    name: str
    fingerprint: dict[str, Any]

    def training_sentences(self, limit: int | None = None) -> Iterator[str]:
        """The first `limit` training sentences, or all of them: what a tokenizer is trained on."""
        return islice(_sentences(self.train), limit)

    def training_batches(
        self,
        tokenizer: PreTrainedTokenizerFast,
        *,
        batch_size: int,
        seed: int,
        max_length: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> TextBatches | StreamingTextBatches:
        """Batches of the list or the stream; sentences of more than `max_length` tokens are left out and counted."""
        if isinstance(self.train, IterableDataset):
            return StreamingTextBatches(
                self.train,
                tokenizer,
                batch_size=batch_size,
                seed=seed,
                max_length=max_length,
                rank=rank,
                world_size=world_size,
            )
        return TextBatches(
            tokenize(tokenizer, self.train, max_length=max_length, too_long="drop"),
            batch_size=batch_size,
            pad_token_id=tokenizer.pad_token_id,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )


def load_text(
    spec: str,
    *,
    streaming: bool = False,
    config: str | None = None,
    revision: str | None = None,
    column: str = "text",
) -> TextSplits:
    """Sentences from the built-in text, a file, a folder or the Hub.

    - `builtin`: the prose of the Python language reference, on every machine (`./builtin` is a folder of that name);
      it is small, and never streamed.
    - a folder that unpacks like the official LM1B archive: the training shards 1 to 99 that are there, judged by
      `news.en.heldout-00000-of-00050` alone, as in Tensor2Tensor.
    - a text file or a folder of `*.txt`, one sentence a line: what is named `heldout*`, or else `valid*`, or else
      `test*` is held out (the rest of these is not trained on); failing all, the last 5 % of the sentences.
    - a folder of parquet files as `datasets` lays them out, or a data set's name on the Hub with its `config` and
      `revision`: one sentence a row in `column`.

    The fingerprint has the number of sentences and the SHA-256 of each split, for which local data are read through
    once. A stream from the Hub is not read ahead: it has the SHA-256 of its name and revision.
    """
    check_spec(spec)
    path = Path(spec).expanduser()
    if spec == "builtin":
        return text_splits(language_reference.NAME, language_reference.SOURCE, *language_reference.language_reference())
    if path.is_file() or (path.is_dir() and next(path.rglob("*.parquet"), None) is None):
        files = find_text_files(path)
        train = _stream(files.train) if streaming else list(read_sentences(files.train))
        heldout = None if files.heldout is None else list(read_sentences(files.heldout))
        return text_splits(path.resolve().name, files.source, train, heldout)
    hub = load_hub_text(
        str(path) if path.is_dir() else spec, streaming=streaming, config=config, revision=revision, column=column
    )
    train = hub.train if isinstance(hub.train, IterableDataset) else list(all_sentences(hub.train))
    heldout = None if hub.heldout is None else list(all_sentences(hub.heldout))
    return text_splits(hub.name, hub.source, train, heldout, read_ahead=path.is_dir() or not streaming)


def word_count(sentence: str) -> int:
    """Words as LM1B counts them: what whitespace separates, and one for the end of the sentence."""
    return len(sentence.split()) + 1


def text_splits(
    name: str, source: str, train: list[str] | IterableDataset, heldout: list[str] | None, *, read_ahead: bool = True
) -> TextSplits:
    """The splits with their fingerprint; without `heldout` the last 5 % of the sentences are held out."""
    if heldout is None:
        if isinstance(train, IterableDataset):
            raise ValueError(f"data {name!r} has no held-out part, which a stream needs; add one or do not stream")
        cut = max(1, len(train) // HELDOUT_ONE_IN)
        train, heldout, source = train[:-cut], train[-cut:], f"{source}, the last {cut} sentences held out"
    identity = {"sentences": None, "sha256": sha256(source.encode()).hexdigest()}
    digests = {"train": _digest(_sentences(train)) if read_ahead else identity, "heldout": _digest(heldout)}
    for split, digest in digests.items():
        if digest["sentences"] == 0:
            raise ValueError(f"data {name!r} has no {split} sentences ({source}); it needs one sentence a line or row")
    return TextSplits(train, heldout, name, {"source": source, **digests})


def _sentences(text: list[str] | IterableDataset) -> Iterator[str]:
    return iter(text) if isinstance(text, list) else all_sentences(text)


def _digest(sentences: Iterable[str]) -> dict[str, Any]:
    count, digest = 0, sha256()
    for count, sentence in enumerate(sentences, start=1):  # noqa: B007
        digest.update(f"{sentence}\n".encode())
    return {"sentences": count, "sha256": digest.hexdigest()}


def _stream(files: list[Path]) -> IterableDataset:
    return IterableDataset.from_generator(_rows, Features({"text": Value("string")}), gen_kwargs={"files": files})


def _rows(files: list[Path]) -> Iterator[dict[str, str]]:
    return ({"text": sentence} for sentence in read_sentences(files))
