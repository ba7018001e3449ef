"""What once stopped a dataset, together in one: the job ends, and every input has a row that says what became of it."""

import io
import os
import socket
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import compress_dataset, decompress_dataset, query_metrics, recode_dataset, verify_dataset
from pipeline.console.exits import ExitCode
from pipeline.ledger.output import Output
from tests.hostile import FILES, write_folder, write_table
from tests.inline import run_inline


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    run_inline(monkeypatch, compress_dataset, decompress_dataset, recode_dataset, verify_dataset)


@pytest.fixture
def compress(tmp_path: Path, tiny_bundle: Path) -> Any:
    def compress(source: str, *arguments: str) -> int:
        given = ["--input", source, "--output", str(tmp_path / "out"), "--bundle", str(tiny_bundle)]
        return compress_dataset.main([*given, "--shard-size", "4", *arguments])

    return compress


def rows(output: Path) -> list[dict[str, Any]]:
    markers = Output(str(output)).markers()
    tables = [pq.read_table(output / marker.files["metrics"].name) for marker in markers]
    return pa.concat_tables(tables).to_pylist()  # type: ignore[no-any-return]


def check_rows(output: Path, expected: dict[str, str]) -> None:
    found = rows(output)
    assert {row["key"]: row["status"] for row in found} == expected and len(found) == len(expected)
    assert all(row["verified"] for row in found if row["status"] == "ok")
    assert not any("hunter2" in str(value) for row in found for value in row.values())


def test_a_folder_of_all_of_them(
    compress: Any, tmp_path: Path, tiny_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    expected = write_folder(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("in/socket.png")

    assert compress(str(folder)) == ExitCode.DONE_WITH_QUARANTINED
    told = capfd.readouterr()
    assert "skipped 5 files or samples that are not images: links in a circle 2" in told.err
    check_rows(tmp_path / "out", expected)
    assert compress(str(folder)) == ExitCode.DONE_WITH_QUARANTINED  # the same when it is asked for again
    check_rows(tmp_path / "out", expected)

    given = ["--input", str(tmp_path / "out"), "--bundle", str(tiny_bundle)]
    restored = tmp_path / "restored"
    assert decompress_dataset.main([*given, "--output", str(restored)]) == ExitCode.DONE_WITH_QUARANTINED
    good = [key for key, status in expected.items() if status == "ok"]
    assert {row["key"]: row["status"] for row in rows(restored)} == dict.fromkeys(good, "ok") | {
        "profile.jpg": "unsupported"
    }
    for path in (restored / "images").iterdir():
        with Image.open(path) as image:
            image.load()

    assert verify_dataset.main([*given, "--decode"]) == ExitCode.DONE
    copy = ["--output", str(tmp_path / "copy"), "--coder", "static"]
    assert recode_dataset.main([*given, *copy]) == ExitCode.DONE_WITH_QUARANTINED
    check_rows(tmp_path / "copy", expected)
    capfd.readouterr()

    assert query_metrics.main(["--input", str(tmp_path / "out"), "SELECT key FROM images", "--format", "csv"]) == 0
    assert not any(line.startswith(("=", '"=')) for line in capfd.readouterr().out.splitlines())


def test_a_tar_of_them(compress: Any, tmp_path: Path) -> None:
    with tarfile.open("x.tar", "w") as tar:
        for number, (name, (data, _)) in enumerate(FILES.items()):
            member = tarfile.TarInfo(f"{number}-{os.fsdecode(name).replace('.', '', name.count(b'.') - 1)}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert compress(str(tmp_path / "x.tar")) == ExitCode.DONE_WITH_QUARANTINED
    assert compress(str(tmp_path / "x.tar"), "--retry-quarantined") == ExitCode.DONE_WITH_QUARANTINED
    statuses = Counter(row["status"] for row in rows(tmp_path / "out"))
    assert statuses == Counter(status for _, status in FILES.values())


def test_a_table_of_them_with_columns_without_any_value(compress: Any, tmp_path: Path) -> None:
    expected = write_table(Path("x.parquet"))
    assert compress(str(tmp_path / "x.parquet")) == ExitCode.DONE_WITH_QUARANTINED
    assert compress(str(tmp_path / "x.parquet"), "--retry-quarantined") == ExitCode.DONE_WITH_QUARANTINED
    check_rows(tmp_path / "out", expected)
