"""What once stopped a dataset, together in one, as a user compresses it: the job ends, and every input has a row."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.output import Output
from tests.hostile import write_folder, write_table
from tests.jobs import run

pytestmark = pytest.mark.integration


@pytest.mark.slow
@pytest.mark.parametrize(("name", "write"), [("photographs", write_folder), ("table.parquet", write_table)])
def test_every_hostile_input_has_a_row(
    tmp_path: Path, tiny_bundle: Path, name: str, write: Callable[[Path], dict[str, str]]
) -> None:
    expected = write(tmp_path / name)
    output = tmp_path / "compressed"
    given = ("--input", tmp_path / name, "--output", output, "--bundle", tiny_bundle, "--shard-size", 4)
    done = run("compress_dataset", *given, "--num-workers", 2, RAY_ADDRESS="")
    assert done.returncode == 3, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    files = [output / marker.files["metrics"].name for marker in Output(str(output)).markers()]
    rows = pa.concat_tables(map(pq.read_table, files)).to_pylist()
    assert [row["key"] for row in rows] == list(dict.fromkeys(row["key"] for row in rows)), "each once"
    assert {row["key"]: row["status"] for row in rows} == expected
