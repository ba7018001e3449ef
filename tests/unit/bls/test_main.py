"""`python -m bls` in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bls import __main__ as command_line
from bls.bitstream import MAX_PIXELS
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
