"""How a worker's stages fit together: each image is an item that passes through them, ahead of need in free threads.

Stages are iterators. Pulling the last one pulls all others, so no more than the sum of their windows is in memory,
however long the input is and however large its images are.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from bls.bitstream import BitstreamError
from pipeline.images import ImageError
from pipeline.ledger.schema import misfits
from pipeline.status import GOOD, Status
from pipeline.storage.secrets import redact

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass
class Item:
    """One image on its way, with its position in the shard and its row of the metrics table."""

    position: int
    row: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Return whether the image is not quarantined."""
        return self.row["status"] in GOOD

    @property
    def is_kept(self) -> bool:
        """Return whether its original is stored in the place of a bitstream."""
        return bool(self.row["status"] == Status.KEPT)

    def quarantine(self, status: Status, error: BaseException) -> None:
        """Give the image up, with the reason in its row."""
        # Messages may quote a file name that is not UTF-8, which Parquet cannot hold.
        message = redact(str(error)).encode(errors="backslashreplace").decode()
        self.row.update(status=status, error_class=type(error.__cause__ or error).__name__, error_message=message)

    def fit(self, schema: pa.Schema) -> None:
        """Make the row one that its file can hold: what does not fit is null, and an image is not ok without it."""
        for name, error in misfits(self.row, schema).items():
            self.row[name] = None
            if self.ok:
                self.quarantine(Status.FAILED, ValueError(f"column {name} cannot hold its value: {error}"))

    @contextmanager
    def stage(self, seconds: str | None = None) -> Iterator[None]:
        """Quarantine this image at an error, which ends there; add the time to a column of the row, if one is named."""
        with nullcontext() if seconds is None else self.timed(seconds):
            try:
                yield
            except ImageError as error:
                self.row.update(error.facts)
                self.quarantine(error.status, error)
            except BitstreamError as error:
                self.quarantine(Status.CORRUPT, error)
            except Exception as error:
                self.quarantine(Status.FAILED, error)

    @contextmanager
    def timed(self, seconds: str) -> Iterator[None]:
        """Add the time to a column of the row."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.row[seconds] = self.row.get(seconds, 0.0) + time.perf_counter() - start


_I = TypeVar("_I", bound=Item)


def batches(
    items: Iterable[_T], *, key: Callable[[_T], Hashable], cost: Callable[[_T], int], max_cost: int, num_open: int = 4
) -> Iterator[list[_T]]:
    """Group items of equal key into batches of about `max_cost`, holding back at most `num_open` times that cost.

    Every item comes out once, each batch in the order of the input.
    """
    groups: defaultdict[Hashable, list[_T]] = defaultdict(list)
    costs: defaultdict[Hashable, int] = defaultdict(int)

    def close(group: Hashable) -> list[_T]:
        del costs[group]
        return groups.pop(group)

    for item in items:
        group = key(item)
        groups[group].append(item)
        costs[group] += cost(item)
        if costs[group] >= max_cost:
            yield close(group)
        elif sum(costs.values()) > num_open * max_cost:
            yield close(max(costs, key=costs.__getitem__))
    while groups:
        yield close(next(iter(groups)))


def run_batch(
    function: Callable[[Sequence[_T]], Sequence[_R]], items: Sequence[_I], inputs: Sequence[_T], *, seconds: str
) -> list[tuple[_I, _R]]:
    """Run a batch at once; where that fails, run its images one by one, so that only the bad ones are quarantined.

    Returns the items that did not fail with their results; each item's row gets its share of the time.
    """
    start = time.perf_counter()
    if len(items) > 1:
        try:
            outputs = function(inputs)
        except Exception:  # the images are tried one by one below
            pass
        else:
            for item in items:
                item.row[seconds] = (time.perf_counter() - start) / len(items)
            return list(zip(items, outputs, strict=True))
    results = []
    for item, value in zip(items, inputs, strict=True):
        with item.stage(seconds):
            results.append((item, function([value])[0]))
    return results
