"""Originals that are smaller than their bitstreams, kept beside compressed photographs: the way of a mixed dataset."""

import itertools
import shutil
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageCms
from torch.utils.data import DataLoader

import pipeline
from bls.bitstream import BitstreamError
from bls.codec import Codec
from jobs import compress_dataset, decompress_dataset, query_metrics, recode_dataset, verify_dataset
from jobs.report import _compared
from pipeline import images as image_files
from pipeline.cluster.run import run_to_end
from pipeline.console.exits import ExitCode
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import ImageReader, reading_config
from pipeline.report import words
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.originals import Originals, Pairs
from pipeline.report.run import gather
from tests.datasets import commit_instead, pixels
from tests.inline import InlineCluster, run_inline

KEPT = ["badge.PNG", "checkers.png", "turned.webp"]
CODED = ["a.png", "b.png"]
KEYS = sorted([*KEPT, *CODED])
Job = Callable[..., int]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two photographs, two patterns of tiles, one with a transparent colour, and a WebP with EXIF and all."""
    folder = tmp_path_factory.mktemp("originals")
    Image.fromarray(pixels(40, 50, seed=0)).save(folder / "a.png")
    Image.fromarray(pixels(33, 20, seed=1, gray=True)).save(folder / "b.png")
    tiles = np.kron(np.indices((32, 40)).sum(0) % 2, np.ones((3, 3))).astype(bool)
    Image.fromarray(tiles).save(folder / "checkers.png")
    badge = Image.fromarray(tiles.T.astype(np.uint8), "P")
    badge.putpalette([200, 30, 0, 0, 60, 90])
    badge.save(folder / "badge.PNG", transparency=1)
    turned = Image.fromarray(pixels(80, 120, seed=2))
    turned.putalpha(Image.linear_gradient("L").resize(turned.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned.save(folder / "turned.webp", quality=0, alpha_quality=0, exif=exif, icc_profile=profile)
    return folder


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch, compress_dataset, decompress_dataset, recode_dataset, verify_dataset)


@pytest.fixture
def job(originals: Path, tiny_bundle: Path, tmp_path: Path) -> Job:
    """Return a function that runs a job from one folder below the test's to another; None stands for the originals."""

    def run(module: ModuleType, source: str | None, output: str | None, *arguments: str) -> int:
        given = ["--input", str(originals if source is None else tmp_path / source), "--bundle", str(tiny_bundle)]
        code: int = module.main([*given, *(["--output", str(tmp_path / output)] if output else []), *arguments])
        return code

    return run


@pytest.fixture
def dataset(job: Job, tmp_path: Path) -> str:
    assert job(compress_dataset, None, "ds", "--keep-smaller", "--shard-size", "2") == ExitCode.DONE
    return str(tmp_path / "ds")


def rows(output: Path | str, kind: str = "metrics") -> dict[str, dict[str, Any]]:
    folder = Path(output)
    files = (folder / marker.files[kind].name for marker in Output(str(folder)).markers())
    return {row["key"]: row for file in files for row in pq.read_table(file).to_pylist()}


def upright(originals: Path, key: str) -> image_files.SourceImage:
    return image_files.decode((originals / key).read_bytes(), max_pixels=2**20)


def damage(dataset: str, key: str) -> None:
    """Change a bit of a kept original, behind all hashes."""
    output = Output(dataset)
    for marker in output.markers():
        table = pq.read_table(Path(dataset) / marker.files["bitstreams"].name)
        stored = table.to_pylist()
        for row in stored:
            if row["key"] == key:
                row["original"] = row["original"][:-1] + bytes([row["original"][-1] ^ 1])
        commit_instead(output, marker, "bitstreams", pa.Table.from_pylist(stored, schema=table.schema))


