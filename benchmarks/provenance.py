"""What a measurement needs beside it: commit, hardware, versions, command."""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def provenance() -> dict[str, Any]:
    """Return where and how the running measurement was made."""
    return {
        "commit": _commit(),
        "cpu": _cpu(),
        "num_cpus": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "numba", "numpy", "ray", "pillow")},
        "command": _command(),
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write a result with its provenance to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**provenance(), **result}, indent=2) + "\n")
    return path


def _command() -> str:
    """Return the command; of paths, which differ from machine to machine, the last part."""
    arguments = (Path(argument).name if Path(argument).is_absolute() else argument for argument in sys.argv[1:])
    return " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments])


def _commit() -> str:
    """Return the commit, marked where files other than results differ from it."""
    changed = _git("status", "--porcelain", "--", ":/", ":(top,exclude)benchmarks/results")
    return _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return run.stdout.strip()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            flags = "AVX-512 bf16" if "avx512_bf16" in Path("/proc/cpuinfo").read_text() else "no bf16"
            return f"{line.partition(':')[2].strip()} ({flags})"
    return platform.processor() or "unknown"
