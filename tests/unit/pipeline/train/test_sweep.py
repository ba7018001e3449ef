"""The order of a sweep and of images; what needs a cluster is tested with the job."""

from itertools import pairwise

from bls.ladder import QualityRange
from pipeline.sources.reference import ImageReference
from pipeline.train.images import IMAGES_PER_TASK, shuffled
from pipeline.train.sweep import neighbours


def test_models_start_from_their_neighbour_towards_the_middle() -> None:
    a, b, c, d = (QualityRange.parse(text) for text in ("1:2", "3:4.5", "5", "6:8"))
    assert neighbours([d, a, c, b], middle=4) == {b: None, c: b, d: c, a: b}
    assert neighbours([a, b, c, d], middle=7.5) == {d: None, c: d, b: c, a: b}
    assert neighbours([a], middle=4) == {a: None}


def test_images_are_shuffled_but_rows_of_parquet_files_in_runs() -> None:
    count = 3 * IMAGES_PER_TASK + 5
    files = [ImageReference(f"{index}.jpg", f"{index}.jpg", str(index)) for index in range(count)]
    rows = [ImageReference(f"x/{row}", f"x.parquet#row={row}", f"x/{row}", "x.parquet", row) for row in range(count)]
    for listed, jumps in ((files, range(count // 2, count)), (rows, range(1, 4))):
        order = [listed.index(reference) for reference in shuffled(listed, seed=1)]
        assert sorted(order) == list(range(count))
        assert sum(after != before + 1 for before, after in pairwise(order)) in jumps
        assert shuffled(listed, seed=1) == [listed[place] for place in order]
    assert shuffled([], seed=0) == []
