import re
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bls import bitstream
from bls.bitstream import BitstreamError, Coder, Header

DOCUMENT = Path(__file__).parents[3] / "docs" / "bitstream.md"
FINGERPRINT = bytes.fromhex("3f2a91bc00112233")
OTHER_FINGERPRINT = bytes.fromhex("91bc3f2a00112233")
HEADER = Header(height=512, width=768, gray=True, quality_index=1024, coder=Coder.ADAPTIVE)
PAYLOAD = bytes(range(64))
BITSTREAM = bitstream.pack(HEADER, PAYLOAD, fingerprint=FINGERPRINT)
FILE = bitstream.pack_file(BITSTREAM, fingerprint=FINGERPRINT)

fingerprints = st.binary(min_size=8, max_size=8)
headers = st.builds(
    Header,
    height=st.integers(1, 65535),
    width=st.integers(1, 65535),
    gray=st.booleans(),
    quality_index=st.integers(0, 65535),
    coder=st.sampled_from(Coder),
)


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")


def with_checksum(body: bytes) -> bytes:
    return body + zlib.crc32(FINGERPRINT + body).to_bytes(4, "big")


@given(headers, st.binary(max_size=64), fingerprints)
def test_unpack_inverts_pack(header: Header, payload: bytes, fingerprint: bytes) -> None:
    packed = bitstream.pack(header, payload, fingerprint=fingerprint)
    assert bitstream.parse_header(packed) == header
    assert bitstream.unpack(packed, fingerprint=fingerprint) == (header, payload)
    file = bitstream.pack_file(packed, fingerprint=fingerprint)
    assert bitstream.unpack_file(file) == (fingerprint, packed)


def test_document_example_is_what_the_code_writes() -> None:
    bitstream_hex, file_hex = re.findall(r"^The .*, \d+ bytes:\n\n```\n(.*)\n```", DOCUMENT.read_text(), re.MULTILINE)
    packed = bitstream.pack(HEADER, bytes.fromhex("c0ffee"), fingerprint=FINGERPRINT)
    assert packed == bytes.fromhex(bitstream_hex)
    assert bitstream.pack_file(packed, fingerprint=FINGERPRINT) == bytes.fromhex(file_hex)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (Header(height=1, width=2, gray=False, quality_index=0, coder=Coder.ADAPTIVE), "00010002 000010"),
        (Header(height=256, width=65535, gray=False, quality_index=1, coder=Coder.STATIC), "0100ffff 000094"),
        (Header(height=1, width=1, gray=False, quality_index=0, coder=Coder.MIXED), "00010001 000018"),
        (Header(height=65535, width=1, gray=True, quality_index=65535, coder=Coder.STATIC), "ffff0001 ffff94"),
    ],
)
def test_header_bytes(header: Header, expected: str) -> None:
    assert bitstream.pack(header, b"", fingerprint=FINGERPRINT)[:7] == bytes.fromhex(expected)


def test_every_flipped_bit_of_a_bitstream_is_detected() -> None:
    for bit in range(8 * len(BITSTREAM)):
        with pytest.raises(BitstreamError):
            bitstream.unpack(flipped(BITSTREAM, bit), fingerprint=FINGERPRINT)


def test_every_flipped_bit_of_a_file_is_detected() -> None:
    for bit in range(8 * len(FILE)):
        with pytest.raises(BitstreamError):
            bitstream.unpack_file(flipped(FILE, bit))


@pytest.mark.parametrize("length", range(len(BITSTREAM)))
def test_truncated_bitstream_is_detected(length: int) -> None:
    with pytest.raises(BitstreamError):
        bitstream.unpack(BITSTREAM[:length], fingerprint=FINGERPRINT)


@pytest.mark.parametrize("length", range(len(FILE)))
def test_truncated_file_is_detected(length: int) -> None:
    with pytest.raises(BitstreamError):
        bitstream.unpack_file(FILE[:length])


def test_appended_byte_is_detected() -> None:
    with pytest.raises(BitstreamError):
        bitstream.unpack(BITSTREAM + b"\0", fingerprint=FINGERPRINT)


def test_other_fingerprint_is_detected() -> None:
    with pytest.raises(BitstreamError, match=r"not match for model 91bc3f2a00112233: it is damaged.*or another model"):
        bitstream.unpack(BITSTREAM, fingerprint=OTHER_FINGERPRINT)


def test_check_fingerprint_names_both_models() -> None:
    bitstream.check_fingerprint(FINGERPRINT, model=FINGERPRINT)
    with pytest.raises(
        BitstreamError, match=r"by model 3f2a91bc00112233, this is model 91bc3f2a00112233: pass the bundle of 3f2a"
    ):
        bitstream.check_fingerprint(FINGERPRINT, model=OTHER_FINGERPRINT)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("00010001 000000", "has version 0, this codec reads version 1"),
        ("00010001 000070", "has version 7, this codec reads version 1"),
        ("00010001 00001c", "entropy coder 3"),
        ("00010001 000011", "reserved bits 01"),
        ("00000001 000010", "1x0 pixels"),
        ("00010000 000010", "0x1 pixels"),
    ],
)
def test_header_that_no_encoder_writes_is_rejected(body: str, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        bitstream.unpack(with_checksum(bytes.fromhex(body)), fingerprint=FINGERPRINT)


def test_file_of_another_format_is_named() -> None:
    with pytest.raises(BitstreamError, match=r"file begins with 89504e47, a \.bls file with 89424c53"):
        bitstream.unpack_file(b"\x89PNG\r\n\x1a\n" + bytes(64))


@given(st.binary(max_size=64), fingerprints)
@example(BITSTREAM, FINGERPRINT)
def test_any_bytes_unpack_or_raise(data: bytes, fingerprint: bytes) -> None:
    try:
        header, payload = bitstream.unpack(data, fingerprint=fingerprint)
    except BitstreamError:
        return
    assert bitstream.pack(header, payload, fingerprint=fingerprint) == data


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: bitstream.FILE_MAGIC + tail))
@example(FILE)
def test_any_bytes_unpack_as_a_file_or_raise(data: bytes) -> None:
    try:
        fingerprint, packed = bitstream.unpack_file(data)
    except BitstreamError:
        return
    assert bitstream.pack_file(packed, fingerprint=fingerprint) == data


@given(st.binary(min_size=7, max_size=7))
def test_header_with_a_valid_checksum_parses_or_raises(body: bytes) -> None:
    data = with_checksum(body)
    try:
        header, payload = bitstream.unpack(data, fingerprint=FINGERPRINT)
    except BitstreamError:
        return
    assert bitstream.pack(header, payload, fingerprint=FINGERPRINT) == data


@pytest.mark.parametrize(
    "changed", [{"height": 0}, {"width": 65536}, {"quality_index": -1}, {"quality_index": 65536}], ids=str
)
def test_header_rejects_what_does_not_fit(changed: dict[str, int]) -> None:
    fields = {"height": 1, "width": 1, "quality_index": 0} | changed
    with pytest.raises(ValueError, match="a bitstream holds"):
        Header(**fields, gray=False, coder=Coder.STATIC)
