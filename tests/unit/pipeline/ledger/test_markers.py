import json
from dataclasses import asdict, replace

import pytest

from pipeline.ledger.markers import Committed, CommittedFile, Marker, Stint, marker_name
from pipeline.ledger.summary import Summary

FILE = CommittedFile("metrics/a.parquet", 3, "0" * 64)
MARKER = Marker(3, "a1", {"metrics": FILE}, Summary(2, {"empty": 1}), retry=1, stints=(Stint("host:1", 1.0, 3.5),))


def test_a_marker_is_read_as_it_was_written() -> None:
    assert Marker.from_json(json.dumps(asdict(MARKER)).encode()) == MARKER
    assert MARKER.last_stint is not None and MARKER.last_stint.seconds == 2.5


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 7},
        {"files": {"metrics": {"name": "../a", "num_bytes": 3, "sha256": ""}}},
        {"files": {"metrics": {"name": "a", "num_bytes": "3", "sha256": ""}}},
        {"stints": [{"worker": "a", "began": "x", "ended": 1}]},
    ],
)
def test_what_is_not_a_marker_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Marker.from_json(json.dumps({**asdict(MARKER), **change}).encode())


def test_names_have_the_shard_and_the_retry() -> None:
    assert (marker_name(7, 0), MARKER.name) == ("shard-000007.json", "shard-000003.retry-1.json")


def test_what_is_committed_adds_up() -> None:
    committed = Committed()
    for marker in (MARKER, replace(MARKER, shard=4, retry=0)):
        committed.add(marker)
    assert committed.last_retries == {3: 1, 4: 0}
    assert (committed.total.num_images, committed.total.num_quarantined) == (4, 2)
