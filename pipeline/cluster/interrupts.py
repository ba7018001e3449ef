"""Ctrl-C in two steps: the first asks a job to end in order, the second ends it at once."""

import signal
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """While this is entered, a first SIGINT or SIGTERM is noted; the next one raises KeyboardInterrupt.

    Handlers belong to the main thread; in another one this does nothing.
    """

    def __init__(self) -> None:
        self.came = False
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
        if self.came:
            raise KeyboardInterrupt
        self.came = True
