import math
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from bls import __main__ as command
from bls.bundle import Bundle
from bls.codec import Codec
from bls.measures import images as measures
from bls.targets import SIZE_TOLERANCE, TOLERANCES, Compressed, Kind, Target, compress_to_target
from tests.bundles import small_network
from tests.images import random_fields


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(Bundle([small_network(2, 7)]), precision="float32")


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    pixels: np.ndarray = (255 * random_fields(1, 192, seed=3)[0].permute(1, 2, 0)).round().byte().numpy()
    return pixels


def measure(codec: Codec, x: np.ndarray, kind: Kind, found: Compressed) -> float:
    if kind == "num_bytes":
        return len(found.bitstream)
    if kind == "bpp":
        return measures.bpp(len(found.bitstream), height=x.shape[0], width=x.shape[1])
    x_hat = codec.decompress(found.bitstream)
    value = measures.ms_ssim(x, x_hat) if kind == "ms_ssim" else measures.psnr_db(measures.mse_255(x, x_hat))
    assert value is not None
    return value


@pytest.mark.parametrize("part", [0.1, 0.35, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["psnr_db", "ms_ssim", "num_bytes", "bpp"])
def test_a_target_is_met_closely(codec: Codec, x: np.ndarray, kind: Kind, part: float) -> None:
    ends = [Compressed(codec.compress(x, quality=quality), quality, True) for quality in (2, 7)]
    low, high = (measure(codec, x, kind, end) for end in ends)
    target = Target(kind, low + part * (high - low))
    found = compress_to_target(codec, x, target)
    value = measure(codec, x, kind, found)
    assert found.is_met and codec.compress(x, quality=found.quality) == found.bitstream
    if target.is_size:
        # A step of quality changes some bytes of so small an image.
        assert (1 - SIZE_TOLERANCE) * target.value - (8 if kind == "num_bytes" else 0.002) <= value <= target.value
    else:
        assert target.value <= value <= target.value + 2 * TOLERANCES[kind]


@pytest.mark.parametrize(
    ("kind", "value", "quality", "is_met"),
    [
        ("psnr_db", 1, 2, True),
        ("psnr_db", 99, 7, False),
        ("num_bytes", 1, 2, False),
        ("num_bytes", 10**9, 7, True),
        ("bpp", 1e-6, 2, False),
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
    codec = Codec(Bundle([small_network(2), small_network(4), small_network(5, 6)]))
    found = compress_to_target(codec, x, Target("num_bytes", value))
    assert len(found.bitstream) <= value or not found.is_met
    assert found.quality in (2, 4) or 5 <= found.quality <= 6


def test_few_codings_are_tried_and_one_analysis_a_network(
    codec: Codec, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"latents": 0, "encode": 0}
    for name in counts:
        original = getattr(Codec, name)

        def counted(*arguments: object, name: str = name, original: object = original, **options: object) -> object:
            counts[name] += 1
            return original(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(Codec, name, counted)
    compress_to_target(codec, x, Target("num_bytes", 2500))
    assert counts["latents"] <= 2 and counts["encode"] <= 8


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
    monkeypatch.setattr("sys.argv", [*arguments, "--quality", "3", "--overwrite"])
    with pytest.raises(SystemExit, match="several of --quality and the targets"):
        command.main()
