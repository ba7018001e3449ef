from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.ledger.damage import DamagedFileError
from pipeline.recode.stored import StoredShard
from tests.datasets import Sample, commit_instead, pixels, write_dataset


def test_a_bitstream_of_an_image_that_is_not_good_in_the_metrics_is_damage(tiny_bundle: Path, tmp_path: Path) -> None:
    """Silence would lose it."""
    samples = [Sample("0.png", pixels(20, 24)), Sample("1.png", pixels(20, 24), status="corrupt")]
    output = write_dataset(tmp_path / "in", tiny_bundle, [samples])
    (marker,) = output.markers()
    assert StoredShard.read(output, marker).bitstreams["key"].to_pylist() == ["0.png"]
    table = pq.read_table(tmp_path / "in" / marker.files["metrics"].name)
    rows = [{**row, "status": "failed"} for row in table.to_pylist()]
    changed = commit_instead(output, marker, "metrics", table.from_pylist(rows, schema=table.schema))
    with pytest.raises(DamagedFileError, match=r"bitstreams/shard.*its keys are not those of the good images"):
        StoredShard.read(output, changed)
