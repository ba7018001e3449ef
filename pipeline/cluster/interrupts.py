"""Ctrl-C in two steps: the first asks a job to end in order, the second ends it at once. SIGTERM counts as Ctrl-C.

Handlers belong to the main thread: in another one nothing here does anything.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Meanwhile let SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""
    with handler_kept(signal.SIGTERM):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield


@contextmanager
def handler_kept(number: signal.Signals) -> Iterator[None]:
    """Put the handler of a signal back at the end, whoever replaced it."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        # None: it was not set from Python, and cannot be.
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


class Interrupts:
    """While this is entered, a first SIGINT or SIGTERM is noted; the next one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.is_noted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: it was not set from Python, and cannot be.
            signal.signal(number, signal.default_int_handler if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_noted:
            raise KeyboardInterrupt
        self.is_noted = True