def test_what_is_smaller_is_kept_and_told(
    job: Job, originals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "ds"
    assert job(compress_dataset, None, "ds", "--keep-smaller") == ExitCode.DONE
    shown = " ".join(capsys.readouterr().out.split())
    kept, stored = rows(dataset), rows(dataset, "bitstreams")
    num_bytes = sum((originals / key).stat().st_size for key in KEPT)
    assert "images 2 compressed, 3 kept, 0 quarantined" in shown
    assert f"kept 3 originals are stored, {num_bytes / 1000:.3g} kB: bitstreams would be larger" in shown

    assert {key for key, row in kept.items() if row["status"] == "kept"} == set(KEPT)
    for key in KEPT:
        row, data = kept[key], (originals / key).read_bytes()
        assert (row["num_bytes"], row["source_num_bytes"], row["beside_num_bytes"]) == (len(data), len(data), 0)
        assert (row["mse_255"], row["psnr_db"], row["estimated_bpp"], row["verified"]) == (0, None, None, None)
        assert row["bpp"] == row["source_bpp"] == 8 * len(data) / (row["width"] * row["height"])
        assert (stored[key]["original"], stored[key]["bitstream"], stored[key]["icc_profile"]) == (data, None, None)
    assert all(stored[key]["original"] is None and stored[key]["bitstream"] for key in CODED)
    assert (kept["turned.webp"]["width"], kept["turned.webp"]["height"]) == (80, 120), "upright"

    assert job(compress_dataset, None, "without") == ExitCode.DONE
    without = rows(tmp_path / "without")
    assert all(row["status"] == "ok" for row in without.values())
    more = sum(without[key]["num_bytes"] + without[key]["beside_num_bytes"] for key in KEPT) - num_bytes
    assert f"larger 3 images take more bytes than the source, {more / 1000:.3g} kB" in " ".join(
        capsys.readouterr().out.split()
    ), "it says what the option would save"
    assert job(compress_dataset, None, "without", "--keep-smaller") == ExitCode.WRONG_USAGE
    assert "keep_smaller" in capsys.readouterr().err


@pytest.mark.parametrize("container", ["files", "webdataset", "parquet"])
def test_it_is_restored_byte_for_byte(job: Job, originals: Path, dataset: str, tmp_path: Path, container: str) -> None:
    assert job(decompress_dataset, "ds", "back", "--format", "webp", "--container", container) == ExitCode.DONE
    found = rows(tmp_path / "back")
    assert {key: row["status"] for key, row in found.items()} == {
        **dict.fromkeys(CODED, "ok"),
        **dict.fromkeys(KEPT, "kept"),
    }
    assert [found[key]["path"] for key in KEYS] == ["a.webp", "b.webp", *KEPT]
    folder = tmp_path / "back" / "images"
    if container == "webdataset":
        for path in sorted(folder.iterdir()):
            shutil.unpack_archive(path, folder)
    if container == "parquet":
        values = [row["image"] for path in folder.iterdir() for row in pq.read_table(path).to_pylist()]
        restored = {value["path"]: value["bytes"] for value in values}
    else:
        restored = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".tar"}
    assert sorted(restored) == ["a.webp", "b.webp", *KEPT]
    assert all(restored[key] == (originals / key).read_bytes() for key in KEPT)
    assert (found["turned.webp"]["width"], found["turned.webp"]["height"]) == (80, 120)


