"""Find duplicates among millions of strings by 64-bit hash: 8 bytes of memory per string, 16 while sorting."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.sources.reference import Source

Hashes = npt.NDArray[np.int64]


def hashes_of(texts: Sequence[str]) -> Hashes:
    """Return hashes that hold in this process alone: Python's own are the fastest, and salted."""
    return np.fromiter(map(hash, texts), np.int64, len(texts))


def repeated_hashes(hashes: list[Hashes]) -> Hashes:
    """Return the hashes that occur more than once, sorted; empties the list, so that they are held only twice."""
    ordered = np.concatenate(hashes)
    hashes.clear()
    ordered.sort()
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def check_unique_keys(source: Source, hashes: list[Hashes]) -> None:
    """Look for keys that occur twice; the source is listed once more only if their hashes do. Empties the list.

    Raises:
        ValueError: two images have the same key; names both.
    """
    suspects = frozenset(repeated_hashes(hashes).tolist())
    seen: dict[str, str] = {}
    for reference in source.references() if suspects else ():
        if hash(reference.key) in suspects:
            if reference.key in seen:
                raise ValueError(
                    f"{seen[reference.key]} and {reference.source_uri} have the same key {reference.key}: expected "
                    "keys that are unique in the input; leave one out, rename it, or choose another --key-column"
                )
            seen[reference.key] = reference.source_uri
