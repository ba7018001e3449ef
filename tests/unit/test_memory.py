"""Memory that is freed is kept, and page faults cease; counted in processes of their own, as the setting is one's."""

import os
import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys, torch
from bls.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

keep_freed_memory()
for repeat in range(15):
    if repeat == 10:  # by now the heap has grown to its size
        before = faults()
    layers = [torch.ones(24 << 18) for _ in range(3)]  # of 24 MB
    del layers
print(faults() - before)
"""
PAGES = 5 * 3 * 24 * 2**20 // os.sysconf("SC_PAGE_SIZE")
"""Of what is allocated while faults are counted."""


def _count_faults(**environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "THP_"))}
    command = [sys.executable, "-c", COUNT_FAULTS]
    output = subprocess.run(command, env=clean | environment, check=True, capture_output=True, text=True).stdout
    return int(output)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets up glibc's allocator: runs on Linux with glibc")
@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, (0, 0.05)),
        ({"MALLOC_TRIM_THRESHOLD_": "131072"}, (0.5, 2)),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}, (0.5, 2)),
    ],
)
def test_memory_is_kept_unless_the_user_set_the_allocator_up(
    environment: dict[str, str], share: tuple[float, float]
) -> None:
    low, high = share
    assert low * PAGES <= _count_faults(**environment) <= high * PAGES
