"""Lines to stdout and stderr, which whoever reads them may close at any time, as `head` does when it has enough."""

import os
from typing import IO


def write_line(line: str, stream: IO[str]) -> None:
    """Print a line, until the stream's reader has gone: from then on nothing, and the work goes on."""
    try:
        # A file name that is not UTF-8 is printed all the same.
        print(line.encode(errors="backslashreplace").decode(), file=stream, flush=True)
    except BrokenPipeError:
        silence(stream)


def silence(stream: IO[str]) -> None:
    """Send what is still written to a stream, at the end of the process too, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
