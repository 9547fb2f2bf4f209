"""Memory of a CPU that is freed and needed again a step later."""

from __future__ import annotations

import ctypes
import sys

# glibc's names for them, in malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_AT_ONCE = 2**26  # bytes by which the heap grows


def keep_freed_memory() -> bool:
    """From here on this process keeps the memory that it frees; whether that was possible: with glibc alone.

    Otherwise glibc gives large blocks back to the system, which clears every page of them anew at the next step.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: _AT_ONCE}
    return all(library.mallopt(name, value) == 1 for name, value in settings.items())
