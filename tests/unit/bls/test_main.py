"""`python -m bls` in this process."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bls import __main__ as command_line
from bls.bitstream import MAX_PIXELS, unpack_file
from bls.codec import Codec
from bls.measures import images as measures
from bls.transforms.thumbnails import Scale
from tests.hostile import eps


@pytest.fixture
def bls(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["bls", *arguments, "--bundle", str(tiny_bundle)])
        command_line.main()

    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save("x.png")
    return run


def test_decode_refuses_by_size_before_it_loads_a_model(
    bls: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bls("encode", "x.png", "x.bls")
    bls("decode", "x.bls", "small.png", "--max-pixels", "1200")
    monkeypatch.setattr("bls.codec.Codec.load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit, match=r"x\.bls claims 40x30 pixels, --max-pixels is 1199: give a larger"):
        bls("decode", "x.bls", "y.png", "--max-pixels", "1199")
    assert not (tmp_path / "y.png").exists()
    assert MAX_PIXELS == 2**27


def test_an_eps_is_refused_whatever_it_is_called(bls: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(eps())
    with pytest.raises(SystemExit, match="cannot identify image file"):
        bls("encode", "photo.jpg", "photo.bls")


def test_many_images_go_into_a_folder(
    bls: Callable[..., None], tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the PSNR of what the file decodes to; a bad image is named at the end and stops no other."""
    x = (np.random.default_rng(0).random((30, 40)) * 255).astype(np.uint8)
    Image.fromarray(x).save("gray.jpg", quality=95)
    Path("bad.png").write_bytes(b"text")
    with pytest.raises(SystemExit, match=r"(?s)bad.png: cannot identify.*\n1 of 3 images were not encoded"):
        bls("encode", "x.png", "bad.png", "gray.jpg", "--output-dir", "a/b", "--quality", "4")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["a/b/x.bls", "a/b/gray.bls"]
    gray = np.asarray(Image.open("gray.jpg"))
    _, stream = unpack_file(Path("a/b/gray.bls").read_bytes())
    psnr_db = measures.psnr_db(measures.mse_255(gray, Codec.load(tiny_bundle).decompress(stream)))
    assert lines[1].endswith(f"bpp, PSNR {psnr_db:.2f} dB")
    with pytest.raises(SystemExit, match=r"a/b/x.bls is there already"):
        bls("encode", "x.png", "gray.jpg", "--output-dir", "a/b", "--quality", "4")


def test_a_preview_does_not_replace_another_input(bls: Callable[..., None]) -> None:
    shutil.copy("x.png", "x.preview.png")
    given = ("encode", "x.png", "x.preview.png", "--output-dir", ".", "--preview", "--overwrite")
    with pytest.raises(SystemExit, match=r"x\.preview\.png is an input itself, which is not replaced"):
        bls(*given)
    assert Path("x.preview.png").read_bytes() == Path("x.png").read_bytes()
    assert not Path("x.bls").exists()


def test_a_preview_is_what_the_file_decodes_to(bls: Callable[..., None]) -> None:
    bls("encode", "x.png", "x.bls", "--quality", "4", "--preview")
    bls("decode", "x.bls", "decoded.png")
    np.testing.assert_array_equal(np.asarray(Image.open("x.preview.png")), np.asarray(Image.open("decoded.png")))
    Path("x.bls").unlink()
    with pytest.raises(SystemExit, match=r"x.preview.png is there already"):
        bls("encode", "x.png", "x.bls", "--quality", "4", "--preview")
    assert not Path("x.bls").exists()


def test_a_missed_target_has_an_exit_code_of_its_own(
    bls: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """The nearest file is written all the same."""
    x = (np.random.default_rng(0).random((30, 40, 3)) * 255).astype(np.uint8)
    Image.fromarray(x).save("noise.png")
    with pytest.raises(SystemExit) as ended:
        bls("encode", "x.png", "noise.png", "--output-dir", "a", "--target-psnr-db", "60")
    assert ended.value.code == 3
    assert "a/noise.bls: no quality meets the target, 4 comes nearest" in capsys.readouterr().err
    assert Path("a/noise.bls").exists()
    bls("encode", "x.png", "x.bls", "--target-bpp", "20")


def test_many_files_are_decoded_into_a_folder(bls: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    bls("encode", "x.png", "x.bls", "--quality", "4")
    Path("y.bls").write_bytes(Path("x.bls").read_bytes())
    Path("bad.bls").write_bytes(Path("x.bls").read_bytes()[:-1])
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"(?s)bls: bad.bls: .*\n1 of 3 files were not decoded"):
        bls("decode", "x.bls", "bad.bls", "y.bls", "--output-dir", "a/b")
    assert capsys.readouterr().out == "a/b/x.png: 40x30, RGB\na/b/y.png: 40x30, RGB\n"
    assert sorted(path.name for path in Path("a/b").iterdir()) == ["x.png", "y.png"]
    with pytest.raises(SystemExit, match=r"a/b/x.png is there already"):
        bls("decode", "x.bls", "--output-dir", "a/b")
    with pytest.raises(SystemExit, match="1 files are given, expected one to read and one to write, or --output-dir"):
        bls("decode", "x.bls")


@pytest.mark.parametrize(("scale", "size"), [(16, (3, 2)), (8, (5, 4))])
def test_a_thumbnail_is_what_the_codec_makes_of_the_file(
    bls: Callable[..., None], tiny_bundle: Path, capsys: pytest.CaptureFixture[str], scale: Scale, size: tuple[int, int]
) -> None:
    bls("encode", "x.png", "x.bls", "--quality", "4")
    capsys.readouterr()
    bls("decode", "x.bls", "small.png", "--thumbnail", str(scale))
    assert capsys.readouterr().out == f"small.png: {size[0]}x{size[1]}, RGB\n"
    _, stream = unpack_file(Path("x.bls").read_bytes())
    expected = Codec.load(tiny_bundle).thumbnail(stream, scale=scale)
    np.testing.assert_array_equal(np.asarray(Image.open("small.png")), expected)
    with pytest.raises(SystemExit):
        bls("decode", "x.bls", "other.png", "--thumbnail", "4")
    assert not Path("other.png").exists()


def test_no_two_images_become_one_file(bls: Callable[..., None]) -> None:
    Path("more").mkdir()
    Image.open("x.png").save("more/x.jpg")
    with pytest.raises(SystemExit, match=r"x.png and more/x.jpg would both be a/x.bls"):
        bls("encode", "x.png", "more/x.jpg", "--output-dir", "a")
    assert not Path("a").exists()
    with pytest.raises(SystemExit, match=r"more/x.jpg is not a name for a .bls file"):
        bls("encode", "x.png", "more/x.jpg", "--overwrite")
    with pytest.raises(SystemExit, match="1 files are given, expected one to read and"):
        bls("encode", "x.png")


@pytest.mark.parametrize("effort", ["-1", "9"])
def test_an_effort_that_does_not_exist_is_one_clear_line(bls: Callable[..., None], effort: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"^bls: effort is {effort}, expected a whole number from 0"):
        bls("encode", "x.png", "x.bls", "--effort", effort)
    assert not (tmp_path / "x.bls").exists()


def test_a_file_of_more_effort_is_decoded_as_any(bls: Callable[..., None], tmp_path: Path) -> None:
    bls("encode", "x.png", "x.bls", "--effort", "1")
    bls("decode", "x.bls", "y.png")
    with Image.open(tmp_path / "y.png") as image:
        assert image.size == (40, 30)
