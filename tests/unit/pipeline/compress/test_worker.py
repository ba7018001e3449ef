import io
import json
import tarfile
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.bitstream import parse_header
from bls.codec import Codec
from bls.measures.images import mse_255, psnr_db
from bls.targets import Target
from pipeline import images
from pipeline.compress.worker import CompressionConfig, ShardCompressor, is_sampled
from pipeline.decompress.worker import DecompressionConfig, ShardDecompressor, StoredImage
from pipeline.images import SourceImage
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import BITSTREAMS, METRICS, RESTORED
from pipeline.ledger.shard import Shard
from pipeline.sources.folder import FolderSource
from pipeline.sources.opening import open_source
from pipeline.sources.reference import ImageReference, Sample
from pipeline.storage.local import LocalFolder
from pipeline.work.codec import CodecSpec
from pipeline.work.threads import AHEAD_BYTES
from tests.datasets import commit_instead
from tests.hostile import tiff_that_claims
from tests.images import random_fields

QUALITY = 4
SIZES = [(48, 64), (161, 170), (48, 64), (1, 1), (33, 20), (64, 48)]


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    field = random_fields(1, max(height, width, 32), seed=seed)[0, :, :height, :width]
    return Image.fromarray((field * 255).round().byte().permute(1, 2, 0).numpy())


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Return a folder of colour images of several sizes, a gray one, and one with alpha, EXIF and orientation."""
    folder = tmp_path / "in"
    (folder / "a b").mkdir(parents=True)
    for index, (height, width) in enumerate(SIZES):
        photograph(height, width, index).save(folder / f"{index}.png")
    photograph(40, 50, 7).convert("L").save(folder / "a b" / "gray.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    special = photograph(40, 56, 8)
    special.putalpha(Image.linear_gradient("L").resize((56, 40)))
    special.save(folder / "a b" / "ünï.png", exif=exif)
    return folder


@pytest.fixture
def config(photographs: Path, tiny_bundle: Path, tmp_path: Path) -> CompressionConfig:
    return CompressionConfig(
        input=str(photographs),
        output=str(tmp_path / "out"),
        codec=CodecSpec.of(str(tiny_bundle), QUALITY, coder="adaptive", max_pixels=100_000),
    )


@pytest.fixture
def shard(photographs: Path) -> Shard:
    return Shard(5, tuple(open_source(str(photographs)).references()))


def rows_of(marker: Marker, config: CompressionConfig | DecompressionConfig, kind: str) -> list[dict[str, Any]]:
    return pq.read_table(f"{config.output}/{marker.files[kind].name}").to_pylist()  # type: ignore[no-any-return]


def restore(config: CompressionConfig, marker: Marker, output: Path, image_format: str = "png") -> Marker:
    items = tuple(
        StoredImage(marker.files["bitstreams"], row) for row in range(len(rows_of(marker, config, "bitstreams")))
    )
    return ShardDecompressor(decompression(config, output, image_format)).run(Shard(marker.shard, items))


def decompression(config: CompressionConfig, output: Path, image_format: str = "png") -> DecompressionConfig:
    return DecompressionConfig(
        input=config.output,
        output=str(output),
        image_format=image_format,
        codec=config.codec,
    )


@pytest.mark.parametrize("coder", ["adaptive", "mixed", "static"])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_shard_becomes_rows_in_the_order_of_its_items(
    config: CompressionConfig, shard: Shard, coder: str, num_threads: int
) -> None:
    config = replace(config, codec=replace(config.codec, coder=coder), num_threads=num_threads)
    marker = ShardCompressor(config).run(shard)
    metrics, bitstreams = rows_of(marker, config, "metrics"), rows_of(marker, config, "bitstreams")
    keys = [reference.key for reference in shard.items]
    assert [row["key"] for row in metrics] == [row["key"] for row in bitstreams] == keys
    assert [list(row) for row in metrics] == [METRICS.names] * len(keys)
    assert {row["status"] for row in metrics} == {"ok"}
    assert all(row["verified"] for row in metrics)
    assert {row["shard"] for row in metrics} == {5}
    assert {row["coder"] for row in metrics} == {coder}
    assert all(row[name] > 0 for row in metrics for name in METRICS.names if name.endswith("_seconds"))


@pytest.mark.parametrize("target", [None, Target("psnr_db", 24)])
def test_effort_loses_less_and_stands_in_the_metrics(
    config: CompressionConfig, shard: Shard, tiny_bundle: Path, target: Target | None
) -> None:
    """A target fixes the PSNR, so that its gain is in the bits."""
    few = replace(shard, items=shard.items[:3])
    losses = []
    for effort in (0, 2):
        spec = CodecSpec.of(str(tiny_bundle), None if target else QUALITY, effort=effort)
        compressor = ShardCompressor(replace(config, codec=spec, target=target, output=f"{config.output}-{effort}"))
        rows = compressor.measure(few)
        assert {(row["status"], row["effort"]) for row in rows} == {("ok", effort)}
        lmbda = 0.01 if target else rows[0]["lmbda"]
        losses.append(sum(lmbda * row["mse_255"] + row["bpp"] for row in rows))
    assert losses[1] < losses[0]


def test_metrics_are_those_of_what_the_decoder_shows(
    config: CompressionConfig, shard: Shard, photographs: Path
) -> None:
    marker = ShardCompressor(config).run(shard)
    codec = Codec.load(config.codec.bundle)
    for row, stored in zip(rows_of(marker, config, "metrics"), rows_of(marker, config, "bitstreams"), strict=True):
        x_hat = codec.decompress(stored["bitstream"])
        source = opened(photographs / row["key"])
        x = np.array(source.convert("L" if source.mode == "L" else "RGB"))
        if "ünï" in row["key"]:
            x = np.rot90(x, -1)  # orientation 6
        assert (row["height"], row["width"]) == x.shape[:2] == x_hat.shape[:2]
        mse = mse_255(x, x_hat)
        assert row["mse_255"] == pytest.approx(mse, rel=0.01)  # other batches may round some pixels differently
        assert row["psnr_db"] == (pytest.approx(psnr_db(mse), abs=0.05) if mse else None)
        assert row["num_bytes"] == len(stored["bitstream"])
        assert row["bpp"] == 8 * row["num_bytes"] / (row["height"] * row["width"])
        assert row["estimated_bpp"] > 0
        assert row["source_num_bytes"] == (photographs / row["key"]).stat().st_size
        assert (row["ms_ssim"] is None) == (min(x.shape[:2]) < 161)
        assert row["lmbda"] == codec.lmbda(QUALITY)
        assert row["model_fingerprint"] == codec.model_fingerprint(QUALITY).hex()


@pytest.mark.parametrize("target", [Target("psnr_db", 29), Target("ms_ssim", 0.97), Target("bpp", 1.0)])
def test_each_image_meets_its_target(config: CompressionConfig, shard: Shard, target: Target) -> None:
    config = replace(config, codec=CodecSpec.of(None, None, coder="adaptive"), target=target)
    marker = ShardCompressor(config).run(shard)
    codec = Codec.load()
    for row, stored in zip(rows_of(marker, config, "metrics"), rows_of(marker, config, "bitstreams"), strict=True):
        assert (row["status"], row["verified"], row["target"]) == ("ok", True, str(target))
        assert parse_header(stored["bitstream"]).quality_index == 256 * row["quality"]
        assert row["model_fingerprint"] == codec.model_fingerprint(row["quality"]).hex()
        if row[target.kind] is None:  # too small for an MS-SSIM
            assert (row["quality"], row["target_met"]) == (8, False)
        elif target.is_size:
            assert row["target_met"] == (row["bpp"] <= target.value) and (row["target_met"] or row["quality"] == 1)
        else:
            assert row["target_met"] == (row[target.kind] >= target.value) and (
                row["target_met"] or row["quality"] == 8
            )
    assert marker.summary.num_targets_missed < len(shard.items)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_ms_ssim_is_measured_of_a_sample(config: CompressionConfig, shard: Shard, share: float) -> None:
    keys = {row["key"] for row in rows_of(run(config, shard, share), config, "metrics") if row["ms_ssim"] is not None}
    assert keys == ({"1.png"} if share == 1 or is_sampled("1.png", share) else set())
    assert sum(is_sampled(str(number), share) for number in range(10_000)) == pytest.approx(10_000 * share, abs=200)


def run(config: CompressionConfig, shard: Shard, share: float) -> Marker:
    return ShardCompressor(replace(config, ms_ssim_share=share)).run(shard)


def test_images_that_come_out_too_bad_are_held_back(config: CompressionConfig, shard: Shard) -> None:
    first = {row["key"]: row["psnr_db"] for row in rows_of(ShardCompressor(config).run(shard), config, "metrics")}
    wanted = sorted(value for value in first.values() if value is not None)[2]
    held = replace(config, output=f"{config.output}-held", min_psnr_db=wanted)
    marker = ShardCompressor(held).run(shard)
    rows = {row["key"]: row for row in rows_of(marker, held, "metrics")}
    bad = {key for key, value in first.items() if value is not None and value < wanted}
    assert len(bad) == 2 and {key for key, row in rows.items() if row["status"] == "low_psnr"} == bad
    assert all(rows[key]["psnr_db"] == first[key] and "--min-psnr-db is" in rows[key]["error_message"] for key in bad)
    assert {row["key"] for row in rows_of(marker, held, "bitstreams")} == rows.keys() - bad
    assert marker.summary.quarantined == {"low_psnr": 2}


@pytest.mark.parametrize("is_reachable", [True, False])
def test_images_that_come_out_too_bad_get_a_higher_quality(
    config: CompressionConfig, shard: Shard, tiny_bundle: Path, is_reachable: bool
) -> None:
    low = replace(config, output=f"{config.output}-2", codec=CodecSpec.of(str(tiny_bundle), 2, coder="adaptive"))
    first, best = (
        {row["key"]: row for row in rows_of(ShardCompressor(each).run(shard), each, "metrics")}
        for each in (low, config)
    )
    measured = [key for key, row in first.items() if row["psnr_db"] is not None]
    gain, key = max((best[key]["psnr_db"] - first[key]["psnr_db"], key) for key in measured)
    wanted = first[key]["psnr_db"] + gain / 2 if is_reachable else 90.0
    every = CodecSpec.of(str(tiny_bundle), None, coder="adaptive")
    raised = replace(config, output=f"{config.output}-raised", codec=every, min_psnr_db=wanted, raised_from=2)
    marker = ShardCompressor(raised).run(shard)
    rows = {row["key"]: row for row in rows_of(marker, raised, "metrics")}
    for good in (key for key in measured if first[key]["psnr_db"] >= wanted):
        assert (rows[good]["quality"], rows[good]["target_met"]) == (2, None)
        assert rows[good]["num_bytes"] == first[good]["num_bytes"]
    assert (rows[key]["quality"], rows[key]["target_met"]) == (4, is_reachable)
    assert rows[key]["status"] == ("ok" if is_reachable else "low_psnr")
    assert rows[key]["psnr_db"] == best[key]["psnr_db"]
    stored = {row["key"]: row["bitstream"] for row in rows_of(marker, raised, "bitstreams")}
    assert stored.keys() == {key for key, row in rows.items() if row["status"] == "ok"}
    assert all(len(bitstream) == rows[key]["num_bytes"] for key, bitstream in stored.items())


def test_files_tell_how_they_were_made(config: CompressionConfig, shard: Shard) -> None:
    marker = ShardCompressor(config).run(shard)
    for kind in ("metrics", "bitstreams"):
        metadata = pq.read_schema(f"{config.output}/{marker.files[kind].name}").metadata
        assert json.loads(metadata[b"quality"]) == QUALITY
        assert metadata[b"model_fingerprint"].decode() == config.codec.model_fingerprint


def test_bad_inputs_become_rows_and_disturb_no_other(config: CompressionConfig, photographs: Path) -> None:
    whole = (photographs / "1.png").read_bytes()
    (photographs / "1.png").write_bytes(whole[: len(whole) // 2])
    (photographs / "2.png").write_bytes(b"text")
    (photographs / "4.png").write_bytes(b"")
    photograph(400, 300).save(photographs / "huge.png")
    (photographs / "link.png").symlink_to("nowhere")
    shard = Shard(0, tuple(open_source(str(photographs)).references()))
    marker = ShardCompressor(config).run(shard)
    rows = {row["key"]: row for row in rows_of(marker, config, "metrics")}
    assert {key: row["status"] for key, row in rows.items() if row["status"] != "ok"} == {
        "1.png": "truncated",
        "2.png": "not_an_image",
        "4.png": "empty",
        "huge.png": "too_large",
        "link.png": "unreadable",
    }
    assert len(rows) == len(shard.items)
    assert rows["link.png"]["error_class"] == "FileNotFoundError"
    assert (rows["huge.png"]["width"], rows["huge.png"]["height"]) == (300, 400)
    assert all(
        rows[key][name] is None for key in ("1.png", "4.png") for name in ("num_bytes", "bpp", "psnr_db", "verified")
    )
    stored = {row["key"] for row in rows_of(marker, config, "bitstreams")}
    assert stored == {key for key, row in rows.items() if row["status"] == "ok"}
    assert marker.summary.quarantined == {
        name: 1 for name in ("truncated", "not_an_image", "empty", "too_large", "unreadable")
    }


def test_a_header_with_numbers_that_no_column_holds_is_a_row(config: CompressionConfig, photographs: Path) -> None:
    (photographs / "huge.tif").write_bytes(tiff_that_claims(3_000_000_000))
    shard = Shard(0, tuple(open_source(str(photographs)).references()))
    rows = {row["key"]: row for row in rows_of(ShardCompressor(config).run(shard), config, "metrics")}
    huge = rows.pop("huge.tif")
    assert (huge["status"], huge["width"], huge["height"]) == ("too_large", None, 1)
    assert "3000000000 x 1 pixels" in huge["error_message"]
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_a_row_that_cannot_be_written_quarantines_its_image(
    config: CompressionConfig, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image has metadata that its column of the bitstreams cannot hold, another of the metrics."""
    decode = images.decode

    def decode_badly(data: bytes, *, max_pixels: int) -> SourceImage:
        image = decode(data, max_pixels=max_pixels)
        if image.pixels.shape[:2] == (161, 170):
            return replace(image, exif=7)  # type: ignore[arg-type]
        return replace(image, source_format="\udcff") if image.pixels.shape[:2] == (33, 20) else image

    monkeypatch.setattr("pipeline.images.decode", decode_badly)
    monkeypatch.setattr(SourceImage, "beside_num_bytes", 0)
    marker = ShardCompressor(config).run(shard)
    bad = {row["key"]: row for row in rows_of(marker, config, "metrics") if row["status"] != "ok"}
    assert {key: row["status"] for key, row in bad.items()} == {"1.png": "failed", "4.png": "failed"}
    assert "column source_format cannot hold its value" in bad["4.png"]["error_message"]
    assert bad["4.png"]["source_format"] is None
    assert marker.summary.quarantined == {"failed": 2}
    assert len(rows_of(marker, config, "bitstreams")) == len(shard.items) - 2


