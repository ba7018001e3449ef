import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.schema import BITSTREAMS, METRICS, PLAN, RESTORED, SCHEMA_VERSION, misfits, to_parquet

ROW = {
    "key": "a/ü.jpg",
    "source_uri": "/in/a/ü.jpg",
    "shard": 3,
    "status": "ok",
    "model_fingerprint": "00ff",
    "bpp": 0.5,
    "verified": True,
}


@pytest.mark.parametrize("schema", [PLAN, BITSTREAMS, METRICS, RESTORED])
def test_columns_are_described_and_plain(schema: pa.Schema) -> None:
    plain = {pa.string(), pa.binary(), pa.int32(), pa.int64(), pa.float64(), pa.bool_()}
    assert {field.type for field in schema} <= plain
    assert all(field.metadata[b"description"] for field in schema)


@pytest.mark.parametrize("schema", [METRICS, RESTORED])
def test_seconds_and_bytes_carry_their_unit(schema: pa.Schema) -> None:
    units = {field.name: field.metadata.get(b"unit") for field in schema}
    assert {units[name] for name in units if name.endswith("_seconds")} == {b"second"}
    assert {units[name] for name in units if name.endswith("num_bytes")} == {b"byte"}


def test_what_does_not_exist_is_null() -> None:
    table = pq.read_table(pa.BufferReader(to_parquet([ROW], METRICS, metadata={})))
    assert table.column("ms_ssim").to_pylist() == [None]
    assert table.column("bpp").to_pylist() == [0.5]


def test_metadata_carries_version_and_config() -> None:
    data = to_parquet([ROW], METRICS, metadata={"coder": "static", "quality": 4})
    metadata = pq.read_schema(pa.BufferReader(data)).metadata
    assert metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert metadata[b"coder"] == b"static"
    assert json.loads(metadata[b"quality"]) == 4


def test_units_survive_the_file() -> None:
    schema = pq.read_schema(pa.BufferReader(to_parquet([ROW], METRICS, metadata={})))
    assert schema.field("bpp").metadata[b"unit"] == b"bit/pixel"


def test_no_rows_make_a_file_with_all_columns() -> None:
    table = pq.read_table(pa.BufferReader(to_parquet([], BITSTREAMS, metadata={})))
    assert (table.num_rows, table.column_names) == (0, BITSTREAMS.names)


def test_duckdb_and_pandas_read_it(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(to_parquet([ROW, {**ROW, "bpp": 1.5}], METRICS, metadata={}))
    query = f"SELECT key, avg(bpp), count(ms_ssim) FROM '{tmp_path}/*.parquet' GROUP BY key"
    assert duckdb.execute(query).fetchall() == [("a/ü.jpg", 1.0, 0)]
    frame = pq.read_table(tmp_path / "x.parquet").to_pandas()
    assert frame["bpp"].mean() == 1.0


@pytest.mark.parametrize(
    ("column", "value"), [("width", 3_000_000_000), ("width", "wide"), ("key", "\udcff"), ("bpp", 10**400)]
)
def test_what_a_column_cannot_hold_is_found(column: str, value: object) -> None:
    assert misfits(ROW, METRICS) == {}
    assert list(misfits({**ROW, column: value}, METRICS)) == [column]


def test_a_missing_key_is_refused() -> None:
    with pytest.raises((pa.ArrowInvalid, ValueError)):
        to_parquet([{name: ROW[name] for name in ROW if name != "key"}], METRICS, metadata={})


@pytest.mark.parametrize(("job", "schema"), [("compress", METRICS), ("decompress", RESTORED)])
def test_columns_are_documented(job: str, schema: pa.Schema) -> None:
    page = (Path(__file__).parents[4] / "docs" / "metrics.md").read_text()
    table = page.split(f"Of `metrics/` of a {job} job")[1].split("\n\n")[1]
    assert table.splitlines()[2:] == [documented(field) for field in schema]


def documented(field: pa.Field) -> str:
    unit, description = (field.metadata.get(name, b"").decode() for name in (b"unit", b"description"))
    return f"| `{field.name}` | {unit} | {description} |"