def test_readers_decode_it_upright(originals: Path, dataset: str, tiny_bundle: Path) -> None:
    columns = ["key", "image", "width", "height", "thumbnail_8", "thumbnail_16", "exif", "icc_profile", "alpha_png"]
    images = pipeline.CompressedImages(dataset, columns=columns, bundle=str(tiny_bundle))
    samples = {sample["key"]: sample for sample in images}
    assert sorted(samples) == KEYS
    tables = ImageReader(reading_config(CompressedDataset(dataset), columns=columns, bundle=str(tiny_bundle)))
    for file in CompressedDataset(dataset).files(CompressedDataset(dataset).select()):
        for table, decoded in tables.read(file.file, file.rows):
            for number, row in enumerate(table.to_pylist()):
                sample = samples[row["key"]]
                assert all(np.array_equal(values[number], sample[name]) for name, values in decoded.items())
                assert row == {name: sample[name] for name in row}
    for key in KEPT:
        x, sample = upright(originals, key), samples[key]
        height, width = x.pixels.shape[:2]
        assert np.array_equal(sample["image"].squeeze(), x.pixels) and sample["image"].ndim == 3
        assert (sample["height"], sample["width"]) == (height, width)
        assert (sample["exif"], sample["icc_profile"], sample["alpha_png"]) == (x.exif, x.icc_profile, x.alpha_png)
        for scale in (8, 16):
            small = sample[f"thumbnail_{scale}"]
            assert small.shape == (-(-height // scale), -(-width // scale), sample["image"].shape[2])
            assert abs(small.mean() - x.pixels.mean()) < 8
    assert samples["turned.webp"]["alpha_png"] and samples["turned.webp"]["icc_profile"]
    assert np.array_equal(images["turned.webp"]["image"], samples["turned.webp"]["image"])
    columns, where = ["key", "width"], "status = 'kept'"
    only = pipeline.CompressedImages(dataset, columns=columns, where=where, bundle=str(tiny_bundle))
    assert [(each["key"], each["width"]) for each in only] == [(key, samples[key]["width"]) for key in KEPT]


def test_latents_are_those_of_bitstreams_alone(dataset: str, tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"3 originals .* have no latents: leave them out with where=\"status = 'ok'"):
        pipeline.CompressedImages(dataset, columns=["latents"], bundle=str(tiny_bundle))
    with pytest.raises(ValueError, match="1 originals"):
        pipeline.CompressedImages(dataset, columns=["latents"], keys=["a.png", KEPT[0]], bundle=str(tiny_bundle))
    columns, coded = ["key", "latents"], "status = 'ok'"
    images = pipeline.CompressedImages(dataset, columns=columns, where=coded, bundle=str(tiny_bundle))
    assert [sample["key"] for sample in images] == CODED


def test_the_training_device_gets_its_pixels(originals: Path, dataset: str, tiny_bundle: Path) -> None:
    images = pipeline.CompressedImages(dataset, columns=["key", "symbols"], bundle=str(tiny_bundle))
    whole = {sample["key"]: sample["image"] for sample in pipeline.CompressedImages(dataset, bundle=str(tiny_bundle))}
    seen: dict[str, torch.Tensor] = {}
    for batch_size in (3, 1):  # a batch of one is without any symbols, or without any kept original
        loader = DataLoader(images, batch_size=batch_size, collate_fn=pipeline.collate_symbols)
        for batch in map(pipeline.DeviceDecoder(images), loader):
            seen |= zip(batch["key"], batch["image"], strict=True)
        assert sorted(seen) == KEYS
        for key, image in seen.items():
            expected = np.broadcast_to(whole[key].transpose(2, 0, 1), image.shape)
            assert np.abs(image.numpy() - expected.astype(int)).max() <= (key in CODED)


def test_batches_of_others_decode_it(originals: Path, dataset: str, tiny_bundle: Path) -> None:
    decode = pipeline.DecompressImages(bundle=str(tiny_bundle))
    tables = [pq.read_table(path) for path in pipeline.bitstream_files(dataset)]
    batch = pa.concat_tables(tables).to_pydict()
    decoded = decode(batch)
    assert not {"bitstream", "original", "original_extension", "original_crc32"}.intersection(decoded)
    by_key = dict(zip(decoded["key"], decoded["image"], strict=True))
    assert sorted(by_key) == KEYS
    for key in KEPT:
        assert np.array_equal(by_key[key].squeeze(), upright(originals, key).pixels)
    with pytest.raises(ValueError, match="no original, original_extension, original_crc32: select these columns"):
        decode({"key": batch["key"], "bitstream": batch["bitstream"]})
    with pytest.raises(BitstreamError, match="neither a bitstream nor an original"):
        decode({**batch, "bitstream": [None] * 5})


def test_damage_is_found_everywhere(
    job: Job, dataset: str, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job(verify_dataset, "ds", None, "--decode") == ExitCode.DONE
    assert "mean of 2 images that were compared" in capsys.readouterr().out
    damage(dataset, "turned.webp")
    assert job(verify_dataset, "ds", None) == ExitCode.FAILED
    assert "1 bad_original e.g. turned.webp: checksum of the kept original" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(BitstreamError, match=r"image turned\.webp of .*checksum of the kept original"):
        list(pipeline.CompressedImages(dataset, bundle=str(tiny_bundle)))
    images = pipeline.CompressedImages(dataset, bundle=str(tiny_bundle), skip_corrupt=True)
    assert [sample["key"] for sample in images] == KEYS[:-1] and images.num_skipped == 1
    assert job(decompress_dataset, "ds", "back") == ExitCode.DONE_WITH_QUARANTINED
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE_WITH_QUARANTINED
    for output in ("back", "copy"):
        assert rows(tmp_path / output)["turned.webp"]["status"] == "corrupt"
    assert "turned.webp" not in rows(tmp_path / "copy", "bitstreams")

    assert job(verify_dataset, "ds", None, "--repair") == ExitCode.DONE_IN_PART
    assert job(compress_dataset, None, "ds", "--keep-smaller") == ExitCode.DONE
    assert job(verify_dataset, "ds", None) == ExitCode.DONE


def test_metrics_that_do_not_know_of_it_are_a_problem(
    job: Job, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Output(dataset)
    marker = output.markers()[-1]
    table = pq.read_table(Path(dataset) / marker.files["metrics"].name)
    changed = [{**row, "status": "ok"} for row in table.to_pylist()]
    commit_instead(output, marker, "metrics", pa.Table.from_pylist(changed, schema=table.schema))
    assert job(verify_dataset, "ds", None) == ExitCode.FAILED
    assert "wrong_metrics e.g. turned.webp: status is kept, the metrics have ok" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_copy_of_another_coder_has_it(job: Job, dataset: str, tmp_path: Path) -> None:
    assert job(recode_dataset, "ds", "copy", "--coder", "static") == ExitCode.DONE
    before, after = rows(dataset), rows(tmp_path / "copy")
    assert {key: row["coder"] for key, row in after.items()} == {
        **dict.fromkeys(CODED, "static"),
        **dict.fromkeys(KEPT, "mixed"),
    }
    for key in KEPT:
        assert {**after[key], **{name: before[key][name] for name in before[key] if name.endswith("_seconds")}} == (
            before[key]
        )
        assert rows(tmp_path / "copy", "bitstreams")[key] == rows(dataset, "bitstreams")[key]
    assert job(verify_dataset, "copy", None, "--decode") == ExitCode.DONE


def test_a_run_that_was_killed_or_is_appended_to_or_retried_keeps_the_same(
    job: Job, originals: Path, dataset: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = Path(shutil.copytree(originals, tmp_path / "some"))
    (some / "turned.webp").unlink()
    data = (some / "b.png").read_bytes()
    (some / "b.png").write_bytes(b"")

    def killed(self: InlineCluster, *work: Any) -> Generator[Marker, None, None]:
        yield from itertools.islice(InlineCluster.run(self, *work), 1)
        raise KeyboardInterrupt

    options = ["--keep-smaller", "--shard-size", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(compress_dataset, "run_to_end", partial(run_to_end, run=killed))
        assert job(compress_dataset, "some", "grown", *options) == ExitCode.FAILED
    assert job(compress_dataset, "some", "grown", *options) == ExitCode.DONE_WITH_QUARANTINED
    (some / "b.png").write_bytes(data)
    assert job(compress_dataset, "some", "grown", *options, "--retry-quarantined") == ExitCode.DONE
    shutil.copy(originals / "turned.webp", some)
    assert job(compress_dataset, "some", "grown", *options, "--append") == ExitCode.DONE
    stored = rows(tmp_path / "grown", "bitstreams")
    assert stored == rows(dataset, "bitstreams")
    assert {key for key, row in rows(tmp_path / "grown").items() if row["status"] == "kept"} == set(KEPT)


def test_queries_and_the_report_count_it_apart(
    dataset: str, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert query_metrics.main(["--input", dataset, "--format", "csv"]) == ExitCode.DONE
    assert [line.split(",")[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [["kept", "3"], ["ok", "2"]]
    assert query_metrics.main(["--input", dataset, "--failures", "--format", "csv"]) == ExitCode.DONE
    assert len(capsys.readouterr().out.splitlines()) <= 1
    assert query_metrics.main(["--input", dataset, "--by", "source_format", "--format", "csv"]) == ExitCode.DONE
    header, *lines = capsys.readouterr().out.splitlines()
    column = header.split(",").index("kept")
    assert {line.split(",")[0]: line.split(",")[column] for line in lines} == {"PNG": "2", "WEBP": "1"}

    compressed = CompressedDataset(dataset)
    run = gather(compressed)
    assert (run.num_good, run.total.num_kept, run.num_grown) == (5, 3, 0)
    facts = {name: value for name, value, _ in words.facts(run)}
    assert (facts["Images"], facts["Kept"]) == ("2", "3")
    sheet = contact_sheet(compressed, Codec.load(tiny_bundle), run.sample)
    assert sorted(each.row["key"] for each in sheet) == KEYS
    assert sorted(row["key"] for row in _compared(run, 5)) == CODED
    reading = reading_config(compressed, columns=["key", "image", "icc_profile"], bundle=str(tiny_bundle))
    sources = Originals(compressed, uri=None)
    sources.fetch(run.sample)
    pairs = Pairs(compressed, ImageReader(reading), sources)
    for row in run.sample:
        pair = pairs.pair(row)
        assert pair.x is not None and pair.x_hat is not None and not pair.trouble
        assert np.array_equal(pair.x, pair.x_hat) == (row["key"] in KEPT)
        assert bool(pair.icc_profile) == (row["key"] == "turned.webp")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--min-psnr-db", "90"], dict.fromkeys(KEPT)),
        (["--min-psnr-db", "90", "--raise-quality"], dict.fromkeys(KEPT)),
        (["--target-psnr-db", "90"], dict.fromkeys(KEPT, True)),
        (["--target-num-bytes", "800"], dict.fromkeys(KEPT[:2], True)),
        (["--target-num-bytes", "150"], {**dict.fromkeys(KEPT[:2], True), KEPT[2]: False}),
    ],
)
def test_an_original_meets_any_bound_of_quality(
    job: Job, tmp_path: Path, options: list[str], expected: dict[str, bool | None]
) -> None:
    """Where a file is larger than a target of size, a bitstream that meets it is stored."""
    job(compress_dataset, None, "bound", "--keep-smaller", *options)
    found = rows(tmp_path / "bound")
    assert {key: row["target_met"] for key, row in found.items() if row["status"] == "kept"} == expected
