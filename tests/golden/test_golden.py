"""Bitstreams of every release must decode for ever, to the same symbols."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bls.codec import Codec
from tests.golden.write import symbols_hash

GOLDEN = Path(__file__).parent
CASES = sorted(path.relative_to(GOLDEN) for path in GOLDEN.glob("*/*.bin"))


def test_golden_bitstreams_are_there() -> None:
    names = {path.stem for path in CASES}
    assert {f"{case}-{coder}" for case in ("rgb", "extreme") for coder in ("adaptive", "mixed", "static")} <= names


@pytest.mark.parametrize("case", CASES, ids=str)
def test_golden_bitstream_decodes(case: Path) -> None:
    folder = GOLDEN / case.parent
    codec = Codec.load(folder / "bundle", precision="float32")  # as the pictures were made
    data = (GOLDEN / case).read_bytes()
    header, symbols = codec.decode(data)
    assert symbols_hash(symbols) == json.loads((folder / "symbols.json").read_text())[case.stem]
    # The encoder of today writes the same bytes.
    assert codec.encode(symbols, header=header) == data
    picture = (GOLDEN / case).with_suffix(".png")
    if picture.exists():
        expected = np.asarray(Image.open(picture)).astype(int)
        assert np.abs(codec.decompress(data).astype(int) - expected).max() <= 1
