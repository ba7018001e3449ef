"""Damage of every kind is found, given back, and mended by the next compress run, which touches nothing else."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import compress_dataset, verify_dataset
from jobs.verify_dataset import VerifyDataset
from pipeline.console.exits import ExitCode
from pipeline.ledger.output import Output
from pipeline.provenance import code_version
from tests.datasets import commit_instead, pixels
from tests.inline import run_inline


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """Return a folder of eight images, one of them broken, and what they are compressed to: four shards."""
    root = tmp_path_factory.mktemp("verify")
    (root / "in").mkdir()
    for seed in range(7):
        Image.fromarray(pixels(20 + seed, 24, seed=seed)).save(root / "in" / f"{seed}.png")
    (root / "in" / "7.png").write_bytes(b"broken")
    with pytest.MonkeyPatch.context() as patch:
        run_inline(patch, compress_dataset, verify_dataset)
        assert compress(root, tiny_bundle) == ExitCode.DONE_WITH_QUARANTINED
    return root


@pytest.fixture
def root(undamaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run_inline(monkeypatch, compress_dataset, verify_dataset)
    shutil.copytree(undamaged / "ds", tmp_path / "ds")
    (tmp_path / "in").symlink_to(undamaged / "in")
    return tmp_path


def compress(root: Path, bundle: Path) -> int:
    given = ["--input", str((root / "in").resolve()), "--output", str(root / "ds"), "--bundle", str(bundle)]
    return compress_dataset.main([*given, "--coder", "adaptive", "--shard-size", "2"])


def verify(root: Path, bundle: Path, *arguments: str) -> int:
    return verify_dataset.main(["--input", str(root / "ds"), "--bundle", str(bundle), *arguments])


def found(root: Path) -> set[tuple[str, int | None, str | None]]:
    rows = pq.read_table(root / "ds" / "verify").to_pylist()
    return {(row["problem"], row["shard"], row["key"]) for row in rows}


def file_of(root: Path, shard: int, kind: str) -> Path:
    return root / "ds" / Output(str(root / "ds")).markers()[shard].files[kind].name


def swap(root: Path) -> set[Any]:
    shutil.copy(file_of(root, 0, "bitstreams"), file_of(root, 1, "bitstreams"))
    return {("wrong_hash", 1, None), ("wrong_keys", 1, None)}


def flip_metrics(root: Path) -> set[Any]:
    path = file_of(root, 1, "metrics")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\0\0\0\0\0\0\x10@", b"\0\0\0\0\0\0\x12@", 1))
    return {("wrong_hash", 1, None)}


def delete_bitstreams(root: Path) -> set[Any]:
    file_of(root, 1, "bitstreams").unlink()
    return {("missing_file", 1, None)}


def truncate(root: Path) -> set[Any]:
    path = file_of(root, 1, "bitstreams")
    path.write_bytes(path.read_bytes()[:-7])
    return {("wrong_size", 1, None), ("unreadable_file", 1, None)}


def truncate_marker(root: Path) -> set[Any]:
    path = root / "ds/commits/shard-000001.json"
    path.write_bytes(path.read_bytes()[:100])
    return {("damaged_marker", 1, None)}


def forget_a_file(root: Path) -> set[Any]:
    path = root / "ds/commits/shard-000001.json"
    marker = json.loads(path.read_bytes())
    del marker["files"]["metrics"]
    path.write_text(json.dumps(marker))
    return {("damaged_marker", 1, None)}


def flip_a_bitstream(root: Path) -> set[Any]:
    """Damage that was there when the file was hashed."""
    output = Output(str(root / "ds"))
    table = pq.read_table(file_of(root, 1, "bitstreams"))
    rows = table.to_pylist()
    rows[1]["bitstream"] = rows[1]["bitstream"][:-1] + bytes([rows[1]["bitstream"][-1] ^ 1])
    commit_instead(output, output.markers()[1], "bitstreams", table.from_pylist(rows, schema=table.schema))
    return {("bad_bitstream", 1, "3.png")}


def exchange_sizes(root: Path) -> set[Any]:
    output = Output(str(root / "ds"))
    table = pq.read_table(file_of(root, 1, "metrics"))
    rows = table.to_pylist()
    rows[0]["height"] += 1
    commit_instead(output, output.markers()[1], "metrics", table.from_pylist(rows, schema=table.schema))
    return {("wrong_metrics", 1, "2.png")}


DAMAGES: list[Callable[[Path], set[Any]]] = [
    swap,
    flip_metrics,
    delete_bitstreams,
    truncate,
    truncate_marker,
    forget_a_file,
    flip_a_bitstream,
    exchange_sizes,
]


def test_an_undamaged_dataset_has_no_problem(root: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (root / "ds").rglob("*") if path.is_file()}
    assert verify(root, tiny_bundle, "--repair") == ExitCode.DONE
    assert found(root) == set()
    shutil.rmtree(root / "ds/verify")
    assert {path: path.read_bytes() for path in (root / "ds").rglob("*") if path.is_file()} == before
    told = " ".join(capsys.readouterr().out.split())
    assert "verified 4 of 4 shards, 8 images" in told and "problems none" in told


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_given_back_and_mended(
    root: Path, undamaged: Path, tiny_bundle: Path, damage: Callable[[Path], set[Any]]
) -> None:
    names = {marker.shard: marker.attempt for marker in Output(str(root / "ds")).markers()}
    expected = damage(root)
    assert verify(root, tiny_bundle) == ExitCode.FAILED
    assert found(root) == expected
    assert verify(root, tiny_bundle, "--repair") == ExitCode.DONE_IN_PART
    assert found(root) == expected, "what an earlier run found is not there twice"
    assert Output(str(root / "ds")).committed() == {0, 2, 3}
    assert compress(root, tiny_bundle) == ExitCode.DONE_WITH_QUARANTINED
    assert verify(root, tiny_bundle) == ExitCode.DONE
    markers = Output(str(root / "ds")).markers()
    assert {marker.shard for marker in markers if marker.attempt != names[marker.shard]} == {1}
    for kind in ("metrics", "bitstreams"):
        assert len(list((root / "ds" / kind).iterdir())) == 4, "the damaged file is gone"
    assert file_of(root, 1, "bitstreams").read_bytes() == file_of(undamaged, 1, "bitstreams").read_bytes()


def test_the_command_that_is_told_after_a_repair_mends(
    root: Path,
    undamaged: Path,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """By another release, too: the schema decides."""
    monkeypatch.setattr("pipeline.provenance.version", lambda _: "9.9")
    code_version.cache_clear()
    request.addfinalizer(code_version.cache_clear)
    path = root / "ds" / "manifest.json"  # it names the folder that was copied
    path.write_text(path.read_text().replace(str(undamaged), str(root)))
    delete_bitstreams(root)
    assert verify(root, tiny_bundle, "--repair") == ExitCode.DONE_IN_PART
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[1].endswith("jobs/compress_dataset.py")
    assert compress_dataset.main(command[2:]) == ExitCode.DONE_WITH_QUARANTINED
    assert verify(root, tiny_bundle) == ExitCode.DONE
    assert pq.read_schema(file_of(root, 1, "metrics")).metadata[b"code_version"] == b"9.9"
    assert json.loads(path.read_text())["code_version"] != "9.9"


def test_all_retries_of_a_shard_are_given_back(root: Path, tiny_bundle: Path) -> None:
    output = Output(str(root / "ds"))
    marker = output.markers()[1]
    files = {kind: output.folder.read(file.name) for kind, file in marker.files.items()}
    retried = output.commit(1, files, marker.summary, retry=1)
    output.folder.delete(retried.files["metrics"].name)
    assert verify(root, tiny_bundle, "--repair") == ExitCode.DONE_IN_PART
    assert output.committed() == {0, 2, 3}
    assert compress(root, tiny_bundle) == ExitCode.DONE_WITH_QUARANTINED
    assert verify(root, tiny_bundle) == ExitCode.DONE


def test_a_damaged_plan_is_named_and_the_shards_are_verified(root: Path, tiny_bundle: Path) -> None:
    (plan,) = (root / "ds/plan").iterdir()
    plan.unlink()
    delete_bitstreams(root)
    assert verify(root, tiny_bundle, "--repair") == ExitCode.FAILED
    assert found(root) == {("damaged_plan", None, None), ("missing_file", 1, None)}
    assert Output(str(root / "ds")).committed() == {0, 2, 3}


def test_a_shard_that_the_plan_does_not_have(root: Path, tiny_bundle: Path) -> None:
    output = Output(str(root / "ds"))
    output.commit(9, {"metrics": b"", "bitstreams": b""}, output.markers()[0].summary)
    assert verify(root, tiny_bundle, "--repair") == ExitCode.DONE_IN_PART
    assert found(root) == {("damaged_marker", 9, None)}
    assert output.committed() == {0, 1, 2, 3}


def test_pixels_are_compared_with_the_originals(
    root: Path, undamaged: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(root, tiny_bundle, "--decode") == ExitCode.DONE
    assert "mean of 7 images that were compared with their originals" in capsys.readouterr().out
    shutil.copytree(undamaged / "in", root / "moved")
    Image.fromarray(pixels(22, 24, seed=99)).save(root / "moved" / "2.png")
    (root / "moved" / "3.png").unlink()
    arguments = ["--decode", "--originals", str(root / "moved"), "--repair"]
    assert verify(root, tiny_bundle, *arguments) == ExitCode.FAILED
    assert found(root) == {("wrong_pixels", 1, "2.png")}
    assert "mean of 5 images that were compared" in capsys.readouterr().out
    assert Output(str(root / "ds")).committed() == {0, 1, 2, 3}, "it is the original that is another"


def test_a_sample_of_the_shards(root: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(root, tiny_bundle, "--sample", "50%") == ExitCode.DONE
    assert "2 of 4 shards, 4 images" in capsys.readouterr().out
    assert verify(root, tiny_bundle, "--sample", "1%") == ExitCode.DONE
    assert "1 of 4 shards, 2 images" in capsys.readouterr().out
    with pytest.raises(ValueError, match="expected a share of the shards such as 1%"):
        VerifyDataset(input="x", sample="0%")
    with pytest.raises(ValueError, match="--originals is given without --decode"):
        VerifyDataset(input="x", originals="y")


def test_overwriting_deletes_what_was_found(root: Path, tiny_bundle: Path) -> None:
    delete_bitstreams(root)
    verify(root, tiny_bundle)
    (root / "ds/verify/notes.txt").write_text("somebody's")
    Output(str(root / "ds")).clear("compress")
    assert [path.name for path in (root / "ds").rglob("*") if path.is_file()] == ["notes.txt"]
