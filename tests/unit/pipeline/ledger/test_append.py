import shutil
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.append import Compared, append_plan
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Committed
from pipeline.ledger.output import Output, OutputError
from pipeline.ledger.plan import copy_plan, freeze_plan, planned_shards
from pipeline.sources.opening import open_source
from pipeline.sources.reference import Columns, Source

SETTINGS = {"quality": 4}


def fill(root: Path, names: Iterable[int | str]) -> Source:
    root.mkdir(exist_ok=True)
    for name in names:
        (root / (name if isinstance(name, str) else f"{name:05d}.jpg")).write_bytes(b"")
    return open_source(str(root))


def append(
    output: Output, source: Source, *, shard_size: int | None = 3, **settings: object
) -> tuple[Manifest, Compared]:
    return append_plan(
        output,
        source,
        begun=Manifest("compress", {**SETTINGS, **settings}),
        shard_size=shard_size,
        num_workers=lambda: 2,
    )


def planned(output: Output, manifest: Manifest) -> list[tuple[int, list[str]]]:
    shards = planned_shards(output, manifest, skip=set())
    return [(shard.index, [item.key for item in shard.items]) for shard in shards]


def plan_files(output: Output) -> set[str]:
    return {path.name for path in Path(str(output), "plan").iterdir()}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(str(tmp_path / "out"))


def test_what_is_new_becomes_further_shards(tmp_path: Path, output: Output) -> None:
    first, compared = append(output, fill(tmp_path / "in", range(0, 10, 2)))
    assert (len(first.plans), compared) == (1, Compared(num_new=5))
    manifest, compared = append(output, fill(tmp_path / "in", range(8)))
    assert compared == Compared(num_new=4, num_known=5)
    assert manifest == output.manifest()
    assert (manifest.id, manifest.num_images, manifest.num_shards) == (first.id, 9, 4)
    assert planned(output, manifest) == [
        (0, ["00000.jpg", "00002.jpg", "00004.jpg"]),
        (1, ["00006.jpg", "00008.jpg"]),
        (2, ["00001.jpg", "00003.jpg", "00005.jpg"]),
        (3, ["00007.jpg"]),
    ]


def test_where_nothing_is_new_nothing_is_written_and_no_cluster_asked_for(tmp_path: Path, output: Output) -> None:
    source = fill(tmp_path / "in", range(10))
    first, _ = append(output, source)
    before = plan_files(output)
    again, compared = append_plan(
        output, source, begun=Manifest("compress", SETTINGS), shard_size=None, num_workers=lambda: 1 // 0
    )
    assert (again, compared) == (first, Compared(num_known=10))
    assert plan_files(output) == before


def test_many_appends_are_read_in_their_order(tmp_path: Path, output: Output) -> None:
    for day in range(12):
        manifest, _ = append(
            output, fill(tmp_path / "in", range(100 - 2 * day, 100)) if day else fill(tmp_path / "in", [0])
        )
    assert [plan.num_images for plan in manifest.plans] == [1, *[2] * 11]
    shards = planned(output, manifest)
    assert [index for index, _ in shards] == list(range(12))
    assert [keys[0] for _, keys in shards[1:]] == [f"{100 - 2 * day:05d}.jpg" for day in range(1, 12)]


def test_what_vanished_is_named_and_stays_planned(tmp_path: Path, output: Output) -> None:
    append(output, fill(tmp_path / "in", range(10)))
    for number in range(5):
        (tmp_path / "in" / f"{number:05d}.jpg").unlink()
    manifest, compared = append(output, fill(tmp_path / "in", ["00000.png"]))
    assert (compared.num_vanished, compared.vanished) == (5, ("00000.jpg", "00001.jpg", "00002.jpg"))
    *_, last = planned_shards(output, manifest, skip=set())
    assert manifest.num_images == 11
    assert [(item.key, item.stem) for item in last.items] == [("00000.png", "00000.png")], "00000 is taken"


def test_an_image_that_is_elsewhere_in_its_file_is_named_and_left_alone(tmp_path: Path, output: Output) -> None:
    path, columns = tmp_path / "0.parquet", Columns(key="id")
    pq.write_table(pa.table({"image": [b"a", b"b"], "id": ["x", "y"]}), path)
    append(output, open_source(str(path), columns))
    pq.write_table(pa.table({"image": [b"a", b"c", b"b"], "id": ["x", "z", "y"]}), path)
    manifest, compared = append(output, open_source(str(path), columns))
    assert (compared.num_new, compared.num_moved, compared.moved) == (1, 1, ("y",))
    assert [keys for _, keys in planned(output, manifest)] == [["x", "y"], ["z"]]


def test_other_columns_beside_the_images_are_refused_and_nothing_is_left(tmp_path: Path, output: Output) -> None:
    path, columns = tmp_path / "0.parquet", Columns(key="id")
    pq.write_table(pa.table({"image": [b"a"], "id": ["x"]}), path)
    first, _ = append(output, open_source(str(path), columns))
    before = plan_files(output)
    pq.write_table(pa.table({"image": [b"a", b"b"], "id": ["x", "y"], "label": [1, 2]}), path)
    with pytest.raises(OutputError, match="carries struct<id: string, label: int64> beside its images"):
        append(output, open_source(str(path), columns))
    assert (output.manifest(), plan_files(output)) == (first, before)


