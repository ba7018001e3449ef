from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.read.training.order import Place
from pipeline.read.training.progress import Batches, Progress


def given_in_turn(parts: list[list[int]], batches: Batches) -> list[tuple[int, ...]]:
    """Give all batches of workers that have these rows, as a DataLoader does."""
    left, result = [list(part) for part in parts], []
    while any(len(part) >= (batches.batch_size if batches.drop_last else 1) for part in left):
        for part in left:
            batch = tuple(part[: batches.batch_size])
            del part[: batches.batch_size]
            if batch and (len(batch) == batches.batch_size or not batches.drop_last):
                result.append(batch)
    return result


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    batch_size=st.integers(1, 5),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_the_batches_that_were_to_follow_follow(
    lengths: list[int], batch_size: int, drop_last: bool, data: st.DataObject
) -> None:
    parts = [[100 * part + row for row in range(length)] for part, length in enumerate(lengths)]
    batches = Batches(0, batch_size, drop_last, len(lengths))
    whole = given_in_turn(parts, batches)
    left = replace(batches, num_batches=data.draw(st.integers(0, len(whole))))
    entries = left.entries(lengths)
    later = [parts[part][rows:] for part, rows in (entries[worker] for worker in range(len(lengths)))]
    assert given_in_turn(later, batches) == whole[left.num_batches :]
    with pytest.raises(ValueError, match=f"an epoch has {len(whole)}: count those of this epoch"):
        replace(batches, num_batches=len(whole) + 1).entries(lengths)


def test_an_epoch_is_entered_once_and_not_the_next() -> None:
    progress = Progress()
    first, second = Place(num_workers=2, worker=0), Place(num_workers=2, worker=1)
    progress.go_on({0: (1, 5), 1: (0, 7)}, num_workers=2)
    assert [progress.enter(place) for place in (first, second)] == [(second, 5), (first, 7)]
    assert [progress.enter(place) for place in (first, second)] == [(first, 0), (second, 0)]
    with pytest.raises(ValueError, match="left by 2 workers, it is entered again by 1"):
        progress.enter(Place())
    progress.go_on({0: (1, 5), 1: (0, 7)}, num_workers=2)
    progress.epoch = 1
    assert progress.enter(first) == (first, 0)
