"""One run a folder: a lock that a run holds for as long as its process lives, however that ends."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO

logger = logging.getLogger(__name__)

_NAME = ".lock"
_CANNOT_LOCK = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
# The file of each folder that a process holds. Closing any of a process's files on it would give the lock back.
_held: dict[tuple[int, Path], IO[str]] = {}


def hold(folder: Path) -> None:
    """Take the folder for this process, or raise `ValueError` where another one holds it.

    The kernel gives it back when the process ends, by SIGKILL too. Other machines see the lock where the file system
    they share has locks, as NFS does from version 4 on; where it has none, a warning says that nothing is held.
    """
    key = os.getpid(), folder.resolve()
    if key in _held:
        return
    file = (folder / _NAME).open("a+")
    try:
        got = _locked_soon(file)
    except OSError as error:
        file.close()
        if error.errno not in _CANNOT_LOCK:
            raise
        logger.warning("%s: its file system has no locks, so a second run in it would not be noticed", folder)
        return
    if not got:
        with file:
            raise ValueError(_in_use(folder, file))
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[key] = file


def check_free(folder: Path) -> None:
    """Raise `ValueError` where another process holds the folder. Nothing is written."""
    if (os.getpid(), folder.resolve()) in _held or not (folder / _NAME).exists():
        return
    with (folder / _NAME).open() as file:
        try:
            free = _locked(file, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in _CANNOT_LOCK:
                raise
            return
        if not free:
            raise ValueError(_in_use(folder, file))


def release(folder: Path) -> None:
    """Give it back, if this process holds it."""
    file = _held.pop((os.getpid(), folder.resolve()), None)
    if file is not None:
        file.close()


def _locked_soon(file: IO[str]) -> bool:
    """Whether the lock was got; a moment's look by `check_free` of another process is waited for."""
    for _ in range(5):
        if _locked(file, fcntl.LOCK_EX):
            return True
        time.sleep(0.1)
    return False


def _locked(file: IO[str], kind: int) -> bool:
    """Whether the lock was got, without waiting for it."""
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # systems differ
        return False
    return True


def _in_use(folder: Path, file: IO[str]) -> str:
    file.seek(0)
    holder = file.read().strip() or "another process"
    return f"{folder} is in use by {holder}: wait for it or stop it, or choose another folder"
