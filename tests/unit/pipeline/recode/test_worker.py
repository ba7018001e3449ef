"""Every bitstream gets other bytes for the same symbols, and all beside it stays; nothing here needs Ray."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bls.bitstream import Coder, parse_header
from bls.codec import Codec
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.recode.worker import CommittedImage, RecodingConfig, ShardRecoder
from pipeline.work.codec import CodecSpec
from tests.datasets import MAP, STRUCT, Sample, commit_instead, pixels, write_dataset

SAMPLES = [
    Sample("a/0.png", pixels(20, 24, seed=1), carried={"label": 3, "caption": "ein Bär", "key": "id", "mask": b"m"}),
    Sample("bad.png", pixels(8, 8), status="truncated"),
    Sample("1.png", pixels(70, 40, seed=2), carried=None),
    Sample("2.png", pixels(18, 30, gray=True, seed=3), carried={"label": None}),
]


def recode(source: Output, bundle: Path, output: Path, coder: str, *, crashed: Sequence[int] = ()) -> Marker:
    (marker,) = source.markers()
    had = "adaptive" if coder == "mixed" else "mixed"
    config = RecodingConfig(str(source), str(output), CodecSpec.of(str(bundle), 4, coder=had), coder)
    Output(str(output)).begin(Manifest(job="recode", plans=(Plan("2" * 32),)))
    items = tuple(CommittedImage(marker, row) for row in range(marker.summary.num_images))
    return ShardRecoder(config).run(Shard(marker.shard, items), crashed=crashed)


def table(output: Path, kind: str) -> pa.Table:
    (marker,) = Output(str(output)).markers()
    return pq.read_table(output / marker.files[kind].name)


def rows(output: Path, kind: str) -> list[dict[str, Any]]:
    return table(output, kind).to_pylist()  # type: ignore[no-any-return]


def change(output: Output, kind: str, row: int, **values: Any) -> None:
    """Change a row of the one shard as if it had been committed so."""
    (marker,) = output.markers()
    stored = pq.read_table(Path(str(output)) / marker.files[kind].name)
    changed = [{**each, **(values if index == row else {})} for index, each in enumerate(stored.to_pylist())]
    commit_instead(output, marker, kind, pa.Table.from_pylist(changed, schema=stored.schema))


@pytest.mark.parametrize("coder", ["adaptive", "static"])
def test_symbols_stay_and_the_way_back_gives_the_same_bytes(tiny_bundle: Path, tmp_path: Path, coder: str) -> None:
    source = write_dataset(tmp_path / "in", tiny_bundle, [SAMPLES], carried=STRUCT)
    recode(source, tiny_bundle, tmp_path / "there", coder)
    codec = Codec.load(tiny_bundle)
    before, there = rows(tmp_path / "in", "bitstreams"), rows(tmp_path / "there", "bitstreams")
    for old, new in zip(before, there, strict=True):
        assert parse_header(new["bitstream"]).coder == Coder[coder.upper()]
        assert np.array_equal(codec.decode(old["bitstream"])[1], codec.decode(new["bitstream"])[1])
        assert {**old, "bitstream": b""} == {**new, "bitstream": b""}
    if coder == "adaptive":
        recode(Output(str(tmp_path / "there")), tiny_bundle, tmp_path / "back", "mixed")
        assert table(tmp_path / "back", "bitstreams").equals(table(tmp_path / "in", "bitstreams"))


def test_metrics_are_copied_but_for_size_coder_and_seconds(tiny_bundle: Path, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", tiny_bundle, [SAMPLES])
    change(source, "metrics", 0, synthesis_seconds=2.0, coder="mixed")
    marker = recode(source, tiny_bundle, tmp_path / "out", "adaptive")
    stored = {row["key"]: len(row["bitstream"]) for row in rows(tmp_path / "out", "bitstreams")}
    for old, new in zip(rows(tmp_path / "in", "metrics"), rows(tmp_path / "out", "metrics"), strict=True):
        num_bytes = stored.get(old["key"])
        changed = {"coder": "adaptive", "num_bytes": num_bytes, "synthesis_seconds": None}
        if num_bytes is not None:
            changed["bpp"] = 8 * num_bytes / (old["width"] * old["height"])
            assert new["entropy_encode_seconds"] > 0 and new["entropy_decode_seconds"] > 0
        times = ("entropy_encode_seconds", "entropy_decode_seconds")
        assert {**old, **changed} == {**new, **{name: old[name] for name in times}}
    assert marker.summary.num_bytes_bitstreams == sum(stored.values())
    assert marker.summary.quarantined == {"truncated": 1}
    assert table(tmp_path / "out", "metrics").schema.metadata[b"coder"] == b"adaptive"


def test_members_of_tars_stay(tiny_bundle: Path, tmp_path: Path) -> None:
    samples = [Sample("0.png", pixels(20, 24), carried=[("cls", b"1"), ("seg.png", b"mask")])]
    source = write_dataset(tmp_path / "in", tiny_bundle, [samples], carried=MAP)
    recode(source, tiny_bundle, tmp_path / "out", "static")
    assert rows(tmp_path / "out", "bitstreams")[0]["carried"] == [("cls", b"1"), ("seg.png", b"mask")]


def test_a_damaged_bitstream_and_a_crash_disturb_no_other_image(tiny_bundle: Path, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", tiny_bundle, [SAMPLES])
    change(source, "bitstreams", 1, bitstream=rows(tmp_path / "in", "bitstreams")[1]["bitstream"][:-3])
    marker = recode(source, tiny_bundle, tmp_path / "out", "adaptive", crashed=[3])
    assert marker.summary.quarantined == {"truncated": 1, "corrupt": 1, "crashed": 1}
    assert [row["key"] for row in rows(tmp_path / "out", "bitstreams")] == ["a/0.png"]
    damaged = rows(tmp_path / "out", "metrics")[2]
    assert damaged["status"] == "corrupt" and "checksum" in damaged["error_message"]
    assert (damaged["num_bytes"], damaged["bpp"], damaged["psnr_db"]) == (None, None, None)


def test_an_image_of_a_target_size_meets_it_or_not_with_its_new_size(tiny_bundle: Path, tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "in", tiny_bundle, [SAMPLES])
    recode(source, tiny_bundle, tmp_path / "first", "adaptive")
    num_bytes = rows(tmp_path / "first", "metrics")[2]["num_bytes"]
    for bound, is_met in ((num_bytes, True), (num_bytes - 1, False)):
        change(source, "metrics", 2, target=f"num_bytes <= {bound}", target_met=not is_met)
        change(source, "metrics", 3, target="psnr_db >= 99", target_met=False)
        marker = recode(source, tiny_bundle, tmp_path / f"{is_met}", "adaptive")
        assert [row["target_met"] for row in rows(tmp_path / f"{is_met}", "metrics")[2:]] == [is_met, False]
        assert marker.summary.num_targets_missed == (1 if is_met else 2)
