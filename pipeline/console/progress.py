"""How far a job is: a bar in a terminal, lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.console import events
from pipeline.console.printing import say
from pipeline.ledger.summary import Summary, Tally

_SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal to draw on


class ProgressReport:
    """One line that is drawn again and again on a terminal, a line now and then elsewhere."""

    def __init__(self, verb: str, *, num_images: int, tally: Tally, bad: str = "quarantined") -> None:
        self._verb = verb
        self._bad = bad
        self._num_images = num_images
        self._tally = tally
        self._begin = self._last_line = time.monotonic()
        console = Console(stderr=True)
        self._is_terminal = console.is_terminal and not events.are_wanted()
        self._bar = Progress(
            TextColumn(verb),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images{task.fields[quarantined]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._is_terminal,
        )
        self._task = self._bar.add_task(verb, total=num_images, completed=tally.now.num_images, quarantined="")

    def __enter__(self) -> "ProgressReport":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self) -> None:
        """Show how far the tally is."""
        done = self._tally.now
        quarantined = f", {done.num_quarantined} {self._bad}" if done.num_quarantined else ""
        self._bar.update(self._task, completed=done.num_images, quarantined=quarantined)
        is_last = done.num_images == self._num_images
        if not self._is_terminal and (is_last or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES):
            self._last_line = time.monotonic()
            self._write(done, quarantined)

    def _write(self, done: Summary, quarantined: str) -> None:
        if not events.are_wanted():
            say(f"{self._verb} {done.num_images} of {self._num_images} images{quarantined}")
            return
        rate = self._tally.added.num_images / max(time.monotonic() - self._begin, 1e-9)
        events.emit(
            "progress",
            num_images_done=done.num_images,
            num_images=self._num_images,
            num_quarantined=done.num_quarantined,
            images_per_second=rate,
            seconds_left=(self._num_images - done.num_images) / rate if rate else None,
        )
