"""A codec in forked processes, as `multiprocessing` makes them on Linux up to Python 3.13.

A fork copies the calling thread alone. OpenMP in the child still counts on the threads that its parent had, and the
first operation that wants them waits for ever. With one thread it wants none.
"""

import functools
import os

import torch


@functools.cache
def run_forks_on_one_thread() -> None:
    """Let PyTorch compute on one thread in every process that this one forks from now on."""
    os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))
