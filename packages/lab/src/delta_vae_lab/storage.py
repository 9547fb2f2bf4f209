"""What cannot be written, as on a full disk: what it was, where, why, and what to do, in one line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_PROBE = ".probe"


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Within, a disk that is full or that may not be written to is a `ValueError`; any other error stays as it is."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        number = _errno(error, folder)
        if number in _FULL:
            remedy = "free some of it (checkpoint.keep says how many checkpoints are kept)"
        elif number in _REFUSED:
            remedy = "let this user write there"
        else:
            raise
        raise ValueError(
            f"{what} could not be written to {folder}: {os.strerror(number)}; {remedy}, and go on with --resume; "
            "the checkpoints before it are kept"
        ) from error


def _errno(error: Exception, folder: Path) -> int:
    """What the system said; of an error of torch or safetensors what it says of this folder now, 0 if nothing."""
    if isinstance(error, OSError):
        return error.errno or 0
    if found := _OS_ERROR.search(str(error)):
        return int(found[1])
    try:
        folder.mkdir(exist_ok=True)
        with (folder / _PROBE).open("wb") as probe:
            probe.write(bytes(1 << 20))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as refusal:
        return refusal.errno or 0
    finally:
        (folder / _PROBE).unlink(missing_ok=True)
    return 0
