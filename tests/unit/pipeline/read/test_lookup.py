from pathlib import Path

import pytest

from pipeline.read.dataset import CompressedDataset
from pipeline.read.lookup import Lookup
from tests.datasets import Sample, pixels, write_dataset


def test_images_are_found_by_number_and_key(tiny_bundle: Path, tmp_path: Path) -> None:
    x = pixels(16, 16)
    statuses = [["ok", "empty", "ok"], ["empty"], ["ok"]]
    names = iter("abcde")
    shards = [[Sample(next(names), x, status=status) for status in shard] for shard in statuses]
    dataset = CompressedDataset(str(write_dataset(tmp_path, tiny_bundle, shards)))
    files = dataset.files(dataset.select())
    lookup = Lookup(dataset, files)
    first, last = files[0].file, files[-1].file
    assert [lookup.find(number) for number in range(3)] == [(first, 0), (first, 1), (last, 0)]
    assert [lookup.find(key) for key in "ace"] == [(first, 0), (first, 1), (last, 0)]
    assert lookup.find(-1) == (last, 0)
    for number in (3, -4):
        with pytest.raises(IndexError):
            lookup.find(number)
    with pytest.raises(KeyError):
        lookup.find("b")
    selected = Lookup(dataset, dataset.files(dataset.select(keys=["c"])))
    assert selected.find(0) == selected.find("c") == (first, 1)
    with pytest.raises(KeyError):
        selected.find("a")
