"""What once stopped a dataset, together in one: the job ends, and every input has a row that says what became of it."""

import io
import os
import socket
import tarfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import compress_dataset, decompress_dataset, query_metrics
from pipeline.cluster.run import run_to_end
from pipeline.console.exits import ExitCode
from pipeline.ledger.output import Output
from tests.datasets import pixels
from tests.hostile import eps, jpeg_that_claims, tiff_that_claims
from tests.inline import InlineCluster

SECRET = b"hunter2-is-the-password"


def image_file(image_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(20, 24)).save(file, image_format, **options)
    return file.getvalue()


FILES: dict[bytes, tuple[bytes, str]] = {
    b"good.png": (image_file(), "ok"),
    b"caf\xe9.png": (image_file(), "ok"),
    b"caf\\xe9.png": (image_file(), "ok"),
    b"=HYPERLINK(1).png": (image_file(), "ok"),
    b"profile.jpg": (image_file("JPEG", icc_profile=np.random.default_rng(0).bytes(2**20 + 1)), "ok"),
    b"huge.tif": (tiff_that_claims(3_000_000_000), "too_large"),
    b"claims.jpg": (jpeg_that_claims(8000, 8000), "truncated"),
    b"eps.jpg": (eps(), "not_an_image"),
    b"passwords.png": (SECRET, "not_an_image"),
    b"passwords.ppm": (b"P6 " + SECRET, "corrupt"),
    b"half.png": (image_file()[:200], "truncated"),
    b"empty.webp": (b"", "empty"),
}


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for job in (compress_dataset, decompress_dataset):
        monkeypatch.setattr(job, "Cluster", InlineCluster)
        monkeypatch.setattr(job, "run_to_end", partial(run_to_end, run=InlineCluster.run))


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
    folder.mkdir()
    for name, (data, _) in FILES.items():
        (folder / os.fsdecode(name)).write_bytes(data)
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "self.png").symlink_to("self.png")
    (folder / "up").symlink_to(folder)
    (folder / "null.png").symlink_to("/dev/null")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("in/socket.png")

    assert compress(str(folder)) == ExitCode.DONE_WITH_QUARANTINED
    told = capfd.readouterr()
    assert "skipped 5 files or samples that are not images: links in a circle 2" in told.err
    keys = {name: name.decode(errors="backslashreplace") for name in FILES}
    keys[b"caf\\xe9.png"] = "caf\\x5cxe9.png"
    expected = {keys[name]: status for name, (_, status) in FILES.items()} | {"gone.png": "unreadable"}
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
    images = [data for data, _ in FILES.values()]
    nothing = pa.nulls(len(images))
    nested = pa.array([{"none": [None]}] * len(images), pa.struct([("none", pa.list_(pa.null()))]))
    table = {"image": images, "nothing": nothing, "nested": nested}
    pq.write_table(pa.table({**table, "when": pa.array([2**62] * len(images), pa.timestamp("us"))}), "x.parquet")
    assert compress(str(tmp_path / "x.parquet")) == ExitCode.DONE_WITH_QUARANTINED
    assert compress(str(tmp_path / "x.parquet"), "--retry-quarantined") == ExitCode.DONE_WITH_QUARANTINED
    check_rows(tmp_path / "out", {f"x/{row}": status for row, (_, status) in enumerate(FILES.values())})
