from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.known import MAX_NAMED, KnownInputs
from pipeline.sources.reference import ImageReference


def reference(key: str, *, start: int | None = None, stem: str | None = None) -> ImageReference:
    return ImageReference(key, f"s3://bucket/{key}", stem or key, None if start is None else "a.tar", start, start)


def table(references: Sequence[ImageReference]) -> pa.Table:
    names = ("key", "stem", "file", "start", "num_bytes")
    types = (pa.string(), pa.string(), pa.string(), pa.int64(), pa.int64())
    return pa.table(
        {
            name: pa.array([getattr(each, name) for each in references], kind)
            for name, kind in zip(names, types, strict=True)
        }
    )


KEYS = st.sets(st.text("ab/.", max_size=5), max_size=30)


@given(KEYS, KEYS, st.integers(1, 5))
def test_what_is_new_and_what_vanished_is_found(known: set[str], listed: set[str], size: int) -> None:
    references = list(map(reference, sorted(known)))
    tables = [table(references[start : start + size]) for start in range(0, len(references), size)]
    inputs = KnownInputs(tables)
    listing = list(map(reference, sorted(listed)))
    new = [each.key for start in range(0, len(listing), size) for each in inputs.new(listing[start : start + size])]
    assert new == sorted(listed - known)
    assert inputs.num_vanished == len(known - listed)
    assert inputs.vanished(tables) == sorted(known - listed)[:MAX_NAMED]
    assert inputs.num_moved == 0


def test_another_place_in_a_tar_is_noted() -> None:
    known = [reference(f"{number}", start=512 * number) for number in range(9)]
    inputs = KnownInputs([table(known)])
    moved = [reference(each.key, start=1024 if int(each.key) % 2 else each.start) for each in known]
    assert list(inputs.new(moved)) == []
    assert (inputs.num_moved, inputs.moved) == (4, ["1", "3", "5"])


def test_a_new_image_does_not_take_a_stem_that_is_taken() -> None:
    inputs = KnownInputs([table([reference("a.jpg", stem="a")])])
    assert [each.stem for each in inputs.new([reference("a.png", stem="a"), reference("b.png", stem="b")])] == [
        "a.png",
        "b",
    ]


def test_a_key_with_the_hash_of_another_is_named_and_not_lost_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.ledger.known.hashes_of", lambda texts: np.zeros(len(texts), np.int64))
    inputs = KnownInputs([table([reference("a", start=0)])])
    assert list(inputs.new([reference("b", start=512)])) == []
    assert (inputs.num_moved, inputs.moved) == (1, ["b"])
