"""What a job prints for the person who started it: progress and errors on stderr, a summary on stdout."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.console import events
from pipeline.console.streams import write_line
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.output import Output
from pipeline.ledger.summary import Summary
from pipeline.storage.secrets import redact


def say(message: str) -> None:
    """Print a message on stderr, so that stdout stays readable for programs."""
    if events.are_wanted():
        events.emit("message", message=message)
    else:
        write_line(redact(message), sys.stderr)


def print_table(rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns; long values stay whole, so that they can be copied."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    _print()
    for name, value in rows:
        _print(f"  {name:<{width}}  {value}")


def print_quarantined(summary: Summary) -> None:
    """Print how many images are quarantined, by status, with an example each."""
    if summary.quarantined:
        print_table(
            (f"{count} {status}", f"e.g. {summary.examples[status]}")
            for status, count in sorted(summary.quarantined.items())
        )


def print_commands(commands: Iterable[tuple[str, str]]) -> None:
    """Print commands to go on with, each under what it does and ready to be pasted."""
    for purpose, command in commands:
        _print(f"\n{purpose}\n  {command}")


_MOST_NAMED = 10


def print_damage(
    damage: Sequence[DamagedFileError], *, dataset: Output, bundle: str | None, again: str | None = None
) -> None:
    """Name the files that kept shards from being done, and how to mend them; `again` is the command to give then."""
    for each in damage[:_MOST_NAMED]:
        say(f"error: {each}")
    if len(damage) > _MOST_NAMED:
        say(f"error: and so with {len(damage) - _MOST_NAMED} more")
    if damage:
        shards = "1 shard was" if len(damage) == 1 else f"{len(damage)} shards were"
        say(f"{shards} left out for this, all others are done")
    if any(each.is_of_a_shard for each in damage):
        arguments = ["--input", shown(dataset), *([] if bundle is None else ["--bundle", redact(bundle)]), "--repair"]
        repair = job_command("verify_dataset", *arguments)
        commands = [
            ("Restore the files from a copy, or give their shards back:", repair),
            ("Then do these shards again, with the command that wrote them:", writing_command(dataset)),
        ]
        print_commands(commands if again is None else [*commands, ("Then do what was left out here:", again)])


def writing_command(dataset: Output) -> str:
    """Return the command that goes on with a compressed dataset, as its manifest has it."""
    manifest = dataset.manifest()
    assert manifest is not None
    name = f"{manifest.job}_dataset"
    if not manifest.arguments:
        return f"{job_command(name)} with the options that it had"
    has_grown = manifest.job == "compress" and len(manifest.plans) > 1 and "--append" not in manifest.arguments
    return job_command(name, *manifest.arguments, *(["--append"] if has_grown else []))


def shown(output: Output) -> str:
    """Return the shortest path to an output from where the user is."""
    path = str(output)
    return os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path


def metrics_glob(output: Output) -> str:
    """Return the pattern that DuckDB reads an output's metrics with."""
    return f"{shown(output)}/metrics/*.parquet"


INSTALLED = {
    "compress_dataset": "bls-compress",
    "decompress_dataset": "bls-decompress",
    "evaluate": "bls-evaluate",
    "query_metrics": "bls-query",
    "recode_dataset": "bls-recode",
    "report": "bls-report",
    "train": "bls-train",
    "verify_dataset": "bls-verify",
}


def job_command(name: str, *arguments: str) -> str:
    """Return a shell command that runs another job, in the way in which the user started this one."""
    if Path(sys.argv[0]).name in INSTALLED.values():
        return shlex.join((INSTALLED[name], *arguments))
    path = str(Path(__file__).parents[2] / "jobs" / f"{name}.py")
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
