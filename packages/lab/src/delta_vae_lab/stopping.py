"""A run that is asked to stop: by SIGTERM, as a scheduler asks, or by SIGINT, as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

Found = TypeVar("Found")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A scheduler may tell a launcher and its processes, and the launcher tells them again: that is one request.
SAME_REQUEST_SECONDS = 1.0


class Stopped(SystemExit):
    """The run was asked to stop, and has. Its code is 128 + the signal, as a shell gives it."""

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(signum, step)  # what it is pickled by
        self.code = 128 + signum
        self.name, self.step = signal.Signals(signum).name, step
        self.remedy = "--resume goes on"

    @property
    def line(self) -> str:
        """What the user is told."""
        where = f"at step {self.step}, where there is a checkpoint" if self.step else "before its first checkpoint"
        return f"stopped by {self.name} {where}: {self.remedy}"


class StopRequest:
    """Within, the first signal is only noted, and a second one ends the process at once.

    It does nothing in a thread that is not the main one, which gets no signals, and leaves an ignored signal ignored.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._since = 0.0
        self._abandoning = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = _install(self._note)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        _restore(self._before)
        if self.signum and error is None:  # it came too late for a step to stop at
            signal.raise_signal(self.signum)

    def agreed(self, accelerator: Accelerator) -> int:
        """The signal that any process has got, or 0: every process asks, and gets the same answer."""
        if accelerator.num_processes == 1:
            return self.signum
        told = torch.tensor([self.signum], device=accelerator.device)
        return int(accelerator.gather(told).max().item())

    def unless_stopped(self, work: Callable[[], Found], accelerator: Accelerator) -> Found | None:
        """What `work` gives, or None as soon as there is a signal. Sharded work ends first: all take part in it."""
        if accelerator.distributed_type == DistributedType.FSDP:
            return work()
        found = None
        try:
            self._abandoning = True
            if not self.signum:
                found = work()
            self._abandoning = False
        except _Abandoned:
            found = None
        self._abandoning = False
        return found

    def _note(self, signum: int, _: FrameType | None) -> None:
        if not self.signum:
            self.signum, self._since = signum, time.monotonic()
            if self._abandoning:
                raise _Abandoned
        elif time.monotonic() - self._since > SAME_REQUEST_SECONDS:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)


class _Abandoned(BaseException):
    """What a signal raises in work that is not worth its end; no library takes it for an error."""


@contextmanager
def stopping_at_once(last_step: Callable[[], int]) -> Iterator[None]:
    """Within, but for a `StopRequest` inside, a signal raises `Stopped`: no step is at hand. `last_step` is on disk."""

    def stop(signum: int, _: FrameType | None) -> None:
        raise Stopped(signum, last_step())

    before = _install(stop)
    try:
        yield
    finally:
        _restore(before)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Within, a run that is stopping already is not told again."""
    before = _install(lambda signum, frame: None)  # noqa: ARG005 - which handlers are given
    try:
        yield
    finally:
        _restore(before)


def _install(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Handle the signals by it; what handled them before."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    replaced = {signum: old for signum, old in before.items() if old is not None and old != signal.SIG_IGN}
    for signum in replaced:
        signal.signal(signum, handler)
    return replaced


def _restore(before: dict[signal.Signals, Any]) -> None:
    for signum, handler in before.items():
        signal.signal(signum, handler)