def test_a_new_key_that_is_there_twice_is_refused_and_nothing_is_left(tmp_path: Path, output: Output) -> None:
    path, columns = tmp_path / "0.parquet", Columns(key="id")
    pq.write_table(pa.table({"image": [b"a"], "id": ["x"]}), path)
    first, _ = append(output, open_source(str(path), columns))
    before = plan_files(output)
    pq.write_table(pa.table({"image": [b"a", b"b", b"c"], "id": ["x", "y", "y"]}), path)
    with pytest.raises(ValueError, match="have the same key y"):
        append(output, open_source(str(path), columns))
    assert (output.manifest(), plan_files(output)) == (first, before)


@pytest.mark.parametrize(
    ("change", "message"), [({"quality": 2}, "quality was 4, now 2"), ({"shard_size": 4}, "--shard-size 3, now 4")]
)
def test_other_settings_are_refused(tmp_path: Path, output: Output, change: dict[str, object], message: str) -> None:
    append(output, fill(tmp_path / "in", range(3)))
    with pytest.raises(OutputError, match=message):
        append(output, fill(tmp_path / "in", range(4)), **change)  # type: ignore[arg-type]


def test_a_run_without_the_flag_goes_on_with_a_grown_output_and_takes_nothing_new(
    tmp_path: Path, output: Output
) -> None:
    append(output, fill(tmp_path / "in", range(3)))
    grown, _ = append(output, fill(tmp_path / "in", range(6)))

    def freeze(source: Source) -> Manifest:
        return freeze_plan(output, source, begun=Manifest("compress", SETTINGS), shard_size=3, num_workers=lambda: 2)

    assert freeze(open_source(str(tmp_path / "in"))) == grown
    with pytest.raises(OutputError, match=r"6 then, 7 now.*--append"):
        freeze(fill(tmp_path / "in", range(7)))


def test_of_two_appends_at_once_one_wins_and_the_other_compares_again(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run lists later, when there is one image more, and writes its plan earlier."""
    append(output, fill(tmp_path / "in", range(3)))
    source = fill(tmp_path / "in", range(5))
    original, other = Output.append, list[Manifest]()

    def late(self: Output, manifest: Manifest, plan: Plan) -> Manifest:
        monkeypatch.undo()
        other.append(append(Output(str(output)), fill(tmp_path / "in", range(6)))[0])
        return original(self, manifest, plan)

    monkeypatch.setattr(Output, "append", late)
    manifest, compared = append(output, source)
    assert [manifest] == other and compared == Compared(num_known=6)
    assert sorted(key for _, keys in planned(output, manifest) for key in keys) == [f"{n:05d}.jpg" for n in range(6)]
    assert len(plan_files(output)) == 4
    output.sweep(Committed())
    assert len(plan_files(output)) == 3, "the parts of the plan that came too late are gone"


def test_a_sweep_leaves_the_parts_of_an_append_that_is_being_planned_alone(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(output, fill(tmp_path / "in", range(3)))
    original = Output.append

    def swept(self: Output, manifest: Manifest, plan: Plan) -> Manifest:
        Output(str(output)).sweep(Committed())
        return original(self, manifest, plan)

    monkeypatch.setattr(Output, "append", swept)
    manifest, _ = append(output, fill(tmp_path / "in", range(5)))
    assert [keys for _, keys in planned(output, manifest)][1] == ["00003.jpg", "00004.jpg"]


def test_what_a_killed_append_left_goes_with_the_next(
    tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(output, fill(tmp_path / "in", range(3)))
    with monkeypatch.context() as patch:
        patch.setattr(Output, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            append(output, fill(tmp_path / "in", range(5)))
    assert output.manifest().num_images == 3  # type: ignore[union-attr]
    manifest, _ = append(output, fill(tmp_path / "in", range(6)))
    output.sweep(Committed())
    assert [keys for _, keys in planned(output, manifest)] == [
        [f"{n:05d}.jpg" for n in range(3)],
        [f"{n:05d}.jpg" for n in range(3, 6)],
    ]
    assert len(plan_files(output)) == 3


def test_an_append_that_is_gone_is_noticed(tmp_path: Path, output: Output) -> None:
    for number in count(1):
        append(output, fill(tmp_path / "in", range(number)))
        if number == 3:
            break
    next(Path(str(output), "plan").glob("append-00001.*.json")).unlink()
    with pytest.raises(DamagedFileError, match="append 1 is missing"):
        output.manifest()


def test_an_overwrite_begins_without_appends(tmp_path: Path, output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is killed as soon as the manifest is gone, too."""
    append(output, fill(tmp_path / "in", range(3)))
    append(output, fill(tmp_path / "in", range(6)))
    whole = shutil.copytree(str(output), tmp_path / "whole")
    output.clear("compress")
    assert [path for path in Path(str(output)).rglob("*") if path.is_file()] == []

    Path(whole, "manifest.json").unlink()
    again, _ = append(Output(str(whole)), fill(tmp_path / "in", range(6)))
    assert [plan.num_images for plan in again.plans] == [6]
    Output(str(whole)).sweep(Committed())
    assert [name for name in plan_files(Output(str(whole))) if name.endswith(".json")] == []


def test_a_copy_of_the_plans_grows_with_them(tmp_path: Path, output: Output) -> None:
    def copy(manifest: Manifest) -> Manifest:
        return copy_plan(Output(str(tmp_path / "copy")), output, manifest, begun=Manifest("recode", SETTINGS))

    first, _ = append(output, fill(tmp_path / "in", range(4)))
    copied = copy(first)
    grown, _ = append(output, fill(tmp_path / "in", range(9)))
    again = copy(grown)
    assert again.id == copied.id != grown.id
    assert planned(Output(str(tmp_path / "copy")), again) == planned(output, grown)
    assert copy(grown) == again
