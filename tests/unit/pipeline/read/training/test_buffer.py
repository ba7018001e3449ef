from collections.abc import Sequence
from itertools import islice

import pytest

from pipeline.ledger.markers import CommittedFile
from pipeline.read.dataset import StoredFile
from pipeline.read.training.buffer import RowBuffer
from pipeline.read.training.order import Order, Place


class Storage:
    """Files whose rows are their names and numbers; counts what is read."""

    def __init__(self) -> None:
        self.reads: list[tuple[str, list[int]]] = []

    def load(self, file: CommittedFile, rows: Sequence[int]) -> list[tuple[str, int]]:
        self.reads.append((file.name, list(rows)))
        return [(file.name, row) for row in rows]


ORDER = Order(
    [StoredFile(shard, CommittedFile(f"{shard}", 0, ""), range(16)) for shard in range(100)], shuffle_buffer=64
)


@pytest.mark.parametrize("num_skipped", [0, 700])
def test_rows_come_in_order_and_little_is_held(num_skipped: int) -> None:
    storage = Storage()
    buffer = RowBuffer(storage.load)
    rows = ORDER.rows(0, Place())
    for part, row in islice(rows, num_skipped):
        buffer.skip(part, row)
    most = 0
    for part, row in rows:
        assert buffer.take(part, row) == (part.file.name, row)
        most = max(most, buffer.num_held)
    assert buffer.num_held == 0 and 32 < most <= 64 + 16
    read = [(name, row) for name, rows in storage.reads for row in rows]
    assert len(read) == len(set(read)) == 1600 - num_skipped
