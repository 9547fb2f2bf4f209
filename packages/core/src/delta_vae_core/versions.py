"""What is written says by which version; what a later one wrote is refused with the version to install."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

# Raised when an earlier version would read what is written and take it for something else. A key, a value or a part
# that it does not know needs no new format: there it is an error, which then names the version to install.
FORMAT = 1
VERSION_KEY, FORMAT_KEY = "delta_vae_version", "delta_vae_format"


def installed() -> str:
    """The installed version; the six packages have one in common."""
    return metadata.version("delta-vae-core")


def stamp() -> dict[str, Any]:
    """What a file that we write says of itself."""
    return {VERSION_KEY: installed(), FORMAT_KEY: FORMAT}


@contextmanager
def reading(what: str, version: object = None, written_format: object = None, known: int = FORMAT) -> Iterator[None]:
    """Within, `what` is read, which says that this version wrote it, in this format (None: it does not say).

    `ValueError` with the version to install if the format is later than what is `known`, or if a later version wrote it
    and it cannot be read.
    """
    remedy = (
        f"was written by delta-vae {version}, and this is {installed()}; pip install --upgrade 'delta-vae>={version}'"
    )
    if isinstance(written_format, int) and written_format > known:
        raise ValueError(f"{what}: {remedy}")
    try:
        yield
    except ValueError as error:
        if _numbers(version) > _numbers(installed()):
            raise ValueError(f"{what}: {remedy} ({error})") from None
        raise


def _numbers(version: object) -> tuple[int, ...]:
    """The release as numbers, without what follows it: "1.2.0rc1" -> (1, 2, 0); () where there is none."""
    release = re.match(r"\d+(\.\d+)*", str(version))
    return tuple(map(int, release[0].split("."))) if release else ()
