"""Orders of epochs: every image once, classes mixed, files read no more often than is said."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.ledger.markers import CommittedFile
from pipeline.read.dataset import StoredFile
from pipeline.read.training.order import MAX_PASSES, Order, Place


def files(sizes: list[int]) -> list[StoredFile]:
    return [StoredFile(shard, CommittedFile(f"{shard}", 0, ""), range(size)) for shard, size in enumerate(sizes)]


def read(order: Order, place: Place, epoch: int = 0) -> list[tuple[str, int]]:
    return [(part.file.name, row) for part, row in order.rows(epoch, place)]


def places(num_ranks: int, num_workers: int) -> list[Place]:
    return [Place(rank, num_ranks, worker, num_workers) for rank in range(num_ranks) for worker in range(num_workers)]


@given(
    sizes=st.lists(st.integers(1, 20), max_size=12),
    shuffle_buffer=st.integers(0, 100),
    num_ranks=st.integers(1, 5),
    num_workers=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_every_image_is_read_once(
    sizes: list[int], shuffle_buffer: int, num_ranks: int, num_workers: int, epoch: int
) -> None:
    order = Order(files(sizes), shuffle_buffer)
    stretches = [read(order, place, epoch) for place in places(num_ranks, num_workers)]
    seen = Counter(image for stretch in stretches for image in stretch)
    assert seen == Counter((str(shard), row) for shard, size in enumerate(sizes) for row in range(size))
    of_ranks = [sum(map(len, stretches[i : i + num_workers])) for i in range(0, len(stretches), num_workers)]
    assert max(of_ranks) - min(of_ranks) <= 1


def test_selected_rows_come_and_no_others() -> None:
    order = Order(
        [StoredFile(3, CommittedFile("a", 0, ""), [2, 5, 9]), StoredFile(7, CommittedFile("b", 0, ""), [0])],
        shuffle_buffer=2,
    )
    assert sorted(read(order, Place())) == [("a", 2), ("a", 5), ("a", 9), ("b", 0)]


def test_without_a_buffer_images_come_as_they_are_stored() -> None:
    order = Order(files([2, 3]))
    assert read(order, Place()) == [("0", 0), ("0", 1), ("1", 0), ("1", 1), ("1", 2)]


def test_an_order_is_that_of_seed_and_epoch() -> None:
    orders = [
        read(Order(files([50] * 4), shuffle_buffer=30, seed=seed), Place(), epoch)
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert orders[0] == read(Order(files([50] * 4), shuffle_buffer=30), Place())
    assert len({tuple(order) for order in orders}) == 4


def excess(order: Order, place: Place, *, num_classes: int, batch_size: int) -> float:
    """Return the chi-square statistic of the classes in batches over its mean for images drawn at random.

    The files are sorted by class: the first of them are of the first class, and so on.
    """
    classes = [int(name) * num_classes // len(order.files) for name, _ in read(order, place)]
    batches = np.reshape(classes[: len(classes) // batch_size * batch_size], (-1, batch_size))
    expected = batch_size / num_classes
    counts = np.stack([(batches == each).sum(1) for each in range(num_classes)])
    return float(np.square(counts - expected).sum() / expected / len(batches) / (num_classes - 1))


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4])
def test_classes_of_a_small_set_are_mixed(num_workers: int) -> None:
    """Three files, each of one class: the batches of every worker have the classes of the set."""
    order = Order(files([128] * 3), shuffle_buffer=8192)
    num_batches = 12 // num_workers
    limit = stats.chi2.ppf(0.9999, 2 * num_batches) / (2 * num_batches)
    for place in places(1, num_workers):
        assert excess(order, place, num_classes=3, batch_size=32) < limit


@pytest.mark.parametrize("num_workers", [1, 4])
def test_classes_of_a_set_much_larger_than_the_buffer_are_mixed(num_workers: int) -> None:
    """800 files, sorted by class, 80 of each: a batch varies hardly more than one of images drawn at random."""
    order = Order(files([128] * 800), shuffle_buffer=8192)
    assert excess(order, Place(num_workers=num_workers), num_classes=10, batch_size=32) < 1.1


def test_a_small_buffer_mixes_worse() -> None:
    order = Order(files([128] * 800), shuffle_buffer=128)
    assert excess(order, Place(), num_classes=10, batch_size=32) > 2


@pytest.mark.parametrize(
    ("num_files", "shuffle_buffer", "num_readers", "num_passes"),
    [
        (3, 8192, 1, 1),
        (3, 8192, 2, 2),  # all fits into the buffer: each worker reads each file
        (10_000, 8192, 1, 4),
        (10_000, 32768, 16, 1),
        (10_000, 64, 1, MAX_PASSES),
    ],
)
def test_files_are_read_once_in_a_pass(num_files: int, shuffle_buffer: int, num_readers: int, num_passes: int) -> None:
    order = Order(files([128] * num_files), shuffle_buffer)
    assert order.num_passes(num_readers) == num_passes
    if num_files < 10:
        reads = Counter(
            part.file.name for place in places(1, num_readers) for part in {p for p, _ in order.rows(0, place)}
        )
        assert set(reads.values()) == {num_passes}
