"""Sentences in local text files: which files are training text, which are held out, and how they are read."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

LM1B_TRAIN = "training-monolingual.tokenized.shuffled"
LM1B_HELDOUT = "heldout-monolingual.tokenized.shuffled"
LM1B_HELDOUT_SHARD = "news.en.heldout-00000-of-00050"
HELDOUT_KINDS = ("heldout", "valid", "test")


@dataclass(frozen=True)
class TextFiles:
    """Files of one sentence a line; `heldout` is None where there is no file of its own to hold out."""

    train: list[Path]
    heldout: list[Path] | None
    source: str


def find_text_files(path: Path) -> TextFiles:
    """The files of a text file, a folder of `*.txt`, or a folder that unpacks like the official LM1B archive."""
    if path.is_file():
        return TextFiles([path], None, path.name)
    for root in (path, *sorted(path.glob("1-billion-word-language-modeling-benchmark*"))):
        if (root / LM1B_TRAIN).is_dir() or (root / LM1B_HELDOUT).is_dir():
            return _lm1b_files(root)
    return _folder_files(path)


def read_sentences(paths: Iterable[Path]) -> Iterator[str]:
    """The non-blank lines, stripped. Only a newline ends a line: LM1B has other Unicode separators inside sentences."""
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if sentence := _decode(line, path, number).strip():
                    yield sentence


def _lm1b_files(root: Path) -> TextFiles:
    """Tensor2Tensor's protocol: train on shards 1 to 99, evaluate on the first held-out shard alone."""
    shards = sorted(
        shard
        for shard in (root / LM1B_TRAIN).glob("news.en-*-of-00100")
        if re.fullmatch(r"news\.en-\d{5}-of-00100", shard.name) and not shard.name.startswith("news.en-00000")
    )
    heldout = root / LM1B_HELDOUT / LM1B_HELDOUT_SHARD
    if not shards:
        raise ValueError(
            f"{root / LM1B_TRAIN} has no training shard news.en-00001-of-00100 to news.en-00099-of-00100; "
            f"unpack the LM1B archive again"
        )
    if not heldout.is_file():
        raise ValueError(f"{heldout} is missing: LM1B is evaluated on this shard; unpack the LM1B archive again")
    found = f"{len(shards)} of 99 training shards in the layout of LM1B, held out: {LM1B_HELDOUT_SHARD}"
    return TextFiles(shards, [heldout], found)


def _folder_files(folder: Path) -> TextFiles:
    """`*.txt` at any depth; the first of heldout*, valid*, test* among file or folder names is held out."""
    kinds: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.txt")):
        top = file.relative_to(folder).parts[0].lower()
        kind = next((kind for kind in HELDOUT_KINDS if top.startswith(kind)), "train")
        kinds.setdefault(kind, []).append(file)
    train = kinds.pop("train", [])
    if not train:
        raise ValueError(
            f"{folder} holds no training text; give it *.txt files of one sentence a line, *.parquet files, "
            f"or the folders of the LM1B archive"
        )
    held = next((kind for kind in HELDOUT_KINDS if kind in kinds), None)
    source = f"{len(train)} *.txt files" + (f", held out: {held}*" if held else "")
    return TextFiles(train, kinds[held] if held else None, source)


def _decode(line: bytes, path: Path, number: int) -> str:
    remedy = "give a UTF-8 text file of one sentence a line"
    if (zero := line.find(b"\0")) >= 0:
        raise ValueError(f"{path} is not text: a NUL byte at line {number}, byte {zero + 1}; {remedy}")
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at line {number}, byte {error.start + 1}; {remedy}") from None
