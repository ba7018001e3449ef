"""Single images of a compressed dataset, by number or by key."""

import operator
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

from pipeline.ledger.markers import CommittedFile
from pipeline.read.dataset import CompressedDataset, StoredFile


class Lookup:
    """Finds selected images: file and row. They are numbered in the order in which they are stored."""

    def __init__(self, dataset: CompressedDataset, files: Sequence[StoredFile]) -> None:
        self._dataset = dataset
        self._files = files
        self._ends = list(accumulate(len(file.rows) for file in files))

    def find(self, which: int | str) -> tuple[CommittedFile, int]:
        """Return the file and row of an image; a negative number counts from the end.

        Raises:
            IndexError: there is no image of this number.
            KeyError: there is none of this key, or it is quarantined.
        """
        if isinstance(which, str):
            if which not in self._by_key:
                raise KeyError(f"{self._dataset.output} has no image {which!r} among those that were selected")
            return self._by_key[which]
        number, num_images = operator.index(which), self._ends[-1] if self._ends else 0
        if not -num_images <= number < num_images:
            raise IndexError(f"image {number} of {num_images}: expected 0 to {num_images - 1}, or a key")
        number %= num_images
        place = bisect_right(self._ends, number)
        file = self._files[place]
        return file.file, file.rows[number - self._ends[place]]

    @cached_property
    def _by_key(self) -> dict[str, tuple[CommittedFile, int]]:
        """All keys, which are read when the first is asked for."""
        files = {file.shard: (file, frozenset(file.rows)) for file in self._files}
        return {
            key: (files[shard][0].file, row)
            for shard, row, key in self._dataset.stored_keys()
            if shard in files and row in files[shard][1]
        }
