"""Manifests: sizes and SHA-256 of files beside them, and of themselves, so that a changed byte anywhere is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

# Beside a model's weights. A folder without it loads unverified, as one that another library wrote.
CHECKSUMS = "checksums.json"
REMEDY = f"copy or download it again, or delete {CHECKSUMS} beside it if the change is yours"


class Entry(TypedDict):
    """What a manifest says of one file."""

    size: int
    sha256: str


def manifest(files: Mapping[str, Path | bytes]) -> bytes:
    """The manifest of files, or of their contents, by name: JSON of which no byte can change unseen."""
    return _rendered({name: _entry(content) for name, content in files.items()})


def read_manifest(file: Path) -> dict[str, Entry]:
    """What it says of each file. Raises `ValueError`, which names the manifest, unless it is as it was written."""
    try:
        content = file.read_bytes()
        entries: dict[str, Entry] = json.loads(content)["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"no readable {file.name}") from None
    if content != _rendered(entries):
        raise ValueError(f"{file.name} is not as it was written")
    return entries


def difference(file: Path, name: str, entry: Entry) -> str | None:
    """How a file differs from what the manifest says of `name`, or None."""
    if not file.is_file():
        return f"{name} is missing"
    if (size := file.stat().st_size) != entry["size"]:
        return f"{name} has {size} bytes, not {entry['size']}"
    return f"{name} has another SHA-256" if _entry(file) != entry else None


def write_checksums(folder: Path, names: Iterable[str], others: Mapping[str, Entry] | None = None) -> None:
    """Write checksums.json of these files of a model's folder, with what was known of `others`."""
    entries = {name: _entry(folder / name) for name in names}
    (folder / CHECKSUMS).write_bytes(_rendered({**(others or {}), **entries}))


def verify(folder: Path, names: Iterable[str] | None = None, remedy: str = REMEDY) -> None:
    """Raise `ValueError` if a file of a model's folder, or one of `names`, is not as its checksums.json says.

    What it does not list is let be; what it lists and is not there is missed by whoever needs it. A folder without
    checksums.json is taken as it is.
    """
    file = folder / CHECKSUMS
    if not file.is_file():
        return
    try:
        entries = read_manifest(file)
    except ValueError as error:
        raise ValueError(
            f"{file}: damaged ({error}); copy or download the folder again, or delete this file if you trust the rest"
        ) from None
    for name in entries if names is None else entries.keys() & set(names):
        if (folder / name).is_file() and (damage := difference(folder / name, name, entries[name])) is not None:
            raise ValueError(f"{folder / name}: damaged or truncated ({damage}), or changed by hand; {remedy}")


def _rendered(entries: Mapping[str, Any]) -> bytes:
    content = json.dumps(entries, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return (json.dumps({"files": entries, "sha256": digest}, indent=1, sort_keys=True) + "\n").encode()


def _entry(content: Path | bytes) -> Entry:
    if isinstance(content, bytes):
        return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with content.open("rb") as stream:
        return {"size": content.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
