"""What stands on panels, and the pictures and page made of them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from bls.bundle import Bundle
from bls.codec import Codec
from bls.measures import images as measures
from bls.pixels import Pixels
from jobs.evaluate import Evaluate
from jobs.options import InputOptions
from pipeline import baselines
from pipeline.evaluate import panels
from pipeline.evaluate.panel_pages import PanelWork, caption, draw, section
from pipeline.evaluate.panels import Panel, code_at, first_at_or_above, make_panel, most_detailed
from pipeline.sources.opening import open_source
from pipeline.storage.opening import open_folder
from tests.bundles import small_network
from tests.codecs import skip_if_missing

_CELL, _GAP = 288, 8
OTHERS = ("jpeg-420", "jpeg2000", "webp", "avif-444-iq")


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle)


@pytest.fixture(scope="module")
def colour() -> Pixels:
    x: Pixels = data.astronaut()[:200, 150:400]
    return x


@pytest.fixture(scope="module")
def panel(codec: Codec, colour: Pixels) -> Panel:
    return make_panel(colour, key="a folder/astro|naut.png", codec=codec, quality=2, others=OTHERS, corner=(100, 50))


@pytest.mark.parametrize("wanted", [0, 1, 2, 49, 50, 51, 97, 98])
def test_bisection_finds_the_first_setting_that_is_not_below(wanted: float) -> None:
    rates = [2 * setting for setting in range(50)]
    found = first_at_or_above(wanted, range(50), lambda setting: rates[int(setting)])
    assert found == next(setting for setting, rate in enumerate(rates) if rate >= wanted)


def test_bisection_takes_the_highest_rate_where_none_is_enough() -> None:
    assert first_at_or_above(99, range(50), lambda setting: 2 * setting) == 49
    assert first_at_or_above(9, range(9, -1, -1), lambda ratio: 10 - ratio) == 1


@pytest.mark.parametrize("codec_name", baselines.BASELINES)
@pytest.mark.parametrize("gray", [False, True])
def test_others_have_as_many_bits_or_the_few_more_of_the_next_setting(
    codec_name: str, gray: bool, colour: Pixels
) -> None:
    skip_if_missing(codec_name)
    x = colour[..., 1].copy() if gray else colour
    decoded = code_at(x, codec_name, bpp=0.8)
    assert 0.8 <= decoded.row["bpp"] < 0.9
    settings = baselines.BASELINES[codec_name].all_settings
    below = settings[settings.index(decoded.row["quality"]) - 1]
    assert 8 * len(baselines.encode(x, codec_name, below)) / (x.shape[0] * x.shape[1]) < 0.8
    assert decoded.pixels.shape == x.shape


def test_a_rate_below_the_lowest_gets_the_lowest_and_its_real_number(colour: Pixels) -> None:
    decoded = code_at(colour, "jpeg-420", bpp=0.01)
    assert decoded.row["quality"] == 1
    assert decoded.row["num_bytes"] == len(baselines.encode(colour, "jpeg-420", 1))


def test_measures_are_of_the_pictures_that_are_shown(panel: Panel, colour: Pixels) -> None:
    assert [decoded.row["codec"] for decoded in panel.decoded] == ["bls", *OTHERS]
    for decoded in panel.decoded:
        assert decoded.row["psnr_db"] == measures.psnr_db(measures.mse_255(colour, decoded.pixels))
        assert decoded.row["ms_ssim"] == measures.ms_ssim(colour, decoded.pixels)
    ours = panel.decoded[0].row["bpp"]
    assert all(decoded.row["bpp"] >= ours for decoded in panel.decoded[1:])


def test_the_most_detailed_region_is_the_one_with_the_edges() -> None:
    x = np.full((300, 400), 128, np.uint8)
    x[120:180:2, 200:260] = 0
    rows, columns = most_detailed(x)
    assert rows.start <= 120 and rows.stop >= 180 and columns.start <= 200 and columns.stop >= 260
    assert rows.stop - rows.start == columns.stop - columns.start == panels.CROP_SIDE
    assert most_detailed(x[:20, :30]) == (slice(0, 20), slice(0, 30))


def test_a_region_outside_of_the_image_is_refused(codec: Codec, colour: Pixels) -> None:
    with pytest.raises(ValueError, match="crop begins at 107, 0: expected at most 106, 56 in an image of 250x200"):
        make_panel(colour, key="a", codec=codec, quality=2, others=(), corner=(107, 0))


def test_a_picture_has_the_whole_the_enlarged_region_and_the_numbers(panel: Panel, colour: Pixels) -> None:
    sheet = np.asarray(Image.open(io.BytesIO(draw(panel))))
    shown = [colour, *(decoded.pixels for decoded in panel.decoded)]
    height = 200 + _GAP + _CELL + 3 * 18
    assert sheet.shape == (2 * (height + _GAP) + _GAP, 3 * (_CELL + _GAP) + _GAP, 3)
    for index, pixels in enumerate(shown):
        row, column = divmod(index, 3)
        cell = sheet[_GAP + row * (height + _GAP) :, _GAP + column * (_CELL + _GAP) :][:height, :_CELL]
        assert (cell[:200, :250] == pixels).all()  # small enough to be shown as it is
        enlarged = cell[200 + _GAP :][:_CELL]
        assert (enlarged[::2, ::2] == pixels[50:194, 100:244]).all() and (
            enlarged[1::2, 1::2] == enlarged[::2, ::2]
        ).all()
        assert cell[-3 * 18 :].min() < 100  # text
    assert caption(panel.decoded[1])[0] == f"jpeg-420, quality {panel.decoded[1].row['quality']}"


def test_the_page_tells_the_numbers_and_minds_hostile_keys(panel: Panel) -> None:
    text = "\n".join(section(panel, panel.file_name(7)))
    assert panel.file_name(7) == "007-astro-naut-quality-2.png"
    assert "## a folder/astro&#124;naut.png, quality 2" in text and "144x144 pixels from column 100 and row 50" in text
    for decoded in panel.decoded:
        assert f"| {decoded.row['num_bytes']} | {decoded.row['bpp']:.3f} |" in text


def test_a_folder_becomes_panels_of_its_kind_and_a_page(codec: Codec, colour: Pixels, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(colour[..., 1]).save(tmp_path / "in" / "gray.png")
    Image.fromarray(colour[:40, :50]).save(tmp_path / "in" / "small.png")
    (tmp_path / "in" / "broken.png").write_text("no image")
    work = PanelWork(open_source(str(tmp_path / "in")), codec, (2, 4), (0,), ("jpeg-420", "webp"), None, 10**6)
    num_panels, failures = work.write(open_folder(str(tmp_path / "out")), name="in", provenance={"commit": "abc"})
    assert num_panels == 4 and list(failures) == ["broken.png"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "001-gray-quality-2.png",
        "001-gray-quality-4.png",
        *(["002-small-quality-2.png", "002-small-quality-4.png", "README.md", "written.json"]),
    ]
    modes = [Image.open(io.BytesIO((tmp_path / "out" / name).read_bytes())).mode for name in names[:4]]
    assert modes == ["L", "L", "RGB", "RGB"]
    text = (tmp_path / "out" / "README.md").read_text()
    assert all(f"]({name})" in text for name in names[:4])
    assert "Left out: broken.png: " in text and "| - |" in text  # MS-SSIM of the small one
    with pytest.raises(ValueError, match="1 images cannot be read"):
        PanelWork(work.source, codec, (2,), (0,), (), None, 10**6, max_failures=0).write(
            open_folder(str(tmp_path / "none")), name="in", provenance={}
        )
    assert not (tmp_path / "none" / "README.md").exists()


def test_a_crop_or_curves_are_for_one_of_the_two_modes() -> None:
    with pytest.raises(ValueError, match="--crop is given without --panels"):
        Evaluate(InputOptions("in"), "out", crop=(0, 0))
    with pytest.raises(ValueError, match="--reference is for curves"):
        Evaluate(InputOptions("in"), "out", panels=True, reference="curves.csv")


def test_a_higher_effort_stands_beside_at_no_more_bytes(colour: Pixels) -> None:
    codec = Codec(Bundle([small_network(2, 5)]))
    panel = make_panel(colour, key="a.png", codec=codec, quality=3, efforts=(0, 2), others=("webp",), corner=(0, 0))
    first, refined, other = (decoded.row for decoded in panel.decoded)
    assert [row["effort"] for row in (first, refined, other)] == [0, 2, None]
    assert 0.9 * first["num_bytes"] < refined["num_bytes"] <= first["num_bytes"]
    assert refined["mse_255"] < first["mse_255"]
    text = "\n".join(section(panel, "a.png"))
    assert "| bls, quality 3, effort 0 |" in text and ", effort 2 |" in text
    assert caption(panel.decoded[2])[0].startswith("webp, quality ")


@pytest.mark.parametrize("panels_", [False, True])
def test_codecs_that_this_machine_lacks_are_left_out_by_default(panels_: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "missing", lambda codec: "pip install x" if codec == "jpeg-xl" else "")
    config = Evaluate(InputOptions("in"), "out", panels=panels_)
    everything = panels.CODECS if panels_ else tuple(baselines.BASELINES)
    assert config.compared == tuple(name for name in everything if name != "jpeg-xl")
    assert config.left_out == ["pip install x"]
    chosen = Evaluate(InputOptions("in"), "out", panels=panels_, codecs=("webp",))
    assert chosen.compared == ("webp",) and chosen.left_out == []
