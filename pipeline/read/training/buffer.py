"""Rows that were read together with others and wait for their turn."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pipeline.ledger.markers import CommittedFile
from pipeline.read.training.order import Part

_T = TypeVar("_T")


class RowBuffer(Generic[_T]):
    """Reads a part when the first of its rows is taken, and holds the others until they are."""

    def __init__(self, load: Callable[[CommittedFile, Sequence[int]], Sequence[_T]]) -> None:
        self._load = load
        self._held: dict[Part, dict[int, _T]] = {}
        self._skipped: defaultdict[Part, set[int]] = defaultdict(set)

    def skip(self, part: Part, row: int) -> None:
        """Pass a row over, which is not read."""
        self._skipped[part].add(row)

    def take(self, part: Part, row: int) -> _T:
        """Return a row; each is taken once."""
        if part not in self._held:
            skipped = self._skipped.pop(part, set())
            rows = [each for each in part.rows if each not in skipped]
            self._held[part] = dict(zip(rows, self._load(part.file, rows), strict=True))
        taken = self._held[part].pop(row)
        if not self._held[part]:
            del self._held[part]
        return taken

    @property
    def num_held(self) -> int:
        """How many rows wait."""
        return sum(map(len, self._held.values()))
