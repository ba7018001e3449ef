"""How far an epoch is: where its workers enter it, and what the batches of a DataLoader say about that.

A DataLoader takes batches from its workers in turn, and passes over those that have no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from pipeline.read.training.order import Place

_MAX_WORKERS = 1024  # of a DataLoader: each counts in a place of its own, as they share no lock


class Progress:
    """Numbers that all workers of a DataLoader see as the process that made it sets them, whenever they began."""

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._num_workers = torch.zeros((), dtype=torch.int64).share_memory_()  # 0: the epoch is entered at its start
        self._entries = torch.zeros((_MAX_WORKERS, 2), dtype=torch.int64).share_memory_()
        self._skipped = torch.zeros(_MAX_WORKERS, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The number of the epoch."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self._num_workers.zero_()
        self._epoch.fill_(epoch)

    @property
    def num_skipped(self) -> int:
        """How many damaged images all workers have left out."""
        return int(self._skipped.sum())

    def skipped(self, worker: int, count: int) -> None:
        """Count damaged images that a worker has left out."""
        self._skipped[worker % _MAX_WORKERS] += count

    def go_on(self, entries: Mapping[int, tuple[int, int]], num_workers: int) -> None:
        """Let workers enter the epoch, once, in the part of a worker and after so many of its rows."""
        self._num_workers.fill_(num_workers)
        for worker, entry in entries.items():
            self._entries[worker] = torch.tensor(entry)

    def enter(self, place: Place) -> tuple[Place, int]:
        """Return whose part of the epoch a worker reads, and after how many of its rows it enters.

        Raises:
            ValueError: the epoch was left by another number of workers.
        """
        num_workers = int(self._num_workers)
        if not num_workers:
            return place, 0
        if num_workers != place.num_workers:
            raise ValueError(
                f"the epoch was left by {num_workers} workers, it is entered again by {place.num_workers}: "
                "give the DataLoader as many workers, or begin the next epoch with set_epoch"
            )
        part, rows = self._entries[place.worker].tolist()
        self._entries[place.worker] = torch.tensor((place.worker, 0))
        return replace(place, worker=part), rows


@dataclass(frozen=True)
class Batches:
    """Batches that a DataLoader has given."""

    num_batches: int
    batch_size: int
    drop_last: bool
    num_workers: int

    def entries(self, lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return where new workers go on: of each, in whose part of the epoch, and after how many rows.

        The parts have these lengths. A new DataLoader asks its first worker first, which takes the part that is next.

        Raises:
            ValueError: an epoch has fewer batches.
        """
        there = [length // self.batch_size if self.drop_last else -(-length // self.batch_size) for length in lengths]
        if self.num_batches > sum(there):
            raise ValueError(f"num_batches is {self.num_batches}, an epoch has {sum(there)}: count those of this epoch")
        taken, part, left = [0] * len(lengths), 0, self.num_batches
        while left:
            if taken[part] < there[part]:
                taken[part] += 1
                left -= 1
            part = (part + 1) % len(lengths)
        parts = [(part + worker) % len(lengths) for worker in range(len(lengths))]
        return {w: (part, min(taken[part] * self.batch_size, lengths[part])) for w, part in enumerate(parts)}
