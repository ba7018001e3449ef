from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.manifest import Manifest
from pipeline.ledger.markers import Committed
from pipeline.ledger.output import Output, OutputError
from pipeline.ledger.plan import MAX_DEFAULT_SIZE, MIN_DEFAULT_SIZE, copy_plan, freeze_plan, planned_shards
from pipeline.ledger.shard import Shard
from pipeline.sources.opening import open_source
from pipeline.sources.reference import Columns, Source

SETTINGS = {"quality": 4}


def fill(root: Path, num_images: int) -> Source:
    root.mkdir(exist_ok=True)
    for index in range(num_images):
        (root / f"{index:05d}.jpg").write_bytes(b"")
    return open_source(str(root))


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "out"))


def freeze(
    output: Output, source: Source, *, shard_size: int | None = 3, num_workers: int = 2, **settings: object
) -> Manifest:
    return freeze_plan(
        output,
        source,
        begun=Manifest(job="compress", settings={**SETTINGS, **settings}),
        shard_size=shard_size,
        num_workers=lambda: num_workers,
    )


def plan(output: Output, manifest: Manifest, skip: set[int] | None = None) -> list[Shard]:
    return list(planned_shards(output, manifest, skip=skip or set()))


def test_every_input_is_in_one_shard_in_order(tmp_path: Path, output: Output) -> None:
    source = fill(tmp_path / "in", 10)
    manifest = freeze(output, source)
    shards = plan(output, manifest)
    assert [shard.index for shard in shards] == [0, 1, 2, 3]
    assert [len(shard.items) for shard in shards] == [3, 3, 3, 1]
    assert [item for shard in shards for item in shard.items] == list(source.references())
    assert (manifest.num_images, manifest.num_shards, manifest.plans[0].shard_size) == (10, 4, 3)


def test_a_plan_is_copied_once_under_an_id_of_its_own(tmp_path: Path, output: Output) -> None:
    first, copy = freeze(output, fill(tmp_path / "in", 10)), Output(str(tmp_path / "copy"))
    begun = Manifest(job="recode", settings=SETTINGS)
    manifest = copy_plan(copy, output, first, begun=begun)
    assert plan(copy, manifest) == plan(output, first)
    assert manifest.id != first.id and manifest.plans[0].keys_sha256 == first.plans[0].keys_sha256
    assert copy_plan(copy, output, first, begun=begun) == manifest
    with pytest.raises(OutputError, match="begun with other settings"):
        copy_plan(copy, output, first, begun=Manifest(job="recode"))


def test_a_rerun_reads_the_frozen_plan(tmp_path: Path, output: Output) -> None:
    source = fill(tmp_path / "in", 10)
    first = freeze(output, source)
    again = freeze(output, source, shard_size=None, num_workers=50)
    assert again == first
    assert plan(output, again, skip={0, 2}) == [shard for shard in plan(output, first) if shard.index in (1, 3)]


