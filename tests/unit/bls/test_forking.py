"""Forked processes code and decode: without a handler they wait for ever."""

import subprocess
import sys
from pathlib import Path

# In a process of its own: the fork must find threads of OpenMP in its parent, and a hang must not stop the tests.
PROGRAM = """
import multiprocessing, sys
import numpy as np
import torch
from bls import Codec

torch.set_num_threads(2)
codec = Codec.load(sys.argv[1])
x = np.arange(3 * 256 * 256, dtype=np.uint32).reshape(256, 256, 3).astype(np.uint8)
expected = codec.compress(x, quality=4)

def work(_):
    again = Codec.load(sys.argv[1])
    return codec.compress(x, quality=4), again.decompress(expected).shape, torch.get_num_threads()

with multiprocessing.get_context("fork").Pool(2) as pool:
    for bitstream, shape, num_threads in pool.map_async(work, range(4)).get(timeout=60):
        assert (bitstream, shape, num_threads) == (expected, x.shape, 1)
assert torch.get_num_threads() == 2
"""


def test_a_forked_pool_compresses(tiny_bundle: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, tiny_bundle], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
