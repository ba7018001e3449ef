import math

import pytest
from PIL import features

from bls.measures import images as measures
from pipeline import baselines
from pipeline.baselines import BASELINES
from pipeline.report.equal_quality import CODECS, Need, Target, bytes_at, compare, needs_of, spreads
from tests.codecs import skip_if_missing
from tests.datasets import pixels


def test_bytes_between_two_settings_are_interpolated() -> None:
    asked: list[int] = []

    def quality(index: int) -> float:
        asked.append(index)
        return 20 + index / 5

    found, reach = bytes_at(30.1, quality, lambda index: 1000 * 2 ** (index // 2), 101)
    assert reach == "reached"
    assert found == pytest.approx(1000 * 2 ** (25.25 - 0.25))  # setting 50 has 25 doublings, 51 as many
    assert len(set(asked)) <= 2 + math.ceil(math.log2(101))


@pytest.mark.parametrize(
    ("wanted", "reach"), [(19.9, "too_high"), (40.1, "too_low"), (20.0, "reached"), (40.0, "reached")]
)
def test_what_a_codec_cannot_reach_is_told(wanted: float, reach: str) -> None:
    found, told = bytes_at(wanted, lambda index: 20 + index / 5, lambda index: 10 + index, 101)
    assert told == reach
    assert (found is None) == (reach != "reached")


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_needs_as_much_as_itself(codec: str, gray: bool) -> None:
    # The quality that a codec has at one of its own settings costs what it costs there.
    skip_if_missing(codec)
    x = pixels(176, 192, gray=gray, seed=3)
    setting = BASELINES[codec].all_settings[len(BASELINES[codec].all_settings) // 2]
    data = baselines.encode(x, codec, setting)
    x_hat = baselines.decode(data, gray=gray)
    target = Target(x, len(data), measures.psnr_db(measures.mse_255(x, x_hat)), measures.ms_ssim(x, x_hat))
    needs = needs_of(target, codec)
    assert [need.measure for need in needs] == ["psnr_db", "ms_ssim"]
    for need in needs:
        assert need.reach == "reached"
        assert need.ratio == pytest.approx(1, abs=0.03)


def test_an_image_without_ms_ssim_counts_for_psnr_alone() -> None:
    assert features.check("webp")
    target = Target(pixels(32, 32), 100, 30.0, None)
    assert [need.measure for need in compare([target], codecs=["webp"], num_threads=1)] == ["psnr_db"]


def test_spreads_have_quartiles_of_what_was_reached() -> None:
    needs = [Need("webp", "psnr_db", ratio) for ratio in (0.8, 1.0, 1.25, 2.0, 4.0)]
    needs += [Need("webp", "psnr_db", None, "too_low"), Need("webp", "psnr_db", None, "too_high")]
    first, second = spreads(needs)
    assert (first.num_images, first.num_too_low, first.num_too_high) == (5, 1, 1)
    assert first.quartiles == pytest.approx((-50, -20, 0)), "of what ours needs more: minus is fewer"
    assert (second.num_images, second.quartiles) == (0, None)