def test_many_parts_are_read_one_after_the_other(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ledger.plan._PART_NUM_IMAGES", 6)
    source = fill(tmp_path / "in", 20)
    shards = plan(output, freeze(output, source))
    assert len(list((tmp_path / "out" / "plan").iterdir())) == 4
    assert [item for shard in shards for item in shard.items] == list(source.references())


@pytest.mark.parametrize(
    ("num_images", "num_workers", "size"),
    [(1, 2, MIN_DEFAULT_SIZE), (100, 2, 13), (2000, 2, MAX_DEFAULT_SIZE), (2000, 100, 5)],
)
def test_the_default_size_keeps_workers_busy(
    tmp_path: Path, output: Output, num_images: int, num_workers: int, size: int
) -> None:
    manifest = freeze(output, fill(tmp_path / "in", num_images), shard_size=None, num_workers=num_workers)
    assert manifest.plans[0].shard_size == size
    assert sum(len(shard.items) for shard in plan(output, manifest)) == manifest.num_images == num_images


def test_a_planning_run_that_was_killed_leaves_no_trace_in_the_plan(tmp_path: Path, output: Output) -> None:
    source = fill(tmp_path / "in", 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Output, "begin", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            freeze(output, source)
    manifest = freeze(output, source, shard_size=5)
    assert [len(shard.items) for shard in plan(output, manifest)] == [5, 5]
    output.sweep(Committed())
    assert len(list((tmp_path / "out" / "plan").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": 2}, "quality was 4, now 2"),
        ({"coder": "static"}, "coder was None, now static"),
        ({"shard_size": 4}, "--shard-size 3, now 4"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, output: Output, change: dict[str, object], message: str) -> None:
    source = fill(tmp_path / "in", 10)
    freeze(output, source)
    with pytest.raises(OutputError, match=message) as caught:
        freeze(output, source, **change)  # type: ignore[arg-type]
    assert "--overwrite" in str(caught.value)


def test_other_inputs_are_refused(tmp_path: Path, output: Output) -> None:
    freeze(output, fill(tmp_path / "in", 10))
    with pytest.raises(OutputError, match="10 then, 11 now"):
        freeze(output, fill(tmp_path / "in", 11))
    (tmp_path / "in" / "00010.jpg").rename(tmp_path / "in" / "labels.json")
    freeze(output, fill(tmp_path / "in", 10))
    (tmp_path / "in" / "00003.jpg").rename(tmp_path / "in" / "renamed.jpg")
    with pytest.raises(OutputError, match="or other names"):
        freeze(output, open_source(str(tmp_path / "in")))


def test_a_source_without_images_is_refused_and_leaves_nothing(tmp_path: Path, output: Output) -> None:
    with pytest.raises(ValueError, match="has no images"):
        freeze(output, fill(tmp_path / "in", 0))
    assert not (tmp_path / "out").exists()


def test_of_two_planning_runs_one_wins(tmp_path: Path, output: Output) -> None:
    """The other run planned and froze between our look and our write."""
    source = fill(tmp_path / "in", 10)
    with pytest.MonkeyPatch.context() as patch:
        original = Output.begin

        def begin(self: Output, manifest: Manifest) -> Manifest:
            patch.undo()
            freeze(Output(str(tmp_path / "out")), source)
            return original(self, manifest)

        patch.setattr(Output, "begin", begin)
        manifest = freeze(output, source)
    assert manifest == output.manifest()
    assert sum(len(shard.items) for shard in plan(output, manifest)) == 10


def test_two_images_of_one_key_are_named_and_nothing_is_left(tmp_path: Path, output: Output) -> None:
    pq.write_table(pa.table({"image": [b"a", b"b", b"c"], "id": ["x", "y", "x"]}), tmp_path / "0.parquet")
    source = open_source(str(tmp_path / "0.parquet"), Columns(key="id"))
    with pytest.raises(ValueError, match=r"0\.parquet#row=0 and .*/0\.parquet#row=2 have the same key x") as caught:
        freeze(output, source)
    assert "row=1" not in str(caught.value)
    assert output.manifest() is None
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_equal_hashes_are_not_taken_for_equal_keys(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ledger.plan.hashes_of", lambda keys: np.zeros(len(keys), np.int64))
    monkeypatch.setattr("pipeline.sources.unique_keys.hash", lambda key: 0, raising=False)
    assert freeze(output, fill(tmp_path / "in", 10)).num_images == 10


def test_where_an_image_is_in_a_file_is_planned(tmp_path: Path, output: Output) -> None:
    pq.write_table(pa.table({"image": [b"a", b"b"], "label": [1, 2]}), tmp_path / "0.parquet")
    source = open_source(str(tmp_path / "0.parquet"))
    (shard,) = plan(output, freeze(output, source))
    assert shard.items == tuple(source.references())
    assert [(item.file, item.start) for item in shard.items] == [("0.parquet", 0), ("0.parquet", 1)]


def test_another_type_of_what_is_carried_is_refused(tmp_path: Path, output: Output) -> None:
    path = tmp_path / "0.parquet"
    for label, outcome in ((1, None), (2, None), ("one", "or other names")):
        pq.write_table(pa.table({"image": [b"a"], "label": [label]}), path)
        if outcome is None:
            freeze(output, open_source(str(path)))
        else:
            with pytest.raises(OutputError, match=outcome):
                freeze(output, open_source(str(path)))
