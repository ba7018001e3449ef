"""Files of a compressed dataset that are missing, truncated or edited: every job names them in a line."""

import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import compress_dataset, decompress_dataset, query_metrics, report
from pipeline.console.exits import ExitCode, exit_code
from pipeline.ledger.damage import check_columns
from pipeline.ledger.output import Output
from pipeline.ledger.schema import BITSTREAMS, ORIGINAL, SCHEMA_VERSION
from pipeline.read.torch_dataset import CompressedImages
from tests.compressed import compress
from tests.datasets import commit_instead, pixels
from tests.inline import run_inline

Job = Callable[[Path, Path], int]

# The dataset is partly committed, which readers warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*is not finished")


def run_compress(root: Path, bundle: Path) -> int:
    given = ["--input", str(root / "in"), "--output", str(root / "ds"), "--bundle", str(bundle)]
    return compress_dataset.main([*given, "--coder", "adaptive", "--max-pixels", str(2**22)])


def run_decompress(root: Path, bundle: Path) -> int:
    given = ["--input", str(root / "ds"), "--output", str(root / "restored"), "--bundle", str(bundle)]
    return decompress_dataset.main(given)


def run_select(root: Path, bundle: Path) -> int:
    given = ["--input", str(root / "ds"), "--output", str(root / "restored"), "--bundle", str(bundle)]
    return decompress_dataset.main([*given, "--where", "width > 0"])


def run_query(root: Path, bundle: Path) -> int:
    return query_metrics.main(["--input", str(root / "ds"), "SELECT max(COLUMNS(*)) FROM images"])


def run_report(root: Path, bundle: Path) -> int:
    given = ["--input", str(root / "ds"), "--output", str(root / "report.html"), "--bundle", str(bundle)]
    return report.main([*given, "--compare", "0", "--overwrite"])


def run_training(root: Path, bundle: Path) -> int:
    def job() -> ExitCode:
        for _ in CompressedImages(str(root / "ds"), bundle=str(bundle)):
            pass
        return ExitCode.DONE

    return exit_code(job)


def damaged(data: bytes) -> Iterator[bytes | None]:
    yield None
    yield b""
    yield data[: len(data) // 2]
    yield b"[" * 100_000
    yield b"{}"
    yield b'{"a": 1}'
    yield b"\xff\xfe text"
    if data.startswith(b"PAR1"):
        yield data[:-20] + bytes([data[-20] ^ 0x55]) + data[-19:]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """Return a folder of images, compressed in two of three shards."""
    root = tmp_path_factory.mktemp("damage")
    (root / "in").mkdir()
    for seed in range(6):
        Image.fromarray(pixels(20, 24, seed=seed)).save(root / "in" / f"{seed}.png")
    compress(root / "in", root / "ds", tiny_bundle, shard_size=2, num_shards=2)
    return root


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch, compress_dataset, decompress_dataset)


def file_of(root: Path, kind: str) -> Path:
    if kind == "manifest":
        return root / "ds/manifest.json"
    if kind == "plan":
        (path,) = (root / "ds/plan").iterdir()
        return path
    if kind == "marker":
        return root / "ds/commits/shard-000001.json"
    return root / "ds" / Output(str(root / "ds")).markers()[1].files[kind].name


@pytest.fixture
def check(
    dataset: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[Path, bytes | None, Job], None]]:
    """Return what damages a file, runs a job, looks at what it says, and mends the file."""

    def check(path: Path, content: bytes | None, job: Job) -> None:
        good = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content)
        try:
            code = job(dataset, tiny_bundle)
        finally:
            path.write_bytes(good)
            shutil.rmtree(dataset / "restored", ignore_errors=True)
        told = capsys.readouterr().err.splitlines()
        (error,) = [line for line in told if line.startswith("error: ")]
        assert code == ExitCode.FAILED, error
        assert str(path if content is not None or path.parent.name != "plan" else path.parent) in error
        assert re.search(r"(is damaged or was edited|is missing).*: restore it from a copy, or ", error)
        if re.search(r"shard-\d+", path.name):
            assert f"or mend it with bls-verify --input {dataset / 'ds'} --repair and the command" in error
        assert "goes on" not in told[-1]

    yield check
    assert run_query(dataset, tiny_bundle) == ExitCode.DONE


@pytest.mark.parametrize(
    ("kind", "job"),
    [
        *(("manifest", job) for job in (run_compress, run_decompress, run_query, run_report)),
        *(("marker", job) for job in (run_compress, run_decompress, run_query, run_report)),
        *(("plan", job) for job in (run_compress, run_report)),
        *(("metrics", job) for job in (run_select, run_query, run_report)),
        ("bitstreams", run_decompress),
    ],
)
def test_a_damaged_file_is_named(
    dataset: Path, check: Callable[[Path, bytes | None, Job], None], kind: str, job: Job
) -> None:
    path = file_of(dataset, kind)
    for content in damaged(path.read_bytes()):
        if content is None and kind in ("manifest", "marker"):
            continue  # without them there is no dataset, or no such shard
        check(path, content, job)


@pytest.mark.parametrize(
    ("kind", "job"),
    [
        ("bitstreams", run_decompress),
        ("bitstreams", run_training),
        ("metrics", run_select),
        ("metrics", run_report),
    ],
)
def test_the_file_of_another_shard_is_noticed(
    dataset: Path, check: Callable[[Path, bytes | None, Job], None], kind: str, job: Job
) -> None:
    marker = Output(str(dataset / "ds")).markers()[0]
    check(file_of(dataset, kind), (dataset / "ds" / marker.files[kind].name).read_bytes(), job)


