import math
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from bls import __main__ as command
from bls.bundle import Bundle, load_bundle
from bls.codec import Codec
from bls.ladder import index_of, quality_of
from bls.measures import images as measures
from bls.targets import SIZE_TOLERANCE, TOLERANCES, Kind, Target, compress_to_target, first_try


@pytest.fixture(scope="module")
def codec() -> Codec:
    """Return the shipped codec, of several networks."""
    return Codec.load(precision="float32")


@pytest.fixture(scope="module")
def one_network() -> Codec:
    return Codec(Bundle(load_bundle(quality=4).networks), precision="float32")


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return data.chelsea()[40:216, 100:292]  # type: ignore[no-any-return]


def measure(codec: Codec, x: np.ndarray, kind: Kind, bitstream: bytes) -> float:
    if kind == "num_bytes":
        return len(bitstream)
    if kind == "bpp":
        return measures.bpp(len(bitstream), height=x.shape[0], width=x.shape[1])
    x_hat = codec.decompress(bitstream)
    value = measures.ms_ssim(x, x_hat) if kind == "ms_ssim" else measures.psnr_db(measures.mse_255(x, x_hat))
    assert value is not None
    return value


@pytest.mark.parametrize("part", [0.1, 0.35, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["psnr_db", "ms_ssim", "num_bytes", "bpp"])
def test_a_target_is_met_closely_or_the_next_quality_misses_it(
    codec: Codec, x: np.ndarray, kind: Kind, part: float
) -> None:
    low, high = (measure(codec, x, kind, codec.compress(x, quality=quality)) for quality in codec.quality_range)
    target = Target(kind, low + part * (high - low))
    found = compress_to_target(codec, x, target)
    assert found.is_met and codec.compress(x, quality=found.quality) == found.bitstream
    value = measure(codec, x, kind, found.bitstream)
    better = quality_of(index_of(found.quality) + (1 if target.is_size else -1))
    missed = measure(codec, x, kind, codec.compress(x, quality=better))
    if target.is_size:
        assert value <= target.value
        assert value >= (1 - SIZE_TOLERANCE) * target.value or missed > target.value
    else:
        assert value >= target.value
        assert value <= target.value + TOLERANCES[kind] or missed < target.value


@pytest.mark.parametrize(
    ("kind", "value", "quality", "is_met"),
    [
        ("psnr_db", 1, 1, True),
        ("psnr_db", 99, 8, False),
        ("ms_ssim", 0.9999999, 8, False),
        ("num_bytes", 1, 1, False),
        ("num_bytes", 10**9, 8, True),
        ("bpp", 1e-6, 1, False),
    ],
)
def test_beyond_the_range_of_qualities_its_end_is_taken(
    codec: Codec, x: np.ndarray, kind: Kind, value: float, quality: float, is_met: bool
) -> None:
    found = compress_to_target(codec, x, Target(kind, value))
    assert (found.quality, found.is_met) == (quality, is_met)
    assert codec.decompress(found.bitstream).shape == x.shape


@pytest.mark.parametrize("value", [1000, 2000, 3000])
def test_qualities_that_no_network_serves_are_passed_over(x: np.ndarray, value: float) -> None:
    codec = Codec(Bundle([*load_bundle(quality=2).networks, *load_bundle(quality=6).networks]))
    found = compress_to_target(codec, x, Target("num_bytes", value))
    assert len(found.bitstream) <= value or not found.is_met
    assert any(found.quality in served for served in codec.bundle.qualities)


@pytest.mark.parametrize("target", [Target("num_bytes", 2300), Target("psnr_db", 31.3)])
def test_few_codings_are_tried_and_one_analysis_a_network(
    one_network: Codec, x: np.ndarray, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = dict.fromkeys(["latents", "encode", "synthesize"], 0)
    for name in counts:
        original = getattr(Codec, name)

        def counted(*arguments: object, name: str = name, original: object = original, **options: object) -> object:
            counts[name] += 1
            return original(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(Codec, name, counted)
    found = compress_to_target(one_network, x, target)
    tried = "encode" if target.is_size else "synthesize"
    assert counts["latents"] == 1 and counts[tried] <= 5
    assert found.is_met and (found.x_hat is None) == target.is_size
    (latents,) = one_network.latents([x], quality=first_try(one_network))
    counts["latents"] = 0
    assert compress_to_target(one_network, x, target, latents=latents).bitstream == found.bitstream
    assert counts["latents"] == 0


def test_what_is_handed_on_is_of_the_bitstream(codec: Codec, x: np.ndarray) -> None:
    for target in (Target("psnr_db", 32), Target("bpp", 0.5), Target("psnr_db", 99)):
        found = compress_to_target(codec, x, target)
        _, symbols = codec.decode(found.bitstream)
        assert np.array_equal(symbols, found.symbols)
        assert found.x_hat is None or np.array_equal(codec.decompress(found.bitstream), found.x_hat)
        assert found.seconds["analysis"] > 0 and found.seconds["entropy_encode"] > 0


def test_an_image_without_an_error_exceeds_any_target(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.full((64, 64, 3), 128, np.uint8)
    monkeypatch.setattr(Codec, "synthesize", lambda _, decoded: [x for _ in decoded])
    found = compress_to_target(codec, x, Target("psnr_db", 50))
    assert (found.quality, found.is_met) == (1, True)


@pytest.mark.parametrize("value", [0, -1, math.nan])
@pytest.mark.parametrize("kind", ["psnr_db", "ms_ssim", "num_bytes", "bpp"])
def test_targets_out_of_range_are_refused(kind: Kind, value: float) -> None:
    with pytest.raises(ValueError, match=f"target {kind} is .*, expected a number above 0"):
        Target(kind, value)


def test_a_small_image_has_no_ms_ssim_to_meet(codec: Codec) -> None:
    with pytest.raises(ValueError, match="MS-SSIM needs 161 a side"):
        compress_to_target(codec, np.zeros((160, 200, 3), np.uint8), Target("ms_ssim", 0.9))


def test_a_file_is_no_larger_than_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    arguments = ["bls", "encode", str(tmp_path / "cat.png"), str(tmp_path / "cat.bls"), "--target-num-bytes", "6000"]
    monkeypatch.setattr("sys.argv", arguments)
    command.main()
    assert 0.995 * 6000 - 2 <= (tmp_path / "cat.bls").stat().st_size <= 6000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quality", "3", "--target-bpp", "1"], "several of --quality and the targets are given: give one"),
        (["--quality", "0.99"], "quality is 0.99, expected a number from 1 to 8"),
        (["--quality", "nan"], "quality is nan, expected a number from 1 to 8"),
        (["--target-num-bytes", "0"], "target num_bytes is 0, expected a number above 0"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bls", "encode", "cat.png", "cat.bls", *options])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"bls: {message}\n"


def test_effort_spends_the_bytes_of_a_target_better() -> None:
    codec, photograph = Codec.load(), data.astronaut()[:128, 160:288]
    budget = Target("num_bytes", len(codec.compress(photograph, quality=3)))
    plain, refined = (compress_to_target(codec, photograph, budget, effort=effort) for effort in (0, 1))
    assert plain.is_met and refined.is_met
    assert len(refined.bitstream) <= budget.value
    plain_db, refined_db = (measure(codec, photograph, "psnr_db", found.bitstream) for found in (plain, refined))
    assert refined_db > plain_db + 0.05
