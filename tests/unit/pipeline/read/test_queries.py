from pathlib import Path
from typing import Any

import pytest

from pipeline.ledger.output import Output
from pipeline.read import queries as questions
from pipeline.read.queries import MetricsDatabase, QueryError
from tests.datasets import Sample, pixels, write_dataset

X = pixels(16, 16)


@pytest.fixture(scope="module")
def runs(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Output, Output]:
    """A run, and one before it: one image got worse, one broke, one is new."""
    now = [
        [Sample("a.jpg", X, psnr_db=25, source_format="JPEG"), Sample("b.png", X, psnr_db=None, status="truncated")],
        [Sample("it's c.png", X, psnr_db=32), Sample("d.png", X, psnr_db=None)],
    ]
    before = [[Sample("a.jpg", X, psnr_db=27), Sample("b.png", X, psnr_db=28)], [Sample("it's c.png", X, psnr_db=31)]]
    folder = tmp_path_factory.mktemp("runs")
    outputs = write_dataset(folder / "now", tiny_bundle, now), write_dataset(folder / "before", tiny_bundle, before)
    # Nobody committed this one: it does not count.
    outputs[0].folder.write(f"metrics/shard-000002.{'0' * 32}.parquet", b"half a file")
    return outputs


@pytest.fixture
def database(runs: tuple[Output, Output]) -> MetricsDatabase:
    return MetricsDatabase(str(runs[0]), against=str(runs[1]))


def rows(database: MetricsDatabase, sql: str) -> list[tuple[Any, ...]]:
    return list(database.query(sql).fetchall())


def test_views_are_of_committed_rows(database: MetricsDatabase) -> None:
    assert rows(database, "SELECT key FROM images ORDER BY key") == [
        ("a.jpg",),
        ("b.png",),
        ("d.png",),
        ("it's c.png",),
    ]
    assert rows(database, "SELECT key, status FROM failures") == [("b.png", "truncated")]
    assert rows(database, "SELECT shard, images, quarantined FROM shards ORDER BY shard") == [(0, 2, 1), (1, 2, 0)]
    (row,) = rows(database, "SELECT count(DISTINCT worker), min(wall_seconds) >= 0, min(began) <= now() FROM shards")
    assert row == (1, True, True)
    assert rows(database, "SELECT count(*) FROM other") == [(3,)]


def test_ready_questions(database: MetricsDatabase) -> None:
    assert [(row[0], row[1], row[4]) for row in rows(database, questions.summary_query())] == [
        ("ok", 3, 28.5),
        ("truncated", 1, None),
    ]
    assert [(row[0], row[1], *row[6:8]) for row in rows(database, questions.by_query("source_format"))] == [
        ("PNG", 3, 0, 1),
        ("JPEG", 1, 0, 0),
    ]
    assert [row[0] for row in rows(database, questions.worst_query(5, "psnr_db"))] == ["a.jpg", "it's c.png"]
    assert rows(database, questions.failures_query()) == [("truncated", None, 1, "b.png", "")]


def test_worst_goes_by_the_value_and_not_by_what_is_shown_of_it(tiny_bundle: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, tiny_bundle, [[Sample("a", X, psnr_db=30.001), Sample("b", X, psnr_db=30.0)]])
    assert [row[0] for row in rows(MetricsDatabase(str(tmp_path)), questions.worst_query(1, "psnr_db"))] == ["b"]


def test_changes_between_runs(database: MetricsDatabase) -> None:
    assert rows(database, "SELECT key, psnr_db_change FROM changes ORDER BY key") == [
        ("a.jpg", -2.0),
        ("b.png", None),
        ("d.png", None),
        ("it's c.png", 1.0),
    ]
    assert rows(database, questions.changed_failures_query()) == [("b.png", "truncated", "ok"), ("d.png", "ok", None)]
    assert rows(database, questions.worst_changes_query(1, "psnr_db"))[0][0] == "a.jpg"
    assert [row[:3] for row in rows(database, questions.changes_query())] == [
        ("ok", "ok", 2),
        ("ok", None, 1),
        ("truncated", "ok", 1),
    ]


def test_one_tiny_image_rules_neither_rate_nor_change(tiny_bundle: Path, tmp_path: Path) -> None:
    """The change is that of the bytes; the other run has a larger picture under the same name."""
    tiny, small, large = pixels(1, 1), pixels(32, 32), pixels(96, 96)
    write_dataset(tmp_path / "now", tiny_bundle, [[Sample("tiny", tiny), Sample("x", large)]])
    write_dataset(tmp_path / "before", tiny_bundle, [[Sample("tiny", tiny), Sample("x", small)]])
    database = MetricsDatabase(str(tmp_path / "now"), against=str(tmp_path / "before"))
    now, before = (
        [row[0] for row in rows(database, f"SELECT num_bytes FROM {v} ORDER BY key")] for v in database.views[::3]
    )
    rate, other_rate = round(8 * sum(now) / (96 * 96 + 1), 3), round(8 * sum(before) / (32 * 32 + 1), 3)
    assert rate < 8 * now[0] / 10, "the mean of the two would be more"
    for query in (questions.summary_query(), questions.by_query("status")):
        assert rows(database, query)[0][2] == rate
    assert rows(database, "SELECT round(bpp, 3) FROM shards") == [(rate,)]
    (change,) = rows(database, questions.changes_query())
    assert change[3:8] == (rate, other_rate, sum(now), sum(before), round(100 * (sum(now) / sum(before) - 1), 2))


def test_columns_are_quoted(database: MetricsDatabase) -> None:
    with pytest.raises(QueryError, match="images: key, source_uri"):
        database.query(questions.by_query('"; DROP VIEW failures; --'))
    assert rows(database, "SELECT count(*) FROM failures") == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nothing FROM images",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY images TO '{folder}/stolen.csv'",
        "ATTACH '{folder}/new.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "",
    ],
)
def test_what_is_no_question_is_refused_with_what_there_is(database: MetricsDatabase, sql: str, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"(?s)Views and their columns:.*failures: key"):
        database.query(sql.format(folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_middle_of_the_rows(database: MetricsDatabase) -> None:
    with pytest.raises(QueryError, match="convert"):
        database.batches(database.query("SELECT CAST(key AS INT) FROM images")).read_all()


def test_what_is_no_run_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="is not a compressed dataset"):
        MetricsDatabase(str(tmp_path))
    write_dataset(tmp_path, tiny_bundle, [])
    with pytest.raises(ValueError, match="no committed shard yet"):
        MetricsDatabase(str(tmp_path))
