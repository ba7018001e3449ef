"""The inputs that an output has already, to find what is new.

Three hashes of each are held, 24 bytes, and 24 more while they are sorted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.sources.reference import ImageReference
from pipeline.sources.unique_keys import Hashes, hashes_of

MAX_NAMED = 3
_PLACE = ("file", "start", "num_bytes")  # of an image in its tar or Parquet file


class KnownInputs:
    """Compares the references of a listing with those of plans.

    A new key with the hash of another one is taken for that one in another place, and named; with ten million known
    and a million new keys this happens once in two million times.
    """

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        keys, places, stems = ([np.empty(0, np.int64)] for _ in range(3))
        for table in tables:
            keys.append(hashes_of(table["key"].to_pylist()))
            places.append(_hashes_of_places(zip(*(table[name].to_pylist() for name in _PLACE), strict=True)))
            stems.append(hashes_of(table["stem"].to_pylist()))
        self._stems = _joined(stems)
        self._stems.sort()
        self._keys, self._places = _joined(keys), _joined(places)
        order = np.argsort(self._keys)
        self._keys, self._places = self._keys[order], self._places[order]
        self._is_listed = np.zeros(len(self._keys), bool)
        self.num_moved = 0
        self.moved: list[str] = []  # keys of some

    @property
    def num_vanished(self) -> int:
        """How many known inputs were not listed."""
        return int(np.count_nonzero(~self._is_listed))

    def new(self, references: Sequence[ImageReference]) -> Iterator[ImageReference]:
        """Return the references of a listing that are new; take note of the others.

        A new image does not take the stem of a known one that vanished: both would be restored to one name.
        """
        is_known = self._compare(references)
        clashes = _find(self._stems, hashes_of([reference.stem for reference in references]))[1]
        for reference, known, clash in zip(references, is_known.tolist(), clashes.tolist(), strict=True):
            if not known:
                yield replace(reference, stem=reference.key) if clash else reference

    def vanished(self, tables: Iterable[pa.Table]) -> list[str]:
        """Return the keys of some known inputs that were not listed; the tables are those of the plans."""
        return list(islice(self._vanished(tables), MAX_NAMED))

    def _vanished(self, tables: Iterable[pa.Table]) -> Iterator[str]:
        for table in tables:
            keys = table["key"].to_pylist()
            is_listed = self._is_listed[_find(self._keys, hashes_of(keys))[0]]
            yield from (keys[row] for row in np.flatnonzero(~is_listed))

    def _compare(self, references: Sequence[ImageReference]) -> npt.NDArray[np.bool_]:
        """Return which references are known, and note which of them are in another place than planned."""
        at, is_known = _find(self._keys, hashes_of([reference.key for reference in references]))
        self._is_listed[at[is_known]] = True
        places = _hashes_of_places((each.file, each.start, each.num_bytes) for each in references)
        is_moved = np.zeros(len(references), bool)
        is_moved[is_known] = places[is_known] != self._places[at[is_known]]
        moved = np.flatnonzero(is_moved)
        self.num_moved += len(moved)
        self.moved += [references[row].key for row in moved[: MAX_NAMED - len(self.moved)]]
        return is_known


def _joined(hashes: list[Hashes]) -> Hashes:
    """Concatenate hashes; empties the list, so that they are not held twice for long."""
    joined = np.concatenate(hashes)
    hashes.clear()
    return joined


def _find(hashes: Hashes, wanted: Hashes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return where hashes stand among sorted ones, and whether they do."""
    at = np.searchsorted(hashes, wanted)
    at[at == len(hashes)] = 0
    found = hashes[at] == wanted if len(hashes) else np.zeros(len(wanted), bool)
    return at, found


def _hashes_of_places(places: Iterable[tuple[str | None, int | None, int | None]]) -> Hashes:
    return np.fromiter(map(hash, places), np.int64)
