"""Damage behind the checksum, and to the headers of images: tests/campaigns/damage.py runs as many as are wanted."""

import warnings
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bls import bitstream
from bls.bitstream import BitstreamError
from bls.image_files import FORMATS
from pipeline.status import Status
from tests.campaigns.damage import GOLDEN, golden_codec
from tests.damaging import damaged, image_files, outcome_of_image, outcome_of_stream, with_checksum

CODEC = golden_codec()
STREAMS = {path.stem: path.read_bytes() for path in sorted((GOLDEN / "v1").glob("*.bin"))}
IMAGES = image_files()


@settings(max_examples=200)
@given(name=st.sampled_from(sorted(STREAMS)), seed=st.integers(0, 2**32))
def test_damage_behind_the_checksum_is_refused_or_decodes_to_symbols(name: str, seed: int) -> None:
    data = with_checksum(damaged(STREAMS[name], Random(seed)), CODEC)
    assert outcome_of_stream(data, CODEC) in ("decoded", "refused")


def test_the_damage_reaches_the_coders() -> None:
    """Without their checksum computed again nearly all damaged streams would end at it."""
    fingerprint = CODEC.bundle.network(4).fingerprint

    def passes(data: bytes) -> bool:
        try:
            bitstream.unpack(data, fingerprint=fingerprint)
        except BitstreamError:
            return False
        return True

    for coder in ("adaptive", "mixed", "static"):
        streams = [damaged(STREAMS[f"rgb-{coder}"], Random(seed)) for seed in range(60)]
        assert sum(passes(with_checksum(data, CODEC)) for data in streams) > 30
        assert sum(passes(data) for data in streams) < 3


@settings(max_examples=200)
@given(name=st.sampled_from(sorted(IMAGES)), seed=st.integers(0, 2**32), within=st.sampled_from([64, 512, None]))
def test_a_damaged_image_becomes_a_row(name: str, seed: int, within: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what is damaged
        assert outcome_of_image(damaged(IMAGES[name], Random(seed), within=within)) in list(Status)


def test_the_images_are_whole_and_of_all_formats_before_they_are_damaged() -> None:
    assert {name for name in FORMATS if name in Image.OPEN} < IMAGES.keys()
    assert set(map(outcome_of_image, IMAGES.values())) == {Status.OK}
