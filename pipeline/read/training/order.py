"""The order of an epoch: which rows of which files a worker reads, one after the other. Numbers alone, no data.

Without shuffling, files and rows come as they are stored. With it

1. the images of every file are dealt at random into one part for each *pass*;
2. an epoch is pass after pass over the files, each in an order of its own, each with one part of every file;
3. every worker of every rank takes a stretch of that, of equal length;
4. a buffer mixes the stretch: it is filled first, then gives one image at random for each that enters.

A set that fits into the buffer has a pass for each worker: every worker has images of every file, all mixed. A larger
one has enough passes for the buffer to hold images of `FILES_MIXED` files, but at most `MAX_PASSES`: a file is read
once in each pass. What leaves the buffer is known without reading, so an epoch can be entered at any place.
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.ledger.markers import CommittedFile
from pipeline.read.dataset import StoredFile

FILES_MIXED = 256
MAX_PASSES = 8

_T = TypeVar("_T")


@dataclass(frozen=True)
class Place:
    """The worker and the rank that read."""

    rank: int = 0
    num_ranks: int = 1
    worker: int = 0
    num_workers: int = 1

    @property
    def num_readers(self) -> int:
        """How many workers all ranks have together."""
        return self.num_ranks * self.num_workers


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a file, ascending, that a worker reads at once."""

    file: CommittedFile
    rows: Sequence[int]


@dataclass(frozen=True)
class Order:
    """The orders of all epochs; a `shuffle_buffer` of 0 images means: as stored."""

    files: Sequence[StoredFile]
    shuffle_buffer: int = 0
    seed: int = 0
    drop_uneven: bool = False

    @property
    def num_images(self) -> int:
        """How many images there are, whichever rank reads them."""
        return sum(len(file.rows) for file in self.files)

    def settings(self) -> dict[str, int]:
        """Return what the order depends on, beside the epoch and the place."""
        return {
            "num_images": self.num_images,
            "shuffle_buffer": self.shuffle_buffer,
            "seed": self.seed,
            "drop_uneven": int(self.drop_uneven),
        }

    def stretch(self, place: Place) -> tuple[int, int]:
        """Return where the part of a worker begins and ends in an epoch, counted in images."""
        num_images = self.num_images
        if self.drop_uneven:
            num_images -= num_images % place.num_ranks
        of_rank = _share(0, num_images, place.rank, place.num_ranks)
        return _share(*of_rank, place.worker, place.num_workers)

    def rows(self, epoch: int, place: Place) -> Iterator[tuple[Part, int]]:
        """Return the rows of a worker in an epoch, each with the part that it belongs to."""
        start, stop = self.stretch(place)
        rows = ((part, row) for part in self._parts(epoch, place, start, stop) for row in part.rows)
        if not self.shuffle_buffer:
            return rows
        return _mixed(rows, self.shuffle_buffer, random.Random(f"{self.seed} {epoch} {start}"))

    def num_passes(self, num_readers: int) -> int:
        """Return how often an epoch passes over the files."""
        num_images = self.num_images
        if not self.shuffle_buffer or not num_images:
            return 1
        if num_images <= self.shuffle_buffer:
            return num_readers
        held = min(self.shuffle_buffer, max(num_images // num_readers, 1))
        wanted = min(FILES_MIXED, len(self.files)) * num_images / len(self.files)
        return min(math.ceil(wanted / held), MAX_PASSES)

    def _parts(self, epoch: int, place: Place, start: int, stop: int) -> Iterator[Part]:
        """Return what a stretch of an epoch reads of each file."""
        begin = 0
        for file, dealt in self._epoch(epoch, self.num_passes(place.num_readers)):
            first, last = max(start - begin, 0), min(stop - begin, dealt.stop - dealt.start)
            begin += dealt.stop - dealt.start
            if first < last:
                yield Part(file.file, self._rows(epoch, file, slice(dealt.start + first, dealt.start + last)))
            if begin >= stop:
                return

    def _epoch(self, epoch: int, num_passes: int) -> Iterator[tuple[StoredFile, slice]]:
        """Return the files of an epoch, once for each pass, and which of their images, as dealt, come then."""
        for number in range(num_passes):
            order: Iterable[int] = range(len(self.files))
            if self.shuffle_buffer:
                order = np.random.default_rng((self.seed, epoch, 0, number)).permutation(len(self.files))
            for index in order:
                file = self.files[index]
                yield file, slice(*_share(0, len(file.rows), number, num_passes))

    def _rows(self, epoch: int, file: StoredFile, dealt: slice) -> Sequence[int]:
        if not self.shuffle_buffer:
            return file.rows[dealt]
        random_order = np.random.default_rng((self.seed, epoch, 1, file.shard)).permutation(len(file.rows))
        return [file.rows[place] for place in sorted(random_order[dealt].tolist())]


def _mixed(items: Iterable[_T], size: int, generator: random.Random) -> Iterator[_T]:
    """Pass items through a buffer of this size that they leave in random order."""
    buffer: list[_T] = []
    for item in items:
        if len(buffer) < size:
            buffer.append(item)
            continue
        place = generator.randrange(size)
        yield buffer[place]
        buffer[place] = item
    generator.shuffle(buffer)
    yield from buffer


def _share(start: int, stop: int, number: int, count: int) -> tuple[int, int]:
    """Cut a stretch into `count` of about equal length; return the one of this number."""
    length = stop - start
    return start + length * number // count, start + length * (number + 1) // count
