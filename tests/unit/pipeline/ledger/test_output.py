import hashlib
import io
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Committed, Marker
from pipeline.ledger.output import Output, OutputError, check_same
from pipeline.ledger.summary import Summary
from pipeline.storage.folder import Folder, list_names


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(str(tmp_path))
    output.begin(Manifest(job="compress", settings={"quality": 4}, plans=(Plan("1" * 32, 2, 2),)))
    return output


def commit(output: Output, shard: int, content: bytes = b"rows", images: int = 1) -> dict[str, str]:
    files = {"bitstreams": content, "metrics": content}
    return names_of(output.commit(shard, files, Summary(num_images=images)))


def names_of(marker: Marker) -> dict[str, str]:
    return {kind: file.name for kind, file in marker.files.items()}


def sweep(output: Output) -> None:
    output.sweep(output.up_to_date(Committed()))


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_is_committed_is_read_back(output: Output, tmp_path: Path) -> None:
    assert output.committed() == set()
    assert output.marker(7) is None
    names = commit(output, 7, images=3)
    commit(output, 1_000_001)
    assert output.committed() == {7, 1_000_001}
    marker = output.marker(7)
    assert marker is not None
    assert (names_of(marker), marker.summary) == (names, Summary(num_images=3))
    assert [marker.shard for marker in output.markers()] == [7, 1_000_001]
    assert (tmp_path / names["metrics"]).read_bytes() == b"rows"


def test_a_marker_tells_who_worked_and_when(output: Output) -> None:
    first = output.commit(0, {"metrics": b""}, Summary(1), began=time.monotonic() - 2)
    (stint,) = first.stints
    assert stint.worker.endswith(f":{os.getpid()}") and 2 <= stint.seconds < 60
    assert abs(stint.ended - time.time()) < 60
    retried = output.commit(0, {"metrics": b""}, Summary(1), retry=1, began=time.monotonic(), earlier=first.stints)
    assert retried.stints[0] == stint and len(retried.stints) == 2
    assert output.markers() == [retried]


def test_a_marker_of_an_older_release_is_read(output: Output) -> None:
    commit(output, 0)
    stored = json.loads(output.folder.read("commits/shard-000000.json"))
    del stored["stints"]
    output.folder.write("commits/shard-000000.json", json.dumps(stored).encode())
    (marker,) = output.markers()
    assert marker.stints == ()


def test_the_first_commit_stands(output: Output, tmp_path: Path) -> None:
    first = commit(output, 0, b"first")
    assert commit(output, 0, b"second") == first
    assert files(tmp_path) == {"manifest.json", "commits/shard-000000.json", *first.values()}
    assert output.folder.read(first["metrics"]) == b"first"