def test_crashed_items_are_quarantined_unseen(
    config: CompressionConfig, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressor = ShardCompressor(config)
    read = compressor._source.read
    seen: list[str] = []

    def read_and_note(reference: ImageReference) -> bytes:
        seen.append(reference.key)
        return read(reference)

    monkeypatch.setattr(compressor._source, "read", read_and_note)
    marker = compressor.run(shard, crashed=frozenset({2}))
    row = rows_of(marker, config, "metrics")[2]
    assert (row["status"], row["error_class"]) == ("crashed", "WorkerCrashError")
    assert shard.items[2].key not in seen
    assert len(seen) == len(shard.items) - 1


@pytest.mark.parametrize(
    ("stage", "status"), [("analyze", "failed"), ("encode", "failed"), ("decode", "corrupt"), ("synthesize", "failed")]
)
def test_a_stage_that_fails_for_one_image(
    config: CompressionConfig, shard: Shard, monkeypatch: pytest.MonkeyPatch, stage: str, status: str
) -> None:
    """One bitstream decodes to wrong symbols; one image makes another stage raise."""
    compressor = ShardCompressor(config)
    original = getattr(compressor._codec, stage)
    monkeypatch.setattr(compressor._codec, stage, FAILING[stage](original))
    rows = rows_of(compressor.run(shard), config, "metrics")
    assert [row["status"] for row in rows].count("ok") == len(rows) - 1
    (bad,) = [row for row in rows if row["status"] != "ok"]
    assert (bad["status"], bad["width"], bad["height"]) == (status, 170, 161)
    assert bad["verified"] == {"decode": False, "synthesize": True}.get(stage)


def _failing_analyze(original: Callable[..., Any]) -> Callable[..., Any]:
    def analyze(images: Sequence[Any], **options: Any) -> Any:
        if any(image.shape[1] == 170 for image in images):
            raise RuntimeError("out of memory")
        return original(images, **options)

    return analyze


def _failing_encode(original: Callable[..., Any]) -> Callable[..., Any]:
    def encode(symbols: Any, *, header: Any) -> Any:
        if header.width == 170:
            raise RuntimeError("cannot")
        return original(symbols, header=header)

    return encode


def _wrong_decode(original: Callable[..., Any]) -> Callable[..., Any]:
    def decode(data: bytes) -> Any:
        header, symbols = original(data)
        return header, symbols + (header.width == 170)

    return decode


def _failing_synthesize(original: Callable[..., Any]) -> Callable[..., Any]:
    def synthesize(decoded: Sequence[Any]) -> Any:
        if any(header.width == 170 for header, _ in decoded):
            raise RuntimeError("out of memory")
        return original(decoded)

    return synthesize


FAILING = {
    "analyze": _failing_analyze,
    "encode": _failing_encode,
    "decode": _wrong_decode,
    "synthesize": _failing_synthesize,
}


def test_a_committed_shard_is_not_done_again(config: CompressionConfig, shard: Shard, photographs: Path) -> None:
    compressor = ShardCompressor(config)
    marker = compressor.run(shard)
    (photographs / "0.png").unlink()
    assert compressor.run(shard) == marker


def test_a_probe_writes_nothing(config: CompressionConfig, shard: Shard) -> None:
    ShardCompressor(config).probe(shard)
    assert not Path(config.output).exists()


def test_runs_give_the_same_rows(config: CompressionConfig, shard: Shard, tmp_path: Path) -> None:
    other = replace(config, output=str(tmp_path / "other"), num_threads=4)
    first, second = ShardCompressor(config).run(shard), ShardCompressor(other).run(shard)
    assert rows_of(first, config, "bitstreams") == rows_of(second, other, "bitstreams")
    timeless = [name for name in METRICS.names if not name.endswith("_seconds")]
    for a, b in zip(rows_of(first, config, "metrics"), rows_of(second, other, "metrics"), strict=True):
        assert {name: a[name] for name in timeless} == {name: b[name] for name in timeless}


@pytest.mark.parametrize("image_format", ["png", "webp", "jpeg"])
def test_images_are_restored(config: CompressionConfig, shard: Shard, tmp_path: Path, image_format: str) -> None:
    compressed = ShardCompressor(config).run(shard)
    output = tmp_path / "restored"
    marker = restore(config, compressed, output, image_format)
    rows = rows_of(marker, decompression(config, output), "metrics")
    assert [list(row) for row in rows] == [RESTORED.names] * len(shard.items)
    assert [row["key"] for row in rows] == [reference.key for reference in shard.items]
    by_key = {row["key"]: row for row in rows}
    special = by_key.pop("a b/ünï.png")
    if image_format == "jpeg":
        assert (special["status"], special["error_message"]) == (
            "unsupported",
            "the image has an alpha plane, which JPEG cannot hold: use png or webp",
        )
    else:
        image = opened(output / "images" / special["path"])
        assert (image.mode, image.size) == ("RGBA", (40, 56))
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Maker"
        alpha = np.array(Image.linear_gradient("L").resize((56, 40)))
        assert np.array_equal(np.array(image)[..., 3], np.rot90(alpha, -1))
    gray = opened(output / "images" / by_key["a b/gray.png"]["path"])
    assert gray.mode == ("RGB" if image_format == "webp" else "L")  # WebP has no grayscale
    assert {row["status"] for row in by_key.values()} == {"ok"}
    for row in by_key.values():
        assert (output / "images" / row["path"]).stat().st_size == row["image_num_bytes"]
        assert row["path"] == row["key"].replace(".png", {"jpeg": ".jpg"}.get(image_format, f".{image_format}"))


def test_restored_pixels_are_those_that_the_metrics_tell_of(
    config: CompressionConfig, shard: Shard, photographs: Path, tmp_path: Path
) -> None:
    compressed = ShardCompressor(config).run(shard)
    restore(config, compressed, tmp_path / "restored")
    for row in rows_of(compressed, config, "metrics"):
        if not row["key"].startswith("a b/"):
            x, x_hat = (np.array(opened(root / row["key"])) for root in (photographs, tmp_path / "restored" / "images"))
            assert mse_255(x, x_hat) == pytest.approx(row["mse_255"], rel=0.002)  # 0.01 dB


def test_damaged_bitstreams_and_hostile_names_do_no_harm(
    config: CompressionConfig, shard: Shard, tmp_path: Path
) -> None:
    marker = ShardCompressor(config).run(shard)
    table = pq.read_table(Path(config.output) / marker.files["bitstreams"].name)
    rows = table.to_pylist()
    damaged = bytearray(rows[0]["bitstream"])
    damaged[9] ^= 1
    rows[0]["bitstream"] = bytes(damaged)
    rows[1]["stem"] = "../escaped"
    rows[2]["stem"] = "/tmp/escaped"
    rows[3]["stem"] = "x" * 300
    other = table.from_pylist(rows, schema=BITSTREAMS)
    marker = commit_instead(Output(config.output), marker, "bitstreams", other)
    output = tmp_path / "restored"
    statuses = [
        row["status"] for row in rows_of(restore(config, marker, output), decompression(config, output), "metrics")
    ]
    assert statuses[:4] == ["corrupt", "unsafe_name", "unsafe_name", "unwritable"]
    assert set(statuses[4:]) == {"ok"}
    assert not list(tmp_path.glob("**/escaped*"))


def test_an_output_that_cannot_be_written_is_no_image_s_fault(
    config: CompressionConfig, shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = ShardCompressor(config).run(shard)

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        restore(config, marker, tmp_path / "restored")
    assert Output(str(tmp_path / "restored")).committed() == set()


class Concurrency:
    """Counts how many threads are inside at a time; each waits there a little for others."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._condition = threading.Condition()
        self._num_inside = 0
        self.largest = 0

    def __enter__(self) -> None:
        with self._condition:
            self._num_inside += 1
            self.largest = max(self.largest, self._num_inside)
            self._condition.notify_all()
            self._condition.wait_for(lambda: self.largest >= self._wanted, timeout=1)

    def __exit__(self, *_: object) -> None:
        with self._condition:
            self._num_inside -= 1


def test_storage_is_asked_for_several_images_at_a_time(
    config: CompressionConfig, shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker of one thread must not wait for one answer after the other."""
    read, write = FolderSource.read_sample, LocalFolder.write
    reading, writing = Concurrency(4), Concurrency(4)

    def slow_read(self: FolderSource, reference: ImageReference) -> Sample:
        with reading:
            return read(self, reference)

    def slow_write(self: LocalFolder, name: str, data: bytes) -> None:
        with writing if name.endswith(".png") else nullcontext():
            write(self, name, data)

    compressor = ShardCompressor(config)
    compressor.run(replace(shard, index=0))  # it learns how large files are
    monkeypatch.setattr(FolderSource, "read_sample", slow_read)
    monkeypatch.setattr(LocalFolder, "write", slow_write)
    marker = compressor.run(shard)
    restore(config, marker, tmp_path / "restored")
    assert (reading.largest >= 4, writing.largest >= 4) == (True, True)


def test_large_files_are_not_fetched_many_at_a_time(
    config: CompressionConfig, shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Concurrency(3)

    def read_large(self: FolderSource, reference: ImageReference) -> Sample:
        with reading:
            return Sample(b"" if reference == shard.items[0] else bytes(AHEAD_BYTES // 2 + 1))

    monkeypatch.setattr(FolderSource, "read_sample", read_large)
    marker = ShardCompressor(config).run(replace(shard, items=shard.items[:5]))
    assert dict(marker.summary.quarantined) == {"empty": 1, "not_an_image": 4}
    assert reading.largest <= 2


def test_other_qualities_are_refused(config: CompressionConfig) -> None:
    with pytest.raises(ValueError, match=r"quality is 8, the bundle serves 2, 4"):
        ShardCompressor(replace(config, codec=replace(config.codec, quality=8)))


def test_a_codec_that_works_for_no_image_quarantines_none(
    config: CompressionConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def encode(*_: object, **__: object) -> bytes:
        raise ImportError("the compiler's cache is damaged")

    monkeypatch.setattr(Codec, "encode", encode)
    with pytest.raises(ImportError, match="cache is damaged"):
        ShardCompressor(config)
    with pytest.raises(ImportError, match="cache is damaged"):
        ShardDecompressor(decompression(config, tmp_path))


def test_a_model_that_is_not_the_job_s_is_refused(config: CompressionConfig, tmp_path: Path) -> None:
    """Of another node, or replaced while the job runs."""
    other = replace(config, codec=replace(config.codec, model_fingerprint="0123456789abcdef"))
    with pytest.raises(ValueError, match="the job began with 0123456789abcdef"):
        ShardCompressor(other)
    with pytest.raises(ValueError, match="the job began with 0123456789abcdef"):
        ShardDecompressor(decompression(other, tmp_path))


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def test_what_is_beside_an_image_is_carried(config: CompressionConfig, tmp_path: Path) -> None:
    images = [encoded(photograph(20, 30, seed)) for seed in range(3)]
    content = pa.table(
        {
            "image": [images[0], None, images[1], b"text", images[2]],
            "when": pa.array([7, 8, 9, 10, None], pa.timestamp("ns")),
            "words": [["a"], [], None, [], ["b", "c"]],
        }
    )
    pq.write_table(content, tmp_path / "x.parquet", row_group_size=2)
    source = open_source(str(tmp_path / "x.parquet"))
    shard = Shard(0, tuple(source.references()))
    config = replace(config, input=str(source), carried=source.carried, num_threads=2)
    marker = ShardCompressor(config).run(shard)
    assert [row["status"] for row in rows_of(marker, config, "metrics")] == [
        "ok",
        "no_image",
        "ok",
        "not_an_image",
        "ok",
    ]
    stored = pq.read_table(f"{config.output}/{marker.files['bitstreams'].name}")
    assert stored.column_names == [*BITSTREAMS.names, "carried"]
    carried = stored.column("carried").combine_chunks()
    assert carried.field("when").equals(pa.array([7, 9, None], pa.timestamp("ns")))
    assert carried.field("words").to_pylist() == [["a"], None, ["b", "c"]]
    names = pq.read_schema(f"{config.output}/{marker.files['metrics'].name}").names
    assert names == METRICS.names


def test_sizes_count_all_that_is_stored_and_the_rate_counts_bitstreams(
    config: CompressionConfig, tmp_path: Path
) -> None:
    """A mask beside each image is most of the input and of the output; it is not compressed."""
    pngs, mask = [encoded(photograph(64, 64, seed)) for seed in range(3)], np.random.default_rng(0).bytes(100_000)
    content = {"image": pngs, "mask": [{"bytes": mask, "path": None}] * 2 + [None], "label": [1, 2, 3]}
    pq.write_table(pa.table(content), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    shard = Shard(0, tuple(source.references()))
    config = replace(config, input=str(source), carried=source.carried)
    marker = ShardCompressor(config).run(shard)
    rows = rows_of(marker, config, "metrics")
    masks = [100_000, 100_000, 0]
    assert all(0 <= row["carried_num_bytes"] - size < 64 for row, size in zip(rows, masks, strict=True))
    summary, carried = marker.summary, sum(row["carried_num_bytes"] for row in rows)
    assert summary.num_bytes_in == sum(map(len, pngs)) + carried
    assert summary.num_bytes_out == sum(row["num_bytes"] for row in rows) + carried
    assert summary.total_bpp == 8 * sum(row["num_bytes"] for row in rows) / (3 * 64 * 64)
    stored = marker.files["bitstreams"].num_bytes
    assert stored == pytest.approx(summary.num_bytes_out, rel=0.05), "but for what Parquet adds and saves"


def test_members_of_a_sample_are_carried(config: CompressionConfig, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, data in (("a.png", encoded(photograph(20, 30))), ("a.txt", b"words"), ("a.seg.png", b"\x89")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    source = open_source(str(tmp_path / "x.tar"))
    shard = Shard(0, tuple(source.references()))
    config = replace(config, input=str(source), carried=source.carried)
    (stored,) = rows_of(ShardCompressor(config).run(shard), config, "bitstreams")
    assert (stored["key"], dict(stored["carried"])) == ("x/a", {"txt": b"words", "seg.png": b"\x89"})


def test_folders_carry_nothing(config: CompressionConfig, shard: Shard) -> None:
    assert list(rows_of(ShardCompressor(config).run(shard), config, "bitstreams")[0]) == BITSTREAMS.names


def test_images_of_one_pixel_across(config: CompressionConfig, photographs: Path) -> None:
    sizes = {"wide ü.png": (1, 65_535), "high.png": (65_535, 1), "one.png": (1, 1)}
    folder = photographs / "thin"
    folder.mkdir()
    for name, (height, width) in sizes.items():
        Image.fromarray(np.full((height, width), 90, np.uint8)).save(folder / name)
    config = replace(config, input=str(folder))
    shard = Shard(0, tuple(open_source(str(folder)).references()))
    marker = ShardCompressor(config).run(shard)
    rows = rows_of(marker, config, "metrics")
    assert {row["key"]: (row["height"], row["width"]) for row in rows} == sizes
    assert {row["status"] for row in rows} == {"ok"}
    codec = Codec.load(config.codec.bundle)
    for stored in rows_of(marker, config, "bitstreams"):
        assert codec.decompress(stored["bitstream"]).shape == sizes[stored["key"]]
