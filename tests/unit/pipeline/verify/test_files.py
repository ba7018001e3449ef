from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.ledger.output import Output
from pipeline.verify.files import read_files
from tests.datasets import Sample, pixels, write_dataset


@pytest.fixture
def output(tmp_path: Path, tiny_bundle: Path) -> Output:
    samples = [Sample("a.png", pixels(16, 16)), Sample("b.png", pixels(16, 16), status="empty")]
    return write_dataset(tmp_path, tiny_bundle, [samples])


def test_rows_are_read_and_counted(output: Output) -> None:
    (marker,) = output.markers()
    found = read_files(output, marker, ["a.png", "b.png"])
    assert [row["key"] for row in found.metrics or ()] == ["a.png", "b.png"]
    assert [row["key"] for row in found.bitstreams or ()] == ["a.png"]
    assert found.num_bytes == sum(file.num_bytes for file in marker.files.values())
    assert found.findings == []


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        (["b.png", "a.png"], "the order is another"),
        (["a.png", "b.png", "c.png"], "c.png is missing"),
        (["a.png"], "b.png is unknown"),
    ],
)
def test_keys_are_those_of_the_plan(output: Output, keys: list[str], what: str) -> None:
    (marker,) = output.markers()
    (finding,) = read_files(output, marker, keys).findings
    assert (finding.problem, finding.file) == ("wrong_keys", marker.files["metrics"].name)
    assert finding.message == f"the 2 rows are not the {len(keys)} of the plan: {what}"
    assert read_files(output, marker, None).findings == [], "where the plan cannot be read"


def test_a_file_is_compared_with_its_marker(output: Output) -> None:
    (marker,) = output.markers()
    metrics = marker.files["metrics"]
    others = {"wrong_size": replace(metrics, num_bytes=7), "wrong_hash": replace(metrics, sha256="0" * 64)}
    for problem, other in others.items():
        files = {**marker.files, "metrics": other}
        found = read_files(output, replace(marker, files=files), None)
        assert [finding.problem for finding in found.findings] == [problem]
        assert found.metrics is not None, "what can be read is looked at"
