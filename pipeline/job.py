"""What the jobs have in common: do what is left, sum up what is committed, say how it ended."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum

from pipeline import events
from pipeline.engine import Cluster, ClusterError, ShardWorker, WorkError
from pipeline.output import Output
from pipeline.report import ProgressReport, say
from pipeline.shards import Shard
from pipeline.storage import redact
from pipeline.summary import Summary


class ExitCode(IntEnum):
    """How a job ended."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    DONE_WITH_QUARANTINED = 3


_GOES_ON = "What is committed stays: the same command goes on from there."


class UsageError(ValueError):
    """The job cannot begin as it was asked to."""


@dataclass(frozen=True)
class Work:
    """What a job is to do; `verb` is what becomes of an image, `shards` leaves out those of the given numbers."""

    verb: str
    output: Output
    num_images: int
    shards: Callable[[set[int]], Iterator[Shard]]
    make_worker: Callable[[], ShardWorker]


@dataclass(frozen=True)
class Result:
    """Sums over the whole output, and over what this run added to it in how many seconds."""

    total: Summary
    added: Summary
    seconds: float

    @property
    def exit_code(self) -> ExitCode:
        """Return the code of a job that came to its end."""
        return ExitCode.DONE_WITH_QUARANTINED if self.total.quarantined else ExitCode.DONE


def run_to_end(work: Work, cluster: Cluster, *, max_failures: int | None) -> Result:
    """Do the shards that are not committed, then tidy up.

    Raises:
        WorkError: more than `max_failures` images are quarantined, or as Cluster.run.
        ClusterError: as Cluster.num_workers.
    """
    start = time.monotonic()
    markers = work.output.markers()
    before = sum((marker.summary for marker in markers), Summary())
    added = Summary()
    events.emit(
        "plan", output=str(work.output), num_images=work.num_images, num_images_done=before.num_images, verb=work.verb
    )
    if before.num_images:
        say(f"{before.num_images} of {work.num_images} images are {work.verb} already")
    if before.num_images < work.num_images:
        shards = work.shards({marker.shard for marker in markers})
        with ProgressReport(work.verb, num_images=work.num_images, before=before) as progress:
            _check_failures(before, max_failures, work.output)
            for marker in cluster.run(work.make_worker, shards):
                added += marker.summary
                events.emit_shard(marker.shard, marker.summary)
                progress.add(marker.summary)
                _check_failures(before + added, max_failures, work.output)
    work.output.sweep()
    total = sum((marker.summary for marker in work.output.markers()), Summary())
    result = Result(total, added, time.monotonic() - start)
    events.emit("done", exit_code=result.exit_code, seconds=result.seconds, **events.sums(total))
    return result


def check_at_least(minimum: int, **options: float | None) -> None:
    """Refuse numbers that are too small; None is an option that was left out.

    Raises:
        ValueError: names the option.
    """
    for name, value in options.items():
        if value is not None and value < minimum:
            raise ValueError(f"--{name.replace('_', '-')} is {value:g}, expected {minimum} or more")


@contextmanager
def usage() -> Iterator[None]:
    """Take errors for what they are while a job prepares: the user's to mend."""
    try:
        yield
    except (ValueError, NotADirectoryError, PermissionError) as error:
        raise UsageError(str(error)) from error


def exit_code(job: Callable[[], ExitCode]) -> ExitCode:
    """Run a job; turn the errors that a user can act on into a message."""
    try:
        return job()
    except (UsageError, ClusterError) as error:
        return _tell_end(ExitCode.WRONG_USAGE, error, f"error: {error}")
    except (WorkError, OSError) as error:
        return _tell_end(ExitCode.FAILED, error, f"error: {error}\n{_GOES_ON}")
    except KeyboardInterrupt as error:
        return _tell_end(ExitCode.FAILED, error, f"stopped. {_GOES_ON}")


def _tell_end(code: ExitCode, error: BaseException, text: str) -> ExitCode:
    if events.are_wanted():
        events.emit("error", exit_code=code, error_class=type(error).__name__, message=redact(str(error)) or "stopped")
    else:
        say(redact(text))
    return code


def _check_failures(summary: Summary, max_failures: int | None, output: Output) -> None:
    if max_failures is not None and summary.num_quarantined > max_failures:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(summary.quarantined.items()))
        example = next(iter(summary.examples.values()))
        raise WorkError(
            f"{summary.num_quarantined} images are quarantined ({counts}), --max-failures is {max_failures}; "
            f"one of them is {example}. Rows of all are in {output}/metrics"
        )
