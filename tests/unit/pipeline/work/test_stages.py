import time
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bls.bitstream import BitstreamError
from pipeline.images import ImageError
from pipeline.status import Status
from pipeline.work.stages import Item, batches, run_batch


def make_item(position: int = 0) -> Item:
    return Item(position, {"key": str(position), "status": "ok"})


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 30))), st.integers(1, 40))
def test_batches_lose_nothing_and_mix_nothing(items: list[tuple[int, int]], max_cost: int) -> None:
    numbered = [(key, cost, index) for index, (key, cost) in enumerate(items)]
    out = list(batches(numbered, key=lambda item: item[0], cost=lambda item: item[1], max_cost=max_cost))
    assert sorted(item for batch in out for item in batch) == sorted(numbered)
    for batch in out:
        assert len({key for key, _, _ in batch}) == 1
        assert sum(cost for _, cost, _ in batch[:-1]) < max_cost
        assert batch == sorted(batch, key=lambda item: item[2])


def test_batches_hold_back_a_bounded_cost() -> None:
    consumed = 0

    def items() -> Iterator[int]:
        nonlocal consumed
        for key in range(1000):  # no two may share a batch
            consumed += 1
            yield key

    produced = 0
    for batch in batches(items(), key=lambda key: key, cost=lambda _: 1, max_cost=10, num_open=4):
        produced += len(batch)
        assert consumed - produced <= 40
    assert produced == 1000


@pytest.mark.parametrize(
    ("error", "status", "error_class"),
    [
        (ImageError(Status.TOO_LARGE, "why", {"width": 9}), "too_large", "ImageError"),
        (BitstreamError("why"), "corrupt", "BitstreamError"),
        (MemoryError("why"), "failed", "MemoryError"),
    ],
)
def test_an_error_quarantines_its_image(error: Exception, status: str, error_class: str) -> None:
    item = make_item()
    with item.stage("decode_seconds"):
        raise error
    assert not item.ok
    assert (item.row["status"], item.row["error_class"], item.row["error_message"]) == (status, error_class, "why")
    assert item.row["decode_seconds"] > 0
    assert item.row.get("width") == (9 if status == "too_large" else None)


def test_the_class_of_an_error_is_its_cause() -> None:
    item = make_item()
    with item.stage("s"):
        try:
            raise FileNotFoundError("gone")
        except OSError as error:
            raise ImageError(Status.UNREADABLE, str(error)) from error
    assert item.row["error_class"] == "FileNotFoundError"


def test_credentials_stay_out_of_rows() -> None:
    item = make_item()
    item.quarantine(Status.FAILED, ValueError("cannot open s3://key:secret@bucket/x"))
    assert item.row["error_message"] == "cannot open s3://bucket/x"


def test_a_bad_image_does_not_spoil_its_batch() -> None:
    items = [make_item(position) for position in range(4)]

    def double(values: Sequence[int]) -> list[int]:
        if 2 in values:
            raise RuntimeError("two")
        return [2 * value for value in values]

    results = run_batch(double, items, [0, 1, 2, 3], seconds="analysis_seconds")
    assert [(item.position, result) for item, result in results] == [(0, 0), (1, 2), (3, 6)]
    assert [item.row["status"] for item in items] == ["ok", "ok", "failed", "ok"]
    assert all(item.row["analysis_seconds"] > 0 for item in items)


def test_a_batch_shares_its_time() -> None:
    items = [make_item(position) for position in range(4)]

    def sleep(values: Sequence[int]) -> Sequence[int]:
        time.sleep(0.04)
        return values

    start = time.perf_counter()
    run_batch(sleep, items, [0, 0, 0, 0], seconds="analysis_seconds")
    assert 0.04 <= 4 * items[0].row["analysis_seconds"] <= time.perf_counter() - start
