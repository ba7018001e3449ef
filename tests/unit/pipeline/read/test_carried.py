from pathlib import Path

import pytest

from pipeline.read import queries as questions
from pipeline.read.queries import MetricsDatabase, QueryError
from tests.datasets import MAP, STRUCT, Sample, pixels, write_dataset

X = pixels(16, 16)


def test_labels_are_columns_and_images_can_be_grouped_by_them(tiny_bundle: Path, tmp_path: Path) -> None:
    values = [(3, 30.0), (3, 32.0), (7, 40.0)]
    samples = [
        Sample(f"{n}.png", X, psnr_db=psnr_db, carried={"label": label, "caption": "x", "key": f"id-{n}", "mask": b"m"})
        for n, (label, psnr_db) in enumerate(values)
    ]
    bad = Sample("bad.png", X, psnr_db=None, status="empty")
    write_dataset(tmp_path, tiny_bundle, [samples[:2], [*samples[2:], bad]], carried=STRUCT)
    database = MetricsDatabase(str(tmp_path))
    # Images beside the image are not read; its own key stays what it is.
    assert database.columns("carried") == ["key", "label", "caption", "carried_key"]
    joined = "SELECT key, label, carried_key FROM images JOIN carried USING (key) WHERE psnr_db > 31 ORDER BY key"
    for _ in range(2):
        assert database.query(joined).fetchall() == [("1.png", 3, "id-1"), ("2.png", 7, "id-2")]
    by_label = database.query(questions.by_query("label", is_carried=True)).fetchall()
    assert [(row[0], row[1], row[4]) for row in by_label] == [(3, 2, 31.0), (7, 1, 40.0), (None, 1, None)]


def test_members_of_tars_are_a_map(tiny_bundle: Path, tmp_path: Path) -> None:
    samples = [Sample("a.png", X, carried=[("cls", b"7"), ("txt", b"words")]), Sample("b.png", X)]
    write_dataset(tmp_path, tiny_bundle, [samples], carried=MAP)
    database = MetricsDatabase(str(tmp_path))
    labels = "SELECT key, decode(carried['cls']) AS label FROM carried ORDER BY key"
    assert database.query(labels).fetchall() == [("a.png", "7"), ("b.png", None)]


def test_nothing_carried_is_no_view(tiny_bundle: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, tiny_bundle, [[Sample("a.png", X)]])
    database = MetricsDatabase(str(tmp_path))
    assert database.views == ["images", "shards", "failures"]
    with pytest.raises(QueryError):
        database.query("SELECT * FROM carried")
