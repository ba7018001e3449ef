from pathlib import Path

import numpy as np
import pytest

from pipeline.sources.opening import open_source
from pipeline.sources.reference import Source
from pipeline.sources.unique_keys import check_unique_keys, hashes_of, repeated_hashes


def test_what_occurs_twice() -> None:
    chunks = [hashes_of(["a", "b", "c"]), hashes_of([]), hashes_of(["b", "d", "a", "b"])]
    expected = np.sort(hashes_of(["a", "b"]))
    assert np.array_equal(repeated_hashes(chunks), expected)
    assert chunks == []
    assert hashes_of(["a"]).itemsize == 8


def listed(path: Path, *lines: str) -> Source:
    path.write_text("\n".join(lines))
    return open_source(str(path))


def test_both_of_a_key_are_named(tmp_path: Path) -> None:
    source = listed(tmp_path / "list.txt", "s3://bucket/a.jpg", "c.jpg", "gs://bucket/a.jpg")
    hashes = [hashes_of([reference.key for reference in source.references()])]
    with pytest.raises(ValueError, match=r"^s3://bucket/a.jpg and gs://bucket/a.jpg have the same key bucket/a.jpg:"):
        check_unique_keys(source, hashes)


def test_a_second_listing_only_where_hashes_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = listed(tmp_path / "list.txt", "a.jpg", "b.jpg")
    num_listings = 0
    original = type(source).references

    def references(self: Source) -> object:
        nonlocal num_listings
        num_listings += 1
        return original(self)

    monkeypatch.setattr(type(source), "references", references)
    check_unique_keys(source, [hashes_of(["a.jpg", "b.jpg"])])
    assert num_listings == 0
    check_unique_keys(source, [hashes_of(["a.jpg", "b.jpg", "a.jpg"])])
    assert num_listings == 1
