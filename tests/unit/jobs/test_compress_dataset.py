"""The compress and decompress jobs with their one worker in this process, where a cluster would be."""

import errno
import os
import re
import shlex
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.bundle import load_bundle, save_bundle
from jobs import compress_dataset, decompress_dataset
from jobs.options import InputOptions
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.run import Result
from pipeline.console.text import num_bytes_text
from pipeline.ledger.output import Output
from pipeline.ledger.schema import SCHEMA_VERSION, STORED_SIZES
from pipeline.ledger.summary import Summary
from pipeline.storage.local import LocalFolder
from tests.bundles import small_network
from tests.faulty_disk import DeathError
from tests.images import random_fields
from tests.inline import InlineCluster, run_inline


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch, compress_dataset, decompress_dataset)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Return a folder of six images of different sizes: one is not there yet, one is a text."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, pixels in enumerate((random_fields(6, 64, seed=3) * 255).round().byte()):
        image = Image.fromarray(pixels[:, : 16 * index // 2 + 16, :40].permute(1, 2, 0).numpy())
        image.save((tmp_path if index == 1 else folder) / f"{index}.png")
    (folder / "1.png").symlink_to(tmp_path / "mended.png")
    (folder / "4.png").write_text("no image")
    return folder


@pytest.fixture
def compress(photographs: Path, tiny_bundle: Path, tmp_path: Path) -> Callable[..., int]:
    def compress(*arguments: object, output: str = "out") -> int:
        options = {"--input": photographs, "--output": tmp_path / output, "--bundle": tiny_bundle, "--shard-size": 2}
        given = dict(pairwise(arguments))
        kept = [text for name, value in options.items() if name not in given for text in (name, str(value))]
        return compress_dataset.main([*kept, *map(str, arguments)])

    return compress


def rows(output: Path, kind: str = "metrics") -> list[dict[str, Any]]:
    markers = Output(str(output)).markers()
    return pa.concat_tables([pq.read_table(output / marker.files[kind].name) for marker in markers]).to_pylist()  # type: ignore[no-any-return]


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_retry_brings_back_what_was_mended_and_keeps_the_rest(
    compress: Callable[..., int], photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress() == 3
    first = rows(tmp_path / "out")
    assert [row["status"] for row in first] == ["ok", "unreadable", "ok", "ok", "not_an_image", "ok"]

    shutil.copy(tmp_path / "1.png", tmp_path / "mended.png")
    good = (photographs / "0.png").read_bytes()
    (photographs / "0.png").write_bytes(b"lost in the meantime")
    assert compress() == 3 and rows(tmp_path / "out") == first
    capsys.readouterr()
    assert compress("--retry-quarantined") == 3
    assert "2 shards are done again, 2 of their images were quarantined" in capsys.readouterr().err
    second = rows(tmp_path / "out")
    assert [row["status"] for row in second] == ["ok", "ok", "ok", "ok", "not_an_image", "ok"]
    assert [row for row in second if row["key"] not in ("1.png", "4.png")] == [
        row for row in first if row["key"] not in ("1.png", "4.png")
    ]
    files = [path for path in (tmp_path / "out" / "metrics").iterdir()]
    assert sorted(pa.concat_tables(map(pq.read_table, files))["key"].to_pylist()) == [f"{n}.png" for n in range(6)]

    (photographs / "0.png").write_bytes(good)
    assert compress(output="undisturbed") == 3
    assert timeless(second) == timeless(rows(tmp_path / "undisturbed"))
    assert rows(tmp_path / "out", "bitstreams") == rows(tmp_path / "undisturbed", "bitstreams")


def test_names_that_are_not_utf8_are_compressed_and_told(
    compress: Callable[..., int],
    photographs: Path,
    tmp_path: Path,
    tiny_bundle: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Of the image, and of the folders of input and output."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/in\xff"))
    folder.mkdir()
    shutil.copy(photographs / "0.png", folder / os.fsdecode(b"caf\xe9.png"))
    output = folder / os.fsdecode(b"../out\xff")
    for _ in range(2):  # the second run reads what the first one wrote
        assert compress("--input", folder, "--output", output) == 0
    assert "1 compressed" in capfd.readouterr().out
    options = ["--input", str(output), "--output", str(tmp_path / "restored"), "--bundle", str(tiny_bundle)]
    assert decompress_dataset.main(options) == 0
    assert [path.name for path in (tmp_path / "restored" / "images").iterdir()] == ["caf\\xe9.png"]


@pytest.mark.parametrize("secret", ["SECRET", "SEC/RET"])
def test_no_secret_of_a_uri_is_printed(
    compress: Callable[..., int], secret: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client takes user and password for a part of the bucket's name, and quotes it."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    uri = f"s3://KEY:{secret}@bucket/photos"
    for options in (["--input", uri], ["--output", uri], ["--input", uri, "--log-json"]):
        assert compress(*options) in (1, 2)
        told = "".join(capfd.readouterr())
        assert "ucket name" in told
        assert not any(part in told for part in (secret, "KEY", "SEC", "RET"))


@pytest.mark.parametrize("then", [(), ("--retry-quarantined",)])
def test_a_retry_that_is_killed_leaves_the_old_state(
    compress: Callable[..., int], tmp_path: Path, then: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its worst moment: its files are written, its marker is not."""
    compress()
    first = rows(tmp_path / "out")
    shutil.copy(tmp_path / "1.png", tmp_path / "mended.png")

    def die(*_: object) -> None:
        raise DeathError

    with monkeypatch.context() as patch:
        patch.setattr(Output, "_create_marker", die)
        with pytest.raises(DeathError):
            compress("--retry-quarantined")
    assert rows(tmp_path / "out") == first
    assert len(list((tmp_path / "out" / "metrics").iterdir())) == 4

    compress(*then)
    assert [row["status"] for row in rows(tmp_path / "out")].count("ok") == (5 if then else 4)
    assert len(list((tmp_path / "out" / "metrics").iterdir())) == 3
    compress("--retry-quarantined")
    assert [row["status"] for row in rows(tmp_path / "out")].count("ok") == 5


def test_restored_images_follow_a_retry(
    compress: Callable[..., int], tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def decompress(*arguments: str) -> set[str]:
        options = ["--input", str(tmp_path / "out"), "--output", str(tmp_path / "restored")]
        assert decompress_dataset.main([*options, "--bundle", str(tiny_bundle), *arguments]) == 0
        keys = [row["key"] for row in rows(tmp_path / "restored")]
        assert len(keys) == len(set(keys))
        assert {path.name for path in (tmp_path / "restored" / "images").iterdir()} == set(keys)
        return set(keys)

    compress()
    assert decompress() == {"0.png", "2.png", "3.png", "5.png"}
    shutil.copy(tmp_path / "1.png", tmp_path / "mended.png")
    compress("--retry-quarantined")
    assert decompress() == {"0.png", "1.png", "2.png", "3.png", "5.png"}
    capsys.readouterr()
    decompress("--retry-quarantined")
    assert "nothing was left to do" in capsys.readouterr().out


def test_too_many_failures_of_a_retry_stop_it(
    compress: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress("--max-failures", 1) == 1
    assert "2 images are quarantined (1 not_an_image, 1 unreadable), --max-failures is 1" in capsys.readouterr().err
    assert compress("--max-failures", 0, "--retry-quarantined") == 1
    assert "1 images are quarantined (1 unreadable), --max-failures is 0" in capsys.readouterr().err
    shutil.copy(tmp_path / "1.png", tmp_path / "mended.png")
    assert compress("--max-failures", 1, "--retry-quarantined") == 3
    assert len(rows(tmp_path / "out")) == 6


def test_a_dry_run_writes_nothing_and_tells_what_it_would_take(
    compress: Callable[..., int], photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress("--dry-run") == 0
    assert not (tmp_path / "out").exists()
    told = capsys.readouterr().out
    assert compress() == 3
    measured = [row for row in rows(tmp_path / "out") if row["status"] == "ok"]
    facts = {name: value for name, value in re.findall(r"^  (\w+)  +(.*)$", told, re.MULTILINE)}
    assert facts["images"] == "6, 0 of them compressed already"
    assert facts["shards"] == "3 of 2 images"
    stored = sum(row[column] or 0 for row in measured for column in STORED_SIZES)
    assert facts["stored"] == f"{num_bytes_text(stored)} ± 0 B"
    num_pixels = sum(row["width"] * row["height"] for row in measured)
    assert facts["bpp"].startswith(f"{8 * sum(row['num_bytes'] for row in measured) / num_pixels:.3f} (all bits")
    assert facts["sample"] == "6 of 6 images at random, 2 of them quarantined"
    *_, command = told.strip().splitlines()
    arguments = shlex.split(command)
    assert "--dry-run" not in arguments and arguments[-2:] == ["--shard-size", "2"]

    before = snapshot(tmp_path / "out")
    capsys.readouterr()
    assert compress("--dry-run") == 0
    assert "6, 6 of them compressed already" in capsys.readouterr().out
    assert snapshot(tmp_path / "out") == before
    assert compress("--dry-run", "--quality", 2) == 2


def test_the_summary_tells_how_many_images_became_larger(
    compress: Callable[..., int], photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress() == 3
    assert "larger" not in capsys.readouterr().out
    stripes = np.arange(64 * 64).reshape(64, 64) % 2 == 0
    Image.fromarray(stripes).save(photographs / "stripes.png")
    assert compress("--append") == 0
    (row,) = (row for row in rows(tmp_path / "out") if row["key"] == "stripes.png")
    more = row["num_bytes"] + row["beside_num_bytes"] - row["source_num_bytes"]
    told = f"1 image takes more bytes than the source, {num_bytes_text(more)} in all"
    assert more > 0 and told in capsys.readouterr().out


def test_a_bundle_that_gained_a_model_is_the_same_to_an_output(
    compress: Callable[..., int], tiny_bundle: Path, tmp_path: Path
) -> None:
    compress()
    before = snapshot(tmp_path / "out")
    save_bundle(tmp_path / "grown", [*load_bundle(tiny_bundle).networks, small_network(6)])
    assert compress("--bundle", tmp_path / "grown") == 3  # as before: one image is no image
    assert snapshot(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["inputs", "bundle", "quality", "schema"])
def test_an_output_that_was_begun_otherwise_is_refused(
    compress: Callable[..., int],
    photographs: Path,
    tmp_path: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compress()
    before = snapshot(tmp_path / "out")
    capsys.readouterr()
    arguments: tuple[object, ...] = ()
    if change == "inputs":
        shutil.copy(photographs / "0.png", photographs / "new.png")
    elif change == "bundle":
        save_bundle(tmp_path / "other", [small_network(4, num_filters=16, seed=9)])
        arguments = ("--bundle", tmp_path / "other")
    elif change == "quality":
        arguments = ("--quality", 2)
    else:
        monkeypatch.setattr("pipeline.compress.settings.SCHEMA_VERSION", 99)
    assert compress(*arguments) == 2
    message = capsys.readouterr().err
    expected = {
        "inputs": "6 then, 7 now",
        "bundle": "model_fingerprint was ",
        "quality": "quality was 4, now 2",
        "schema": f"schema_version was {SCHEMA_VERSION}, now 99",
    }
    assert expected[change] in message
    assert "Use another --output, or --overwrite to delete what is there" in message
    assert snapshot(tmp_path / "out") == before


def test_a_target_is_met_or_its_row_says_that_it_is_not(
    compress: Callable[..., int], tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle has two qualities, so that some images miss the target and others take the better one."""
    for quality in (2, 4):
        compress("--quality", quality, output=f"out-{quality}")
    low, high = (
        {row["key"]: row["num_bytes"] for row in rows(tmp_path / f"out-{quality}") if row["status"] == "ok"}
        for quality in (2, 4)
    )
    bound = sorted([*low.values(), *high.values()])[len(low)]
    capsys.readouterr()
    assert compress("--target-num-bytes", bound) == 3
    summary = capsys.readouterr().out
    assert f"num_bytes <= {bound}" in summary
    made = rows(tmp_path / "out")
    assert {row["target"] for row in made} == {f"num_bytes <= {bound}"}
    good = [row for row in made if row["status"] == "ok"]
    for row in good:
        best = high if high[row["key"]] <= bound else low
        assert (row["num_bytes"], row["quality"]) == (best[row["key"]], 4 if best is high else 2)
        assert row["target_met"] == (best[row["key"]] <= bound) and row["verified"]
    assert len({(row["quality"], row["target_met"]) for row in good}) > 1
    assert all(row["quality"] is row["target_met"] is None for row in made if row["status"] != "ok")
    missed = sum(not row["target_met"] for row in good)
    assert f"{len(good) - missed} images meet it, {missed} do not" in summary

    assert compress("--target-num-bytes", bound + 1) == 2
    assert f"target was num_bytes <= {bound}, now num_bytes <= {bound + 1}" in capsys.readouterr().err
    assert compress() == 2 and "quality was None, now 4" in capsys.readouterr().err
    arguments = ["--input", tmp_path / "out", "--output", tmp_path / "restored", "--bundle", tiny_bundle]
    assert decompress_dataset.main(list(map(str, arguments))) == 0
    assert len(list((tmp_path / "restored" / "images").iterdir())) == len(good)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quality", 0.99], "quality is 0.99, expected a number from 1 to 8"),
        (["--quality", 8.01], "quality is 8.01, expected"),
        (["--quality", "nan"], "quality is nan, expected"),
        (["--quality", 4, "--target-bpp", 1], "--quality and --target-bpp are given: give one of them"),
        (["--target-psnr-db", 34, "--target-ms-ssim", 0.9], "--target-psnr-db and --target-ms-ssim are given"),
        (["--target-num-bytes", 0], "target num_bytes is 0, expected a number above 0"),
        (["--target-ms-ssim", 1], "target ms_ssim is 1, expected a number above 0 and below 1"),
        (["--max-total-bytes", "0"], "--max-total-bytes is 0, expected a size above 0 such as 2TB"),
        (["--max-total-bytes", "lots"], "--max-total-bytes is lots, expected a size above 0"),
        (["--max-total-bytes", "1MB", "--quality", 3], "--quality and --max-total-bytes are given"),
        (["--target-psnr-db", "nan"], "target psnr_db is nan, expected"),
        (["--effort", 9], "effort is 9, expected a whole number from 0 (fastest) to 3 (smallest)"),
        (["--effort", -1], "effort is -1, expected"),
        (["--raise-quality"], "--raise-quality needs --min-psnr-db, and one quality for all images"),
        (["--raise-quality", "--min-psnr-db", 30, "--target-bpp", 1], "--raise-quality needs --min-psnr-db, and one"),
    ],
)
def test_a_wrong_goal_is_refused(
    compress: Callable[..., int], arguments: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = compress(*arguments)
    except SystemExit as end:  # of tyro
        code = end.code
    assert code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(("ms_ssim", "share"), [("all", 1.0), ("none", 0.0), ("12.5%", 0.125), ("100%", 1.0)])
def test_a_share_of_the_images_is_chosen(ms_ssim: str, share: float) -> None:
    config = compress_dataset.CompressDataset(InputOptions("in"), output="out", ms_ssim=ms_ssim)
    assert config.ms_ssim_share == share


@pytest.mark.parametrize("ms_ssim", ["10", "-1%", "101%", "some"])
def test_other_shares_are_refused(ms_ssim: str) -> None:
    with pytest.raises(ValueError, match=f"--ms-ssim is {ms_ssim}, expected all, none, or a share such as 10%"):
        compress_dataset.CompressDataset(InputOptions("in"), output="out", ms_ssim=ms_ssim)


def test_nothing_left_needs_no_gpu(compress: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert compress() == 3
    monkeypatch.setattr(compress_dataset, "Cluster", Cluster)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    assert compress("--gpus-per-worker", "1") == 3


def test_an_output_that_cannot_be_written_is_told_before_ray_starts(
    compress: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(folder: LocalFolder, name: str, data: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"{folder}/{name}")

    monkeypatch.setattr(LocalFolder, "write", write)
    monkeypatch.setattr(InlineCluster, "connect", lambda _: pytest.fail("Ray was started"))
    assert compress() == 2
    assert re.search(r"out cannot be written \(.*Permission denied.*\): use another --output", capsys.readouterr().err)


def test_printed_commands_hold_no_credentials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compress_dataset.CompressDataset(
        InputOptions("in"), output=str(tmp_path), bundle="s3://AKEY:SECRET@bucket/b"
    )
    compress_dataset._print_result(config, Output(str(tmp_path)), Result(Summary(), Summary(), 1.0))
    printed = capsys.readouterr().out
    assert "s3://bucket/b" in printed and "SECRET" not in printed