@pytest.mark.parametrize("job", [run_query, run_select])
def test_metrics_that_were_written_again_are_noticed(
    dataset: Path, check: Callable[[Path, bytes | None, Job], None], tmp_path: Path, job: Job
) -> None:
    path = file_of(dataset, "metrics")
    pq.write_table(pq.read_table(path), tmp_path / "again.parquet", compression="none")
    check(path, (tmp_path / "again.parquet").read_bytes(), job)


def test_a_flipped_byte_of_metrics_is_noticed(dataset: Path, check: Callable[[Path, bytes | None, Job], None]) -> None:
    path = file_of(dataset, "metrics")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    check(path, bytes(data), run_select)


def edited(path: Path, **values: Any) -> bytes:
    return json.dumps({**json.loads(path.read_bytes()), **values}).encode()


@pytest.mark.parametrize("job", [run_compress, run_decompress, run_query, run_report])
def test_an_edited_manifest_or_marker_is_named(
    dataset: Path, check: Callable[[Path, bytes | None, Job], None], job: Job
) -> None:
    manifest, marker = file_of(dataset, "manifest"), file_of(dataset, "marker")
    for name, value in [("settings", "none"), ("job", 1), ("plan", 7)]:
        check(manifest, edited(manifest, **{name: value}), job)
    plan = json.loads(manifest.read_bytes())["plan"]
    for name, value in [("num_images", "six"), ("skipped", None), ("id", 7)]:
        check(manifest, edited(manifest, plan={**plan, name: value}), job)
    summary = json.loads(marker.read_bytes())["summary"]
    values: list[tuple[str, Any]] = [
        ("shard", 7),
        ("files", ["metrics"]),
        ("files", {"metrics": 3}),
        ("files", {"metrics": {"name": "metrics/x.parquet", "num_bytes": "3", "sha256": ""}}),
        ("stints", [{"worker": "w", "began": "now", "ended": 3}]),
        ("summary", {**summary, "num_images": "two"}),
        ("summary", {**summary, "num_images": 1.5}),
        ("summary", {**summary, "quarantined": [1]}),
        ("summary", {**summary, "bpp": {"sum": "1", "count": 1}}),
    ]
    for name, value in values:
        check(marker, edited(marker, **{name: value}), job)


def test_edited_settings_and_files_of_a_marker_are_named(
    dataset: Path, check: Callable[[Path, bytes | None, Job], None]
) -> None:
    manifest, marker = file_of(dataset, "manifest"), file_of(dataset, "marker")
    for settings in ({}, {"schema_version": SCHEMA_VERSION}, {"schema_version": SCHEMA_VERSION, "quality": "4"}):
        check(manifest, edited(manifest, settings=settings), run_query)
    check(marker, edited(marker, files={}), run_query)


def test_text_that_is_not_utf8_is_named(dataset: Path, check: Callable[[Path, bytes | None, Job], None]) -> None:
    for kind, key, job in [("plan", b"4.png", run_compress), ("metrics", b"2.png", run_select)]:
        path = file_of(dataset, kind)
        table = pq.read_table(path)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="none", use_dictionary=False)
        with committing(dataset, kind) as commit:
            check(path, commit(sink.getvalue().replace(key, b"\xff" + key[1:])), job)


def test_files_with_other_columns_are_named(
    dataset: Path, check: Callable[[Path, bytes | None, Job], None], tmp_path: Path
) -> None:
    for kind, column, job in [
        ("metrics", "shard", run_select),
        ("bitstreams", "bitstream", run_decompress),
        ("bitstreams", "stem", run_decompress),
        ("plan", "key", run_compress),
    ]:
        path = file_of(dataset, kind)
        table = pq.read_table(path)
        index = table.column_names.index(column)
        for other in (
            table.drop_columns([column]),
            table.set_column(index, column, pa.array([[1]] * len(table))),
            table.set_column(index, column, pa.nulls(len(table), table.schema.field(column).type)),
            table.slice(0, len(table) - 1) if kind == "bitstreams" else table.drop_columns([column]),
        ):
            pq.write_table(other, tmp_path / "other.parquet")
            with committing(dataset, kind) as commit:
                check(path, commit((tmp_path / "other.parquet").read_bytes()), job)


@contextmanager
def committing(root: Path, kind: str) -> Iterator[Callable[[bytes], bytes]]:
    """Return what puts a content into the marker, as if it had been committed, and take it back at the end."""
    output = Output(str(root / "ds"))
    marker = output.markers()[1]
    names = (f"commits/{marker.name}", *(file.name for file in marker.files.values()))
    kept = {name: output.folder.read(name) for name in names}

    def commit(content: bytes) -> bytes:
        if kind in marker.files:
            commit_instead(output, marker, kind, content)
            output.folder.write(marker.files[kind].name, kept[marker.files[kind].name])
        return content

    try:
        yield commit
    finally:
        for name, content in kept.items():
            output.folder.write(name, content)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ((None, None, None, None), "original"),
        ((b"coded", b"file", ".png", 1), "original"),
        ((None, b"file", None, 1), "original_extension"),
        ((b"coded", None, None, 1), "original_crc32"),
    ],
)
def test_a_row_has_a_bitstream_or_a_whole_original(row: tuple[bytes | str | int | None, ...], name: str) -> None:
    names = ["bitstream", *ORIGINAL]
    schema = pa.schema([BITSTREAMS.field(each) for each in names])
    rows = [dict(zip(names, each, strict=True)) for each in [(b"coded", None, None, None), (None, b"", ".png", 0)]]
    check_columns(pa.Table.from_pylist(rows, schema=schema), BITSTREAMS, names)
    damaged = pa.Table.from_pylist([*rows, dict(zip(names, row, strict=True))], schema=schema)
    with pytest.raises(ValueError, match=f"columns bitstream and {name} have rows with both or neither"):
        check_columns(damaged, BITSTREAMS, names)
