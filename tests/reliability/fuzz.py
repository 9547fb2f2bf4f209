"""Mutated files for the readers of what users bring: each either loads or is refused by a `ValueError` of one line.

`python -m tests.reliability.fuzz --minutes 10` goes on for so long and prints what was tried and found, as JSON; with
`--record` the figures go to results/reliability.json.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import signal
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

from delta_vae_lab.cards import Place, card_of, read_results
from delta_vae_lab.configuration import load_config
from delta_vae_lab.data import load_images, load_text
from delta_vae_lab.data.cifar10 import ARCHIVE, FOLDER, HELDOUT, ROW_BYTES, TRAIN
from delta_vae_lab.data.text_files import LM1B_HELDOUT, LM1B_HELDOUT_SHARD, LM1B_TRAIN
from delta_vae_lab.sections import ImageRunConfig, TextRunConfig
from tests.reliability.recorded import record

ROOT = Path(__file__).parents[2]
SECONDS = 20  # that one input may take
MEBIBYTES = 512  # that one input may add to what the process has ever held

WORDS = (
    b"\x00",
    b"\xff",
    b"\n",
    b"[",
    b"{",
    b"&a ",
    b"*a",
    b": ",
    b"- ",
    b"${",
    b"}",
    b"!!",
    b"nan",
    b".inf",
    b"-1",
    b"1e999",
)
WORDS += (
    b"9" * 30,
    b"null",
    b"true",
    b'"',
    b"\\u0000",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"???",
    b"<<",
    b"[]",
    b"{}",
    b"0",
)


@dataclass(frozen=True)
class Target:
    """A reader, sound inputs to mutate, and how an input is laid down for it in an empty folder."""

    seeds: tuple[bytes, ...]
    read: Callable[[Path, bytes], object]


@dataclass
class Finding:
    """An input that was neither read nor refused as it should be."""

    target: str
    content: bytes
    what: str


def mutate(content: bytes, rng: random.Random) -> bytes:
    """The content with one to six changes of bits, bytes, words, lengths and places."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(data) + 1)
        width = min(rng.choice((1, 2, 4, 16, 256)), len(data) - place)
        match rng.randrange(7):
            case 0 if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case 1 if place < len(data):
                data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
            case 2:
                data[place:place] = rng.choice(WORDS)
            case 3:
                data[place : place + width] = rng.choice(WORDS)
            case 4:
                del data[place : place + width]
            case 5:
                data[place:place] = data[place : place + width] * rng.randint(1, 8)
            case 6 if rng.random() < 0.3:
                del data[place:]
    return bytes(data)


def fuzz(name: str, target: Target, rng: random.Random, inputs: int) -> Iterator[Finding]:
    """Try so many mutations, every one from a seed."""
    for _ in range(inputs):
        content = mutate(rng.choice(target.seeds), rng)
        if what := fault(target, content):
            yield Finding(name, content, what)


