"""The recode job with its one worker in this process: copies that are read as any, stopped, refused, retried."""

import io
import itertools
import shutil
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageCms

from bls.bundle import save_bundle
from jobs import compress_dataset, decompress_dataset, query_metrics, recode_dataset, verify_dataset
from pipeline.cluster.run import run_to_end
from pipeline.console.exits import ExitCode
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.read.dataset import CompressedDataset
from pipeline.read.torch_dataset import CompressedImages
from tests.bundles import small_network
from tests.compressed import compress
from tests.datasets import commit_instead, pixels
from tests.inline import InlineCluster, run_inline


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of five images, one with alpha, EXIF and an ICC profile, and a file that is not one."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(pixels(20, 30, seed=number)).save(folder / f"{number}.png")
    special = Image.fromarray(pixels(20, 30, seed=0))
    special.putalpha(Image.linear_gradient("L").resize((30, 20)))
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    special.save(folder / "0.png", exif=exif, icc_profile=profile)
    (folder / "5.png").write_bytes(b"broken")
    return folder


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch, compress_dataset, decompress_dataset, recode_dataset, verify_dataset)


@pytest.fixture
def job(tiny_bundle: Path, tmp_path: Path) -> Callable[..., int]:
    """Return a function that runs a job from one folder below the test's to another."""

    def run(module: Any, source: str, output: str | None, *arguments: str) -> int:
        folders = ["--input", str(tmp_path / source), *(["--output", str(tmp_path / output)] if output else [])]
        code: int = module.main([*folders, "--bundle", str(tiny_bundle), *arguments])
        return code

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_is_read_as_any_compressed_dataset(
    job: Callable[..., int], images: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(images, tmp_path / "ds", tiny_bundle, shard_size=2)
    before = contents(tmp_path / "ds")
    assert job(recode_dataset, "ds", "copy", "--coder", "mixed") == ExitCode.DONE_WITH_QUARANTINED
    shown = " ".join(capsys.readouterr().out.split())
    assert "images 5 recoded, 1 quarantined bitstreams, adaptive" in shown and "bitstreams, mixed" in shown
    assert contents(tmp_path / "ds") == before, "the input is only read"

    assert job(verify_dataset, "copy", None, "--decode") == ExitCode.DONE
    assert "mean of 5 images that were compared with their originals" in capsys.readouterr().out
    for name in ("ds", "copy"):
        assert job(decompress_dataset, name, f"{name}-restored") == ExitCode.DONE
    restored = contents(tmp_path / "copy-restored" / "images")
    assert restored == contents(tmp_path / "ds-restored" / "images") and len(restored) == 5
    with Image.open(io.BytesIO(restored["0.png"])) as special:
        assert special.mode == "RGBA" and special.getexif()[0x010F] == "Maker" and special.info["icc_profile"]
    assert query_metrics.main(["--input", str(tmp_path / "copy"), "SELECT DISTINCT coder FROM images"]) == ExitCode.DONE
    assert "mixed" in capsys.readouterr().out
    read = {x["key"]: x["image"] for x in CompressedImages(str(tmp_path / "copy"), bundle=str(tiny_bundle))}
    again = {x["key"]: x["image"] for x in CompressedImages(str(tmp_path / "ds"), bundle=str(tiny_bundle))}
    assert all(np.array_equal(read[key], again[key]) for key in again) and read.keys() == again.keys()


def test_a_stopped_run_goes_on_where_it_was_and_repeats_nothing(
    job: Callable[..., int], images: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(images, tmp_path / "ds", tiny_bundle, shard_size=2)

    def killed(self: InlineCluster, *work: Any) -> Generator[Marker, None, None]:
        yield from itertools.islice(InlineCluster.run(self, *work), 1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recode_dataset, "run_to_end", partial(run_to_end, run=killed))
        assert job(recode_dataset, "ds", "copy", "--coder", "mixed") == ExitCode.FAILED
    output = Output(str(tmp_path / "copy"))
    (first,) = output.markers()
    (tmp_path / "copy" / "bitstreams" / f"shard-000001.{'a' * 32}.parquet").write_bytes(b"left by a killed worker")
    assert job(recode_dataset, "ds", "copy", "--coder", "mixed") == ExitCode.DONE_WITH_QUARANTINED
    assert [marker.shard for marker in output.markers()] == [0, 1, 2] and output.markers()[0] == first
    assert len(list((tmp_path / "copy" / "bitstreams").iterdir())) == 3
    done = contents(tmp_path / "copy")
    assert job(recode_dataset, "ds", "copy", "--coder", "mixed") == ExitCode.DONE_WITH_QUARANTINED
    assert contents(tmp_path / "copy") == done


def test_of_an_unfinished_input_a_rerun_takes_the_rest(
    job: Callable[..., int], images: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(images, tmp_path / "ds", tiny_bundle, shard_size=2, num_shards=2)
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_IN_PART
    assert "not finished: 4 of 6 images are seen, 2 are left to its command" in capsys.readouterr().err
    assert CompressedDataset(str(tmp_path / "copy")).state().startswith("the recode job of")
    compress(images, tmp_path / "ds", tiny_bundle, shard_size=2)
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_WITH_QUARANTINED
    assert CompressedDataset(str(tmp_path / "copy")).state() == ""


def test_what_was_mended_in_the_input_comes_with_a_retry(
    job: Callable[..., int], images: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ("in", "ds", "--shard-size", "2")
    assert job(compress_dataset, *source) == ExitCode.DONE_WITH_QUARANTINED
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_WITH_QUARANTINED
    Image.fromarray(pixels(20, 30, seed=5)).save(images / "5.png")
    assert job(compress_dataset, *source, "--retry-quarantined") == ExitCode.DONE
    capsys.readouterr()
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_WITH_QUARANTINED
    assert "1 images are good in the metrics of" in capsys.readouterr().err
    assert job(recode_dataset, "ds", "copy", "--coder", "static", "--retry-quarantined") == ExitCode.DONE
    assert "are good in the metrics" not in capsys.readouterr().err
    assert [marker.retry for marker in Output(str(tmp_path / "copy")).markers()] == [0, 0, 1]


def test_damage_of_a_copy_is_mended_by_its_command(
    job: Callable[..., int], images: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(images, tmp_path / "ds", tiny_bundle, shard_size=2)
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_WITH_QUARANTINED
    (tmp_path / "copy" / Output(str(tmp_path / "copy")).markers()[1].files["bitstreams"].name).unlink()
    assert job(verify_dataset, "copy", None, "--repair") == ExitCode.DONE_IN_PART
    assert "recode_dataset.py --input" in capsys.readouterr().out.splitlines()[-1]
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_WITH_QUARANTINED
    assert job(verify_dataset, "copy", None) == ExitCode.DONE
    # Of an input that lost a shard meanwhile nothing is taken.
    Output(str(tmp_path / "ds")).give_back(0, 0)
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.WRONG_USAGE
    assert "1 shards in" in (told := capsys.readouterr().err) and "give the command that wrote the input first" in told


def test_all_but_the_shards_of_damaged_files_are_recoded(
    job: Callable[..., int], images: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(images, tmp_path / "ds", tiny_bundle, shard_size=2)
    (tmp_path / "ds" / Output(str(tmp_path / "ds")).markers()[0].files["metrics"].name).unlink()
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.FAILED
    assert "1 shard was left out for this, all others are done" in capsys.readouterr().err
    assert Output(str(tmp_path / "copy")).committed() == {1, 2}


def test_a_damaged_bitstream_is_quarantined_and_named_with_the_retry(
    job: Callable[..., int], images: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(images, tmp_path / "ds", tiny_bundle, shard_size=2)
    source = Output(str(tmp_path / "ds"))
    table = pq.read_table(tmp_path / "ds" / source.markers()[1].files["bitstreams"].name)
    rows = table.to_pylist()
    rows[0]["bitstream"] = rows[0]["bitstream"][:-1]
    commit_instead(source, source.markers()[1], "bitstreams", table.from_pylist(rows, schema=table.schema))
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_WITH_QUARANTINED
    told = capsys.readouterr()
    assert "1 corrupt" in told.out and "2.png: checksum" in told.out
    assert "1 images are good in the metrics of" in told.err


def test_what_does_not_fit_is_refused(
    job: Callable[..., int], images: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compress(images, tmp_path / "ds", tiny_bundle, shard_size=2)
    before = contents(tmp_path / "ds")
    save_bundle(tmp_path / "other", [small_network(4, num_filters=16, seed=1)])
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_WITH_QUARANTINED
    refused = {
        ("in", "new", "--coder", "mixed"): "is not a compressed dataset",
        ("ds", "new", "--coder", "adaptive"): "is coded with adaptive already: choose another --coder",
        ("ds", "ds/new", "--coder", "mixed"): "overlaps the input",
        ("ds", "copy", "--coder", "mixed"): "begun with other settings: coder was static, now mixed",
        ("ds", "new", "--coder", "mixed", "--bundle", str(tmp_path / "other")): "pass the bundle that compressed it",
    }
    for arguments, message in refused.items():
        assert job(recode_dataset, *arguments) == ExitCode.WRONG_USAGE, arguments
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists() and contents(tmp_path / "ds") == before
    for unknown in (["--coder", "huffman"], ["--coder", "mixed", "--gpus-per-worker", "1"]):
        with pytest.raises(SystemExit):
            job(recode_dataset, "ds", "new", *unknown)
    shutil.rmtree(tmp_path / "ds" / "plan")
    assert job(recode_dataset, "ds", "new", "--coder", "mixed") == ExitCode.FAILED
    assert "a file is missing" in capsys.readouterr().err
