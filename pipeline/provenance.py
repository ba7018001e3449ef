"""The facts that a measurement needs beside it: commit, hardware, versions, command."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.storage.secrets import redact

_ROOT = Path(__file__).parents[1]


def provenance() -> dict[str, Any]:
    """Return where and how this measurement is made; outside a checkout the commit is missing."""
    return {
        "commit": _commit(),
        "cpu": _cpu(),
        "num_cpus": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numba", "numpy", "ray", "pillow")},
        "command": _command(),
    }


@cache
def code_version() -> str:
    """Return the version of this package; it is looked up once."""
    try:
        return version("bls-codec")
    except PackageNotFoundError:
        return "not installed"


def _command() -> str:
    """Return the command; paths, which differ from machine to machine, are cut to their last part."""
    program = Path(sys.argv[0])
    start = f"python {program.parent.name}/{program.name}"
    if program.parent.name == "benchmarks":
        start = f"python -m benchmarks.{program.stem}"
    arguments = (Path(argument).name if Path(argument).is_absolute() else redact(argument) for argument in sys.argv[1:])
    return " ".join([start, *arguments])


def _commit() -> str | None:
    """Return the commit, marked where files other than results differ from it."""
    if not (_ROOT / ".git").exists():  # an installed package may lie inside another project's checkout
        return None
    commit = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", ":/", ":(top,exclude)benchmarks/results")
    return commit + ("-dirty" if changed else "") if commit else None


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    except OSError:  # no git
        return ""
    return run.stdout.strip()


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    for line in text.splitlines():
        if line.startswith("model name"):
            flags = "AVX-512 bf16" if "avx512_bf16" in text else "no bf16"
            return f"{line.partition(':')[2].strip()} ({flags})"
    return platform.processor() or "unknown"