def fault(target: Target, content: bytes) -> str | None:
    """What is wrong with how one input is read or refused, or None."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _limited():
                target.read(Path(folder), content)
        except ValueError as error:
            if "\n" in str(error) or not str(error):
                return f"more or less than one line: {str(error)[:300]!r}"
            if type(error) is not ValueError:
                return f"{type(error).__name__}: {str(error)[:300]}"
        except BaseException as error:  # noqa: BLE001 - whatever else is raised is the finding
            return f"{type(error).__name__}: {str(error)[:300]} at {traceback.format_exc(limit=-3)[-500:]}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return f"{grown:.0f} MiB of memory" if grown > MEBIBYTES else None


@contextmanager
def _limited() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise RuntimeError(f"more than {SECONDS} seconds")

    former = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def targets() -> dict[str, Target]:
    """By name."""
    return {
        "config": Target(_configs(), _read_config),
        "LM1B shard": Target((("a cat sat\nthe dog ran \u2028 off\n\n" * 4).encode(),), _read_lm1b),
        "npz": Target((_npz(3), _npz(1, compressed=True)), _read_npz),
        "tar of PNG": Target((_tar_of_png(),), _read_tar),
        "PNG": Target(_pictures(), _read_picture),
        "CIFAR archive": Target((_cifar(),), _read_cifar),
        "results": Target(tuple(file.read_bytes() for file in sorted(ROOT.glob("results/*-l*/*.json"))), _read_results),
    }


def _configs() -> tuple[bytes, ...]:
    return tuple(file.read_bytes() for file in sorted((ROOT / "recipes/configs").glob("*/*.yaml")))


def _read_config(folder: Path, content: bytes) -> object:
    (folder / "config.yaml").write_bytes(content)
    return load_config(TextRunConfig if b"tokenizer" in content else ImageRunConfig, folder / "config.yaml")


def _read_lm1b(folder: Path, content: bytes) -> object:
    for part, shard in ((LM1B_TRAIN, "news.en-00001-of-00100"), (LM1B_HELDOUT, LM1B_HELDOUT_SHARD)):
        (folder / part).mkdir()
        (folder / part / shard).write_bytes(content)
    return load_text(str(folder))


def _npz(count: int, compressed: bool = False) -> bytes:
    stream = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(stream, data=np.arange(count * 3072, dtype=np.uint8).reshape(count, 3072), labels=np.ones(count))
    return stream.getvalue()


def _read_npz(folder: Path, content: bytes) -> object:
    for name in ("train_data_batch_1", "val_data"):
        (folder / f"{name}.npz").write_bytes(content)
    return load_images(str(folder))


def _pictures() -> tuple[bytes, ...]:
    found = []
    for kind in ("png", "jpeg", "gif", "bmp", "webp"):
        stream = io.BytesIO()
        levels = np.arange(3 * 64, dtype=np.uint8).reshape(8, 8, 3)
        Image.fromarray(levels).save(stream, format=kind)
        found.append(stream.getvalue())
    return tuple(found)


def _read_picture(folder: Path, content: bytes) -> object:
    for name in ("train.png", "heldout.png"):
        (folder / name).write_bytes(content)
    return load_images(str(folder))


def _tar_of_png() -> bytes:
    return _packed([(f"train_32x32/{i}.png", _pictures()[0]) for i in range(3)], "w")


def _read_tar(folder: Path, content: bytes) -> object:
    for part in ("train_32x32", "valid_32x32"):
        (folder / f"{part}.tar").write_bytes(content)
    return load_images(str(folder))


def _cifar() -> bytes:
    return _packed([(f"{FOLDER}/{name}", bytes(2 * ROW_BYTES)) for name in (*TRAIN, HELDOUT)], "w:gz")


def _read_cifar(folder: Path, content: bytes) -> object:
    (folder / ARCHIVE).write_bytes(content)
    return load_images(str(folder / ARCHIVE))


def _packed(files: list[tuple[str, bytes]], mode: Any) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _read_results(folder: Path, content: bytes) -> object:
    (folder / "results.json").write_bytes(content)
    results = read_results(folder / "results.json")
    return card_of(results, Place("'model'", published=False, results="../results.json"))


def main() -> None:
    """Go through the targets again and again until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for what was found")
    parser.add_argument("--record", action="store_true", help="write the figures to results/reliability.json")
    arguments = parser.parse_args()
    readers, rng = targets(), random.Random(arguments.seed)
    tried: dict[str, int] = dict.fromkeys(readers, 0)
    found: dict[str, Finding] = {}
    end = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < end:
        for name, target in readers.items():
            for finding in fuzz(name, target, rng, 20):
                found.setdefault(f"{name}: {finding.what[:80]}", finding)
            tried[name] += 20
    for number, finding in enumerate(found.values()):
        if arguments.keep is not None:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{finding.target.replace(' ', '-')}-{number}").write_bytes(finding.content)
    if arguments.record:
        figures = {"minutes": arguments.minutes, "inputs": sum(tried.values()), "kinds_of_failure": len(found)}
        record("tests/reliability/fuzz.py", figures)
    print(json.dumps({"tried": tried, "found": {key: finding.what for key, finding in found.items()}}, indent=1))


if __name__ == "__main__":
    main()
