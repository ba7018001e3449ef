"""Commands as documents and manifests print them: which jobs they run, and whether the jobs take their options."""

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import is_dataclass
from itertools import takewhile
from typing import Any

import tyro

from pipeline.console.printing import INSTALLED

JOB = re.compile(r"jobs/(\w+)\.py|jobs\.(\w+)")
END = re.compile(r"&&|\|\|?|;;?|\d?>.*")  # what ends the arguments of a command, redirections among it


def commands(document: str) -> Iterator[str]:
    """Yield the lines of a document's shell blocks, joined where a backslash continues them."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
        if language in ("", "sh", "bash"):
            yield from (line.strip() for line in re.sub(r"\\\n\s*", " ", block).splitlines())


def runs_of_jobs(command: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the jobs that a command runs, with their arguments."""
    words = shlex.split(command, comments=True)
    for index, word in enumerate(words):
        if job := _job_of(word, before=words[index - 1]):
            rest = words[index + 1 :]
            yield job, list(takewhile(lambda each: not END.fullmatch(each), rest))


def _job_of(word: str, *, before: str) -> str | None:
    """Return the job that a word of a command runs, if it runs one."""
    installed = {command: job for job, command in INSTALLED.items()}
    match = JOB.fullmatch(word)
    if match and re.fullmatch(r"python|-m", before):
        return match[1] or match[2]
    return installed.get(word)


def parse(job: str, arguments: list[str]) -> Any:
    """Return the configuration of a job; an option that it does not have ends the test with SystemExit."""
    module = importlib.import_module(f"jobs.{job}")
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    (config,) = (each for each in own if is_dataclass(each) and not each.__name__.startswith("_"))
    return tyro.cli(config, args=arguments)
