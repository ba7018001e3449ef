"""Jobs as their users run them, for tests: commands in processes of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger.output import Output

ROOT = Path(__file__).parents[1]


def job(name: str, *arguments: object) -> list[str]:
    """Return the command of a job."""
    return [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]


def run(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a job to its end."""
    return subprocess.run(
        job(name, *arguments), capture_output=True, text=True, timeout=600, env={**os.environ, **environment}
    )


def wait_until(condition: Callable[[], bool], what: str, *, seconds: float = 120) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.005)


@contextmanager
def head_node(log: Path, *resources: str) -> Iterator[str]:
    """Start a cluster of one node, which writes to a log; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ray = str(Path(sys.executable).with_name("ray"))
    options = ("--head", "--block", f"--port={port}", "--include-dashboard=false", "--disable-usage-stats")
    command = [ray, "start", *options, *resources]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True) as process:

        def is_settled() -> bool:
            return "Ray runtime started" in log.read_text() or process.poll() is not None

        try:
            wait_until(is_settled, f"Ray, see {log}", seconds=180)
            assert process.poll() is None, log.read_text()
            yield f"127.0.0.1:{port}"
        finally:
            with suppress(ProcessLookupError):  # it did not start
                os.killpg(process.pid, signal.SIGKILL)  # SIGTERM would wait for actors that Ray Data leaves


def started_under(mark: str) -> dict[int, str]:
    """Return the ids and commands of all live processes that inherited a mark in their environment."""
    commands = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                commands[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except OSError:  # it ended in the meantime
            continue
    return commands


def committed_rows(output: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the committed rows of a compressed dataset in order, without what differs from run to run."""
    markers = Output(str(output)).markers()
    tables = {
        kind: pa.concat_tables([pq.read_table(output / marker.files[kind].name) for marker in markers]).to_pylist()
        for kind in ("metrics", "bitstreams")
    }
    return {
        kind: [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]
        for kind, rows in tables.items()
    }


def comparable(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of metrics by key, without what differs from run to run."""
    kept = [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]
    return sorted(kept, key=lambda row: str(row["key"]))
