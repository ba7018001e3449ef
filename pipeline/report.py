"""What a job tells the person who started it: progress and errors on stderr, a summary on stdout."""

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline import events
from pipeline.output import Output
from pipeline.streams import write_line
from pipeline.summary import Mean, Summary

_SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal to draw on


class ProgressReport:
    """One line that is drawn again and again on a terminal, a line now and then elsewhere."""

    def __init__(self, verb: str, *, num_images: int, before: Summary) -> None:
        self._verb = verb
        self._num_images = num_images
        self._done = before
        self._begin = self._last_line = time.monotonic()
        self._num_before = before.num_images
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
        self._task = self._bar.add_task(verb, total=num_images, completed=before.num_images, quarantined="")

    def __enter__(self) -> "ProgressReport":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def add(self, summary: Summary) -> None:
        """Count the images of a shard that was committed."""
        self._done += summary
        quarantined = f", {self._done.num_quarantined} quarantined" if self._done.num_quarantined else ""
        self._bar.update(self._task, completed=self._done.num_images, quarantined=quarantined)
        is_last = self._done.num_images == self._num_images
        if not self._is_terminal and (is_last or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES):
            self._last_line = time.monotonic()
            self._tell(quarantined)

    def _tell(self, quarantined: str) -> None:
        if not events.are_wanted():
            say(f"{self._verb} {self._done.num_images} of {self._num_images} images{quarantined}")
            return
        rate = (self._done.num_images - self._num_before) / max(time.monotonic() - self._begin, 1e-9)
        events.emit(
            "progress",
            num_images_done=self._done.num_images,
            num_images=self._num_images,
            num_quarantined=self._done.num_quarantined,
            images_per_second=rate,
            seconds_left=(self._num_images - self._done.num_images) / rate if rate else None,
        )


def say(message: str) -> None:
    """Tell how things go, without disturbing what a program may read from stdout."""
    if events.are_wanted():
        events.emit("message", message=message)
    else:
        write_line(message, sys.stderr)


def print_table(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; long values stay whole, so that they can be copied."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    _print()
    for name, value in rows:
        _print(f"  {name:<{width}}  {value}")


def print_quarantined(summary: Summary) -> None:
    """Print how many images are quarantined for what, with an example each."""
    if summary.quarantined:
        print_table(
            (f"{count} {status}", f"e.g. {summary.examples[status]}")
            for status, count in sorted(summary.quarantined.items())
        )


def print_commands(commands: Iterable[tuple[str, str]]) -> None:
    """Print commands to go on with, each under what it does and ready to be pasted."""
    for purpose, command in commands:
        _print(f"\n{purpose}\n  {command}")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def reasons_text(counts: Mapping[str, int]) -> str:
    """Say how often each reason came up, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def skipped_text(skipped: Mapping[str, int]) -> str:
    """Say how much of the input was no image by name, and what it was instead."""
    reasons = sorted(skipped.items(), key=lambda item: -item[1])
    named = ", ".join(f"{reason} {count}" for reason, count in reasons[:5])
    more = ", ..." if len(reasons) > 5 else ""
    return f"skipped {sum(skipped.values())} files or samples that are no images by name: {named}{more}"


def num_bytes_text(num_bytes: int) -> str:
    """Return a size in the unit that suits it."""
    value, units = float(num_bytes), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def size_rows(name_in: str, name_out: str, summary: Summary) -> list[tuple[str, str]]:
    """Return the rows of a table that tell the bytes before and after."""
    return [
        (name_in, num_bytes_text(summary.num_bytes_in)),
        (name_out, num_bytes_text(summary.num_bytes_out) + _ratio_text(summary.num_bytes_out, summary.num_bytes_in)),
    ]


def _ratio_text(num_bytes: int, of: int) -> str:
    if not of:
        return ""
    return f", {100 * num_bytes / of:.1f} % of it" if num_bytes <= of else f", {num_bytes / of:.1f} times as much"


def mean_text(mean: Mean, spec: str, unit: str = "") -> str:
    """Return a mean over images, and over how many."""
    if mean.value is None:
        return "none"
    return f"{mean.value:{spec}}{unit and ' '}{unit}, mean of {mean.count} images"


def speed_text(summary: Summary, seconds: float) -> str:
    """Return images and megapixels per second, waiting for workers included."""
    if not summary.num_images:
        return "nothing was left to do"
    rates = f"{summary.num_images / seconds:.1f} images/s, {summary.num_pixels / 1e6 / seconds:.2f} MP/s"
    return f"{summary.num_images} images in {seconds:.0f} s: {rates}"


def shown(output: Output) -> str:
    """Return the shortest path to an output from where the user is."""
    path = str(output)
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def metrics_glob(output: Output) -> str:
    """Return the pattern that DuckDB reads an output's metrics with."""
    return f"{shown(output)}/metrics/*.parquet"


def job_command(name: str, *arguments: str) -> str:
    """Return a shell command that runs another job."""
    path = str(Path(__file__).parents[1] / "jobs" / f"{name}.py")
    if Path(path).is_relative_to(Path.cwd()):
        path = os.path.relpath(path)
    return f"{_python()} {shlex.join((path, *arguments))}"


def _print(line: str = "") -> None:
    if not events.are_wanted():
        write_line(line, sys.stdout)


def _python() -> str:
    """Return the shortest way to call this Python."""
    if shutil.which("python") == sys.executable:
        return "python"
    is_below = Path(sys.executable).is_relative_to(Path.cwd())
    return shlex.quote(os.path.relpath(sys.executable) if is_below else sys.executable)
