"""The worker of an evaluation, without Ray."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bls.bundle import load_bundle
from bls.codec import Codec
from bls.entropy.coders import CODERS
from bls.measures import images as measures
from pipeline.baselines import BASELINES
from pipeline.evaluate.coding import our_name
from pipeline.evaluate.worker import EvaluationConfig, ShardEvaluator, read_rows, summarize
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.sources.opening import open_source
from tests.hostile import tiff_that_claims
from tests.images import random_fields


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a colour, a grayscale and a broken image."""
    folder = tmp_path_factory.mktemp("photographs")
    fields = (random_fields(2, 96, seed=1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    Image.fromarray(fields[0, :70]).save(folder / "a.png")
    Image.fromarray(fields[1, :, :, 0]).save(folder / "b.png")
    (folder / "c.png").write_text("no image")
    return folder


@pytest.fixture
def config(folder: Path, tiny_bundle: Path, tmp_path: Path) -> EvaluationConfig:
    return EvaluationConfig(
        input=str(folder),
        output=str(tmp_path / "out"),
        qualities=(2, 4),
        codecs=("jpeg-420", "jpeg2000"),
        bundle=str(tiny_bundle),
        bundle_fingerprint=load_bundle(tiny_bundle).fingerprint.hex(),
        max_pixels=10**6,
    )


def evaluate(config: EvaluationConfig, *, crashed: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    output = Output(config.output)
    output.begin(Manifest(job="evaluate", plans=(Plan("1" * 32),)))
    shard = Shard(0, tuple(open_source(config.input).references()))
    worker = ShardEvaluator(config)
    marker = worker.run(shard, crashed=crashed)
    assert marker.summary.num_images == 3 and output.committed() == {0}
    assert worker.run(shard) == marker  # what is committed stands
    rows: list[dict[str, Any]] = read_rows(output).to_pylist()
    return rows


def test_every_image_is_coded_by_every_codec_at_every_setting(config: EvaluationConfig, folder: Path) -> None:
    rows = evaluate(config)
    settings: list[tuple[str, float]] = [(our_name(coder), quality) for quality in (2, 4) for coder in CODERS]
    settings += [(codec, setting) for codec in config.codecs for setting in BASELINES[codec].settings]
    for key in ("a.png", "b.png"):
        assert [(row["codec"], row["quality"]) for row in rows if row["key"] == key] == settings
    assert {row["status"] for row in rows if row["key"] != "c.png"} == {"ok"}
    (bad,) = (row for row in rows if row["key"] == "c.png")
    assert (bad["status"], bad["codec"], bad["bpp"]) == ("not_an_image", None, None)
    assert "not an image of a format that is read" in bad["error_message"]
    assert {row["gray"] for row in rows if row["key"] == "b.png"} == {True}


def test_rows_of_ours_are_those_of_real_bitstreams(config: EvaluationConfig, folder: Path) -> None:
    rows = evaluate(config)
    codec = Codec.load(config.bundle)
    x = np.asarray(Image.open(folder / "a.png"))
    for row in rows:
        if row["key"] == "a.png" and row["codec"].startswith("bls-"):
            data = codec.compress(x, quality=row["quality"], coder=row["codec"].removeprefix("bls-"))
            assert (row["num_bytes"], row["bpp"]) == (len(data), measures.bpp(len(data), height=70, width=96))
            assert row["mse_255"] == measures.mse_255(x, codec.decompress(data))
            assert 0 < row["estimated_bpp"] < 8
            assert row["ms_ssim"] is None  # below 161 pixels


def test_a_header_with_numbers_that_no_column_holds_is_a_row(config: EvaluationConfig, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "huge.tif").write_bytes(tiff_that_claims(3_000_000_000))
    (row,) = ShardEvaluator(replace(config, input=str(tmp_path / "in")))._process(
        Shard(0, tuple(open_source(str(tmp_path / "in")).references())), ()
    )[0]
    assert (row["status"], row["width"], row["height"]) == ("too_large", None, 1)


def test_an_image_that_ends_workers_gets_a_row(config: EvaluationConfig) -> None:
    rows = evaluate(config, crashed=(0,))
    (row,) = (row for row in rows if row["key"] == "a.png")
    assert (row["status"], row["codec"]) == ("crashed", None)


def test_what_one_codec_cannot_do_is_a_row_of_its_own(
    config: EvaluationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(x: Any, codec: str, setting: int) -> bytes:
        raise OSError("encoder error -2")

    monkeypatch.setattr("pipeline.baselines.encode", encode)
    rows = evaluate(replace(config, codecs=("webp",)))
    failed = [row for row in rows if row["key"] == "a.png" and row["status"] != "ok"]
    assert [(row["codec"], row["quality"]) for row in failed] == [("webp", s) for s in BASELINES["webp"].settings]
    assert {(row["status"], row["error_message"], row["bpp"]) for row in failed} == {
        ("failed", "encoder error -2", None)
    }
    assert sum(row["key"] == "a.png" and row["status"] == "ok" for row in rows) == 2 * len(CODERS)


def test_another_bundle_is_refused(config: EvaluationConfig) -> None:
    with pytest.raises(ValueError, match="the job began with 00"):
        ShardEvaluator(replace(config, bundle_fingerprint="00"))


def test_every_effort_has_rows_of_its_own(config: EvaluationConfig) -> None:
    rows = [row for row in evaluate(replace(config, efforts=(0, 1), codecs=("webp",))) if row["key"] == "a.png"]
    ours = [(row["quality"], row["effort"]) for row in rows if row["codec"] == our_name(CODERS[0])]
    assert ours == [(2, 0), (4, 0), (2, 1), (4, 1)]
    assert {row["effort"] for row in rows if row["codec"] == "webp"} == {None}
    loss = {row["effort"]: row["bpp"] + 0.01 * row["mse_255"] for row in rows if row["quality"] == 4}
    assert loss[0] != loss[1]


@pytest.mark.parametrize(("num_threads", "are_timed"), [(1, True), (2, False)])
def test_times_are_those_of_one_thread(config: EvaluationConfig, num_threads: int, are_timed: bool) -> None:
    rows = evaluate(replace(config, num_threads=num_threads))
    for row in rows:
        if row["status"] == "ok":
            for name in ("encode_seconds", "decode_seconds"):
                assert (row[name] is not None) == are_timed and (not are_timed or 0 < row[name] < 10)


def test_an_image_counts_as_failed_when_any_row_of_it_did() -> None:
    good = {"key": "a", "status": "ok", "width": 3, "height": 2, "bpp": 1.0, "psnr_db": 30.0, "ms_ssim": None}
    bad = {**good, "key": "b", "status": "failed", "error_message": "encoder error"}
    summary = summarize([[good, good], [good, bad]])
    assert (summary.num_images, summary.quarantined, summary.num_pixels) == (2, {"failed": 1}, 6)
    assert summary.examples == {"failed": "b: encoder error"}
