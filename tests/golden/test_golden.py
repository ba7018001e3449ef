"""Bitstreams of every release must decode for ever, to the same symbols."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bls.bundle import load_bundle, save_bundle
from bls.codec import Codec
from bls.network import TransformWeights
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


def test_an_exchanged_analysis_decodes_them_all(tmp_path: Path) -> None:
    """A better encoder for the same decoder is an upgrade: the fingerprint does not know the analysis."""
    networks = load_bundle(GOLDEN / "v1" / "bundle").networks
    others = [replace(each, weights=_with_other_analysis(each.weights)) for each in networks]
    save_bundle(tmp_path, others)
    codec = Codec.load(tmp_path, precision="float32")
    for before, after in zip(networks, codec.bundle.networks, strict=True):
        assert before.fingerprint == after.fingerprint
        assert before.analysis_fingerprint != after.analysis_fingerprint
    for case in CASES:
        _, symbols = codec.decode((GOLDEN / case).read_bytes())
        assert symbols_hash(symbols) == json.loads((GOLDEN / case.parent / "symbols.json").read_text())[case.stem]


def _with_other_analysis(weights: TransformWeights) -> TransformWeights:
    return replace(weights, analysis={name: value * np.float16(0.9) for name, value in weights.analysis.items()})
