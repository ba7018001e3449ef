import csv
import importlib
import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.query_metrics import main
from tests.compressed import compress
from tests.datasets import Sample, pixels, write_dataset
from tests.jobs import job

X = pixels(16, 16)


@pytest.fixture(scope="module")
def run(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    samples = [Sample("ü, b.png", X, psnr_db=31), Sample("a.png", X, psnr_db=30), Sample("c", X, status="empty")]
    write_dataset(folder, tiny_bundle, [samples])
    return str(folder)


KEYS = "SELECT key, psnr_db FROM images WHERE status = 'ok' ORDER BY psnr_db"


def test_table(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", run, "--worst", "1"]) == 0
    assert "│ a.png " in capsys.readouterr().out
    assert main(["--input", run]) == 0
    assert "│ empty" in capsys.readouterr().out


def test_a_table_that_is_not_on_a_terminal_is_whole(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", run, "SELECT range, repeat('x', 300) FROM range(200)"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("x" * 300 in line for line in lines) == 200


def test_csv(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", run, KEYS, "--format", "csv"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [["key", "psnr_db"], ["a.png", "30.0"], ["ü, b.png", "31.0"]]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_runs_nothing_in_a_spreadsheet(run: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    query = f"SELECT e'{start}1+cmd' AS \"=name\", -1.5 AS number, NULL AS nothing"
    assert main(["--input", run, query, "--format", "csv"]) == 0
    head, row = csv.reader(io.StringIO(capsys.readouterr().out, newline=""))
    assert (head, row) == (["'=name", "number", "nothing"], [f"'{start}1+cmd", "-1.5", ""])


@pytest.mark.parametrize("where", ["true", "false"])
def test_json(run: str, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", run, f"SELECT * FROM ({KEYS}) WHERE {where}", "--format", "json"]) == 0
    expected = [{"key": "a.png", "psnr_db": 30.0}, {"key": "ü, b.png", "psnr_db": 31.0}]
    assert json.loads(capsys.readouterr().out) == (expected if where == "true" else [])


def test_parquet_in_a_file(run: str, tmp_path: Path) -> None:
    assert main(["--input", run, KEYS, "--format", "parquet", "--output", str(tmp_path / "x.parquet")]) == 0
    assert pq.read_table(tmp_path / "x.parquet").to_pydict() == {"key": ["a.png", "ü, b.png"], "psnr_db": [30.0, 31.0]}


def test_a_file_that_is_there_is_replaced_when_asked(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.csv"
    output.write_text("somebody's")
    query = ["--input", run, KEYS, "--format", "csv", "--output", str(output)]
    assert main(query) == 2
    assert "x.csv is there already: use another --output, or --overwrite" in capsys.readouterr().err
    assert output.read_text() == "somebody's"
    assert main([*query, "--overwrite"]) == 0
    assert output.read_text().startswith("key,psnr_db\n")


def test_a_query_that_fails_leaves_no_file(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT CAST(key AS INT) FROM images"
    assert main(["--input", run, query, "--format", "csv", "--output", str(tmp_path / "x.csv")]) == 2
    assert "convert" in capsys.readouterr().err.lower()
    assert list(tmp_path.iterdir()) == []


def test_answers_about_a_part_say_so(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(pixels(20, 30, seed=number)).save(tmp_path / "in" / f"{number}.png")
    compress(tmp_path / "in", tmp_path / "out", tiny_bundle, shard_size=2, num_shards=1)
    assert main(["--input", str(tmp_path / "out"), "SELECT count(*) FROM images", "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("\n2\n") and "not finished: 2 of 4 images are seen, 2 are left" in captured.err
    compress(tmp_path / "in", tmp_path / "out", tiny_bundle, shard_size=2)
    assert main(["--input", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == ""


def test_quality_by_label(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    carried = pa.struct([("label", pa.int64())])
    samples = [Sample(f"{n}.png", X, psnr_db=30.0 + n, carried={"label": n // 2}) for n in range(3)]
    write_dataset(tmp_path, tiny_bundle, [samples], carried=carried)
    assert main(["--input", str(tmp_path), "--by", "label", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["label"], row["images"], row["psnr_db"]) for row in rows] == [("0", "2", "30.5"), ("1", "1", "32.0")]
    assert main(["--input", str(tmp_path), "--by", "colour"]) == 2
    assert capsys.readouterr().err.rstrip().endswith(", label")


def test_wrong_usage(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", run, "--by", "colour"]) == 2
    told = capsys.readouterr().err
    assert "--by is colour, expected one of key, source_uri" in told
    assert (
        "No column is carried beside these images. The compress job carries the other columns of Parquet input" in told
    )
    assert main(["--input", run, "SELECT * FROM carried"]) == 2
    assert "No column is carried beside these images" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_info:
        main(["--input", run, KEYS, "--failures"])
    assert exit_info.value.code == 2
    assert "SQL and --failures are given" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error(run: str) -> None:
    """As in `query_metrics ... | head`."""
    query = shlex.join(job("query_metrics", "--input", run, "SELECT * FROM range(1000000)", "--format", "csv"))
    command = f"{query} | head -n 2; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "range\n0\n", "")


def documented_lines() -> list[str]:
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    return re.findall(r"^(?:duckdb|pandas|pyarrow|spark)\..*compressed/metrics.*$", page.read_text(), re.MULTILINE)


@pytest.mark.parametrize("line", documented_lines(), ids=lambda line: line.split(".")[0])
def test_documented_lines(line: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compressed").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    name = line.split(".")[0]
    if name == "spark":
        pytest.skip("needs Java and `pip install pyspark`; it was run by hand")
    tool = pytest.importorskip(name, reason=f"needs `pip install {name}`")
    importlib.import_module("pyarrow.dataset")
    assert len(eval(line, {name: tool})) > 0


def test_each_tool_has_a_documented_line() -> None:
    assert [line.split(".")[0] for line in documented_lines()] == ["duckdb", "pandas", "pyarrow", "spark"]
