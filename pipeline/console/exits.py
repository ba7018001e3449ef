"""How a job ends: exit codes, and errors as messages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

from pipeline.console import events
from pipeline.console.printing import say
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.output import OutputError
from pipeline.storage.retries import CredentialsError
from pipeline.storage.secrets import redact


class ExitCode(IntEnum):
    """How a job ended."""

    DONE = 0
    FAILED = 1
    WRONG_USAGE = 2
    DONE_WITH_QUARANTINED = 3
    DONE_IN_PART = 4


GOES_ON = "What is committed stays: the same command goes on from there."


class UsageError(ValueError):
    """The job cannot begin as it was asked to."""


class WorkError(RuntimeError):
    """The job cannot go on. What is committed stays, and the same command goes on from there."""


@contextmanager
def usage() -> Iterator[None]:
    """Turn errors while a job prepares into errors of usage, which the user can mend."""
    try:
        yield
    except DamagedFileError:
        raise
    except (ValueError, NotADirectoryError) as error:
        raise UsageError(str(error)) from error
    except (PermissionError, CredentialsError) as error:
        raise UsageError(f"{error}. Nothing was begun.") from error


def exit_code(job: Callable[[], ExitCode]) -> ExitCode:
    """Run a job; turn the errors that a user can act on into a message."""
    try:
        return job()
    except UsageError as error:
        return _tell_end(ExitCode.WRONG_USAGE, error, f"error: {error}")
    except (WorkError, OSError, OutputError, DamagedFileError) as error:
        is_damage = isinstance(error, ValueError)  # it does not mend itself
        return _tell_end(ExitCode.FAILED, error, f"error: {error}" if is_damage else f"error: {error}\n{GOES_ON}")
    except KeyboardInterrupt as error:
        return _tell_end(ExitCode.FAILED, error, f"stopped{f': {error}' if str(error) else ''}. {GOES_ON}")


def _tell_end(code: ExitCode, error: BaseException, text: str) -> ExitCode:
    if events.are_wanted():
        events.emit("error", exit_code=code, error_class=type(error).__name__, message=str(error) or "stopped")
    else:
        say(text)
    return code


def describe_error(error: BaseException) -> str:
    """Return an error's class and the last line of its message, without credentials."""
    lines = [line for line in str(error).splitlines() if line.strip()] or ["no message"]
    return redact(f"{type(error).__name__}: {lines[-1].strip()}")
