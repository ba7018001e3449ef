import io
import re
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.ledger.schema import VERIFICATION
from pipeline.verify.findings import Finding, Problem, counts, findings_table


def test_a_row_for_each_finding_and_sums() -> None:
    findings = [
        Finding(Problem.MISSING_FILE, "it is not there", 3, "metrics/x.parquet"),
        Finding(Problem.BAD_BITSTREAM, "checksum", 3, "bitstreams/x.parquet", "a.png"),
        Finding(Problem.BAD_BITSTREAM, "header", 4, "bitstreams/y.parquet", "b.png"),
        Finding(Problem.DAMAGED_PLAN, "it is not whole"),
    ]
    table = pq.read_table(io.BytesIO(findings_table(findings, run="1")))
    assert table.schema.names == VERIFICATION.names
    assert table["shard"].to_pylist() == [3, 3, 4, None]
    summary = counts(findings)
    assert summary.quarantined == {"missing_file": 1, "bad_bitstream": 2, "damaged_plan": 1}
    assert summary.examples["bad_bitstream"] == "a.png: checksum"
    assert summary.examples["missing_file"] == "metrics/x.parquet: it is not there"
    assert summary.num_images == 0


def test_each_problem_is_documented() -> None:
    _, section = (Path(__file__).parents[4] / "docs/operations.md").read_text().split("## Verify and repair")
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(Problem)


def test_what_a_rerun_does_not_mend() -> None:
    assert {p for p in Problem if not p.is_mended_by_a_rerun} == {Problem.DAMAGED_PLAN, Problem.WRONG_PIXELS}
