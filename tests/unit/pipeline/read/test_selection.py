import sys
from pathlib import Path

import pytest

from pipeline.ledger.output import Output
from pipeline.read.selection import read_keys, select
from tests.datasets import Sample, pixels, write_dataset

X = pixels(16, 16)


@pytest.fixture(scope="module")
def output(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Output:
    shards = [
        [
            Sample("a.jpg", X, psnr_db=25, source_format="JPEG"),
            Sample("broken.png", X, psnr_db=None, status="truncated"),
            Sample("b.png", X, psnr_db=26),
            Sample("ü c.png", X, psnr_db=None),
        ],
        [Sample("broken too.png", X, psnr_db=None, status="empty")],
        [Sample("d.jpg", X, psnr_db=35, source_format="JPEG"), Sample("e.jpg", X, psnr_db=29, source_format="JPEG")],
    ]
    output = write_dataset(tmp_path_factory.mktemp("compressed"), tiny_bundle, shards)
    # Nobody committed this one: it does not count.
    output.folder.write(f"metrics/shard-000003.{'0' * 32}.parquet", b"half a file")
    return output


def chosen(output: Output, *, keys: list[str] | None = None, where: str | None = None) -> dict[int, list[int]]:
    selection = select(output, output.markers(), keys=keys, where=where)
    assert selection.num_images == sum(len(rows) for rows in selection.rows.values())
    return {shard: list(rows) for shard, rows in selection.rows.items()}


def test_all_images_that_have_a_bitstream(output: Output) -> None:
    assert chosen(output) == {0: [0, 1, 2], 2: [0, 1]}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("psnr_db < 30", {0: [0, 1], 2: [1]}),
        ("psnr_db < 30 AND source_format = 'JPEG'", {0: [0], 2: [1]}),
        ("psnr_db IS NULL", {0: [2]}),  # the broken ones have none either, but nothing to restore
        ("status = 'ok' -- all of them", {0: [0, 1, 2], 2: [0, 1]}),
    ],
)
def test_a_condition_on_the_metrics(output: Output, where: str, expected: dict[int, list[int]]) -> None:
    assert chosen(output, where=where) == expected


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("random() < 0.5", "random"),
        ("psnr_db < 30 AND RANDOM() < 0.5", "random"),
        ("key = uuid()::VARCHAR", "uuid"),
        ("3 IN (SELECT x FROM range(6) t(x) USING SAMPLE 50 PERCENT (bernoulli))", "a subquery"),
        ("width < (SELECT count(*) FROM duckdb_memory())", "a subquery"),
        ("EXISTS (SELECT 1)", "a subquery"),
        ("key IN (SELECT x FROM read_csv('/etc/hostname'))", "a subquery"),
        ("now() > '2020-01-01'", "now"),
        ("current_timestamp IS NOT NULL", "current_timestamp"),
        ("CASE WHEN width > 3 THEN Current_Date IS NULL ELSE true END", "current_date"),
        ("today() > '2020-01-01'", "today"),
        ("bpp < getvariable('x')", "getvariable"),
        ("nextval('s') > 1", "nextval"),
    ],
)
def test_a_condition_is_of_the_row_alone(output: Output, where: str, named: str) -> None:
    with pytest.raises(ValueError, match=rf"has {named}, which may differ each time: expected a condition on the"):
        chosen(output, where=where)


@pytest.mark.parametrize("where", ["upper(key) LIKE 'A%'", "width + 1 > 2 AND -bpp < 1", "hash(key) % 2 >= 0"])
def test_functions_of_the_row_are_taken(output: Output, where: str) -> None:
    assert chosen(output, where=f"({where}) OR true") == {0: [0, 1, 2], 2: [0, 1]}


def test_keys_and_condition_together(output: Output) -> None:
    assert chosen(output, keys=["ü c.png", "d.jpg"]) == {0: [2], 2: [0]}
    assert chosen(output, keys=["ü c.png", "d.jpg"], where="psnr_db > 30") == {2: [0]}


def test_keys_of_quarantined_images_are_counted(output: Output) -> None:
    selection = select(output, output.markers(), keys=["broken.png", "b.png"])
    assert ({shard: list(rows) for shard, rows in selection.rows.items()}, selection.num_quarantined) == ({0: [1]}, 1)


def test_unknown_keys_are_named(output: Output) -> None:
    with pytest.raises(ValueError, match=r"1 of 2 keys are not in .*, for example 'x': expected keys as its"):
        chosen(output, keys=["a.jpg", "x"])
    with pytest.raises(ValueError, match=r"4 of 4 keys .* 'x0', 'x1', 'x2': expected"):
        chosen(output, keys=[f"x{i}" for i in range(4)])


@pytest.mark.parametrize(
    "where",
    [
        "psnr < 30",
        "psnr_db <",
        "",
        "psnr_db < 30) OR (1 = 1",
        "1 = 1; DROP TABLE metrics",
        "sum(psnr_db) < 3",
        "key IN (SELECT key FROM",
    ],
)
def test_what_is_no_condition_is_refused_and_reads_no_file(output: Output, where: str) -> None:
    with pytest.raises(ValueError, match=r"is not SQL over the metrics .* over key, .*, psnr_db, "):
        chosen(output, where=where)


def test_a_condition_that_nothing_meets_is_no_selection(output: Output) -> None:
    with pytest.raises(ValueError, match="no image meets 'psnr_db < 1'"):
        chosen(output, where="psnr_db < 1")


def test_without_duckdb_it_is_named(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ValueError, match=r"pip install 'bls-codec\[query\]'"):
        chosen(output, where="psnr_db < 30")
    assert chosen(output, keys=["a.jpg"]) == {0: [0]}


def test_keys_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes("\ufeffa b/ü.png\r\n\nx\u2028y.jpg\n".encode())
    assert read_keys(str(tmp_path / "keys.txt")) == ["a b/ü.png", "x\u2028y.jpg"]
    with pytest.raises(ValueError, match="one key per line"):
        read_keys(str(tmp_path / "missing.txt"))