def test_a_lost_answer_to_the_commit_is_no_loss(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store made the marker but said that it was there already, as after a retried request."""
    folder = type(output._commits)
    create = folder.create
    monkeypatch.setattr(folder, "create", lambda *arguments: create(*arguments) and False)
    names = commit(output, 0)
    assert output.folder.read(names["bitstreams"]) == b"rows"


def test_markers_are_read_again_only_where_others_committed(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    first = output.commit(0, {"metrics": b""}, Summary(1))
    seen = output.up_to_date(Committed())
    assert (seen.attempts, seen.total) == ({0: (0, first.attempt)}, Summary(1))
    seen.add(output.commit(1, {"metrics": b""}, Summary(2)))
    with monkeypatch.context() as patch:
        patch.setattr(Output, "iter_markers", lambda _: 1 / 0)
        assert output.up_to_date(seen) is seen
    other = output.commit(0, {"metrics": b""}, Summary(1, {"empty": 1}), retry=1)
    anew = output.up_to_date(seen)
    assert (anew.attempts[0], anew.total) == ((1, other.attempt), Summary(3, {"empty": 1}))


def test_many_markers_are_read_some_at_a_time(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.ledger.output._MARKERS_AT_ONCE", 2)
    for shard in range(5):
        commit(output, shard)
    assert [marker.shard for marker in output.iter_markers()] == [0, 1, 2, 3, 4]


def test_sweep_deletes_what_no_marker_names(output: Output, tmp_path: Path) -> None:
    kept = commit(output, 0)
    dead, running = "2" * 32, "3" * 32
    for kind in ("bitstreams", "metrics"):
        output.folder.write(f"{kind}/shard-000000.{dead}.parquet", b"")
        output.folder.write(f"{kind}/shard-000001.{running}.parquet", b"")
    output.folder.write(f"images/shard-000000.{dead}.parquet", b"")
    output.folder.write(f"plan/part-00000.{'1' * 32}.parquet", b"")
    output.folder.write(f"plan/part-00000.{dead}.parquet", b"")
    output.folder.write(f"images/a/.tmp-{dead}", b"")
    output.folder.write("images/a/tmp.png", b"")
    output.folder.write("metrics/notes.txt", b"somebody's")
    sweep(output)
    assert files(tmp_path) == {
        "manifest.json",
        "commits/shard-000000.json",
        *kept.values(),
        f"plan/part-00000.{'1' * 32}.parquet",
        f"bitstreams/shard-000001.{running}.parquet",
        f"metrics/shard-000001.{running}.parquet",
        "images/a/tmp.png",
        "metrics/notes.txt",
    }


def retry(output: Output, shard: int, content: bytes, number: int = 1) -> dict[str, str]:
    files = {"bitstreams": content, "metrics": content}
    return names_of(output.commit(shard, files, Summary(num_images=1), retry=number))


def test_of_a_shard_that_was_retried_the_last_marker_counts(output: Output, tmp_path: Path) -> None:
    first, other = commit(output, 0), commit(output, 1)
    second = retry(output, 0, b"second")
    assert retry(output, 0, b"slower") == second
    assert output.committed() == {0, 1}
    assert [(names_of(marker), marker.retry) for marker in output.markers()] == [(second, 1), (other, 0)]
    third = retry(output, 0, b"third", 2)
    assert [names_of(marker) for marker in output.markers()] == [third, other]
    assert set(first.values()) < files(tmp_path)  # for who read the first marker a moment ago
    sweep(output)
    markers = {f"commits/shard-000000{retry}.json" for retry in ("", ".retry-1", ".retry-2")}
    expected = {"manifest.json", "commits/shard-000001.json", *markers, *third.values(), *other.values()}
    assert files(tmp_path) == expected


def test_what_a_killed_retry_left_is_swept_and_can_never_count(output: Output, tmp_path: Path) -> None:
    """Nobody knows whether that run is dead: if it is alive, its marker comes too late."""
    kept = commit(output, 0)
    with pytest.MonkeyPatch.context() as patch:
        create_marker = Output._create_marker

        def sweep_first(self: Output, marker: Marker) -> Marker:
            patch.undo()
            assert len(files(tmp_path)) == 6
            sweep(Output(str(tmp_path)))
            return create_marker(self, marker)

        patch.setattr(Output, "_create_marker", sweep_first)
        assert retry(output, 0, b"slow") == kept
    sweep(output)
    markers = {"commits/shard-000000.json", "commits/shard-000000.retry-1.json"}
    assert files(tmp_path) == {"manifest.json", *markers, *kept.values()}
    again = retry(output, 0, b"again", 2)
    assert [names_of(marker) for marker in output.markers()] == [again]


def test_a_sweep_with_old_news_leaves_a_new_commit_alone(output: Output, tmp_path: Path) -> None:
    commit(output, 0)
    stale = output.up_to_date(Committed())
    second = retry(output, 0, b"second")
    output.sweep(stale)
    assert set(second.values()) < files(tmp_path)
    assert [names_of(marker) for marker in output.markers()] == [second]


def test_a_sweep_deletes_nothing_of_a_run_that_began_anew(output: Output, tmp_path: Path) -> None:
    """A run that was believed dead ends after another one overwrote the output: its news are of markers of before."""
    stale = Committed()
    stale.add(output.commit(0, {"metrics": b"before"}, Summary(1)))
    stale.add(output.commit(1, {"metrics": b"before"}, Summary(1)))
    output.clear("compress")
    output.begin(Manifest(job="compress", plans=(Plan("1" * 32),)))
    anew = commit(output, 0, b"anew")
    output.folder.write(f"metrics/shard-000001.{'4' * 32}.parquet", b"running")
    output.sweep(stale)
    assert set(anew.values()) | {f"metrics/shard-000001.{'4' * 32}.parquet"} < files(tmp_path)


def test_open_files_are_committed_as_they_are(output: Output, tmp_path: Path) -> None:
    file = output.commit(0, {"images": io.BytesIO(b"table")}, Summary(num_images=1)).files["images"]
    assert (tmp_path / file.name).read_bytes() == b"table"
    assert file.name.startswith("images/shard-000000.") and file.name.endswith(".parquet")


@pytest.mark.parametrize("uri", ["{}", "memory://{}"])
def test_a_marker_has_size_and_hash_of_its_files(tmp_path: Path, uri: str) -> None:
    output = Output(uri.format(tmp_path))
    output.begin(Manifest(job="compress"))
    large = bytes(range(256)) * 2**15
    marker = output.commit(0, {"metrics": b"rows", "images": io.BytesIO(large)}, Summary(1))
    assert output.marker(0) == marker
    for kind, content in [("metrics", b"rows"), ("images", large)]:
        file = marker.files[kind]
        assert output.folder.read(file.name) == content
        assert (file.num_bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_clear_leaves_nothing_of_the_job(output: Output, tmp_path: Path) -> None:
    commit(output, 0)
    output.commit(1, {"images": io.BytesIO(b"table")}, Summary(num_images=1))
    output.record_written(1, ["a/b.png"])
    output.folder.write("images/a/b.png", b"")
    (tmp_path / "unrelated.txt").write_bytes(b"")
    output.clear("compress")
    assert files(tmp_path) == {"unrelated.txt"}
    output.clear("compress")  # of nothing: no error


def test_clear_does_not_touch_another_job(output: Output, tmp_path: Path) -> None:
    commit(output, 0)
    before = files(tmp_path)
    with pytest.raises(OutputError, match="not overwritten"):
        output.clear("decompress")
    assert files(tmp_path) == before


def test_a_killed_clear_leaves_no_half_for_a_whole(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(output, 0)
    order: list[str] = []
    folder = type(output.folder)
    delete = folder.delete

    def record(self: Folder, name: str) -> None:
        order.append(name)
        delete(self, name)

    monkeypatch.setattr(folder, "delete", record)
    output.clear("compress")
    assert order[:2] == ["shard-000000.json", "manifest.json"]


def test_an_output_that_is_deleted_while_it_is_written_to_is_told(
    output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = type(output.folder)
    create = folder.create

    def create_and_delete(self: Folder, name: str, data: bytes) -> bool:
        created = create(self, name, data)
        shutil.rmtree(tmp_path)
        return created

    monkeypatch.setattr(folder, "create", create_and_delete)
    with pytest.raises(OutputError, match="was deleted or moved while the job wrote to it"):
        commit(output, 0)
    with pytest.raises(OutputError, match="was deleted or moved while the job wrote to it"):
        output.begin(Manifest(job="compress"))
    with pytest.raises(OutputError, match="was deleted or moved while the job wrote to it"):
        output.sweep(Committed())


def test_markers_without_a_manifest_are_refused(output: Output, tmp_path: Path) -> None:
    commit(output, 0)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(OutputError, match=r"commits but no manifest\.json"):
        output.begin(Manifest(job="compress"))


def test_something_else_named_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(DamagedFileError, match=r"manifest\.json is damaged or was edited .*job.*use another folder"):
        Output(str(tmp_path)).manifest()


def test_check_same_names_all_that_differs(output: Output) -> None:
    stored = Manifest(job="compress", settings={"quality": 4, "coder": "static", "input": "/a"})
    check_same(stored, replace(stored, arguments=["--input", "/a"], code_version="9.9"), output=output)
    with pytest.raises(OutputError, match=r"coder was static, now adaptive; quality was 4, now 6\. .*--overwrite"):
        now = Manifest(job="compress", settings={"quality": 6, "coder": "adaptive", "input": "/a"})
        check_same(stored, now, output=output)
    with pytest.raises(OutputError, match="a compress job, this is a decompress job"):
        check_same(stored, Manifest(job="decompress"), output=output)


@pytest.mark.parametrize("uri", ["{}", "memory://{}"])
def test_whether_an_output_can_be_written_is_seen_by_writing(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Output(uri.format(tmp_path))
    output.check_writable()
    assert list(list_names(output.folder)) == []

    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(type(output.folder), "delete", refuse)
    output.check_writable()  # a store in which nothing is deleted will do
    monkeypatch.setattr(type(output.folder), "write", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(no\): use another --output"):
        output.check_writable()
