"""The bitstream of one image and the `.bls` file around it: header, payload, checksum.

Byte by byte in docs/bitstream.md. The header is the paper's (Ballé et al., ICLR 2017: height, width, gray bit, index of
lambda) followed by what the paper leaves open: version, entropy coder, reserved bits, and a checksum. The checksum also
covers the fingerprint of the model, which a bitstream does not carry: a truncated, altered or wrong-model bitstream is
an error, never a wrong picture.
"""

import enum
import struct
import zlib
from dataclasses import dataclass

VERSION = 1
FINGERPRINT_NUM_BYTES = 8
MAX_SIDE = 0xFFFF
MAX_PIXELS = 2**27  # default limit of what is decoded: a few damaged or hostile bytes may claim 4 gigapixels
MAX_QUALITY_INDEX = 0xFFFF

# The first byte is not ASCII: a transfer that strips the eighth bit breaks the magic, and no text file begins with it.
FILE_MAGIC = b"\x89BLS"

_SIZE = struct.Struct(">HH")
_FIELDS_NUM_BYTES = 3
_CHECKSUM = struct.Struct(">I")
_HEADER_NUM_BYTES = _SIZE.size + _FIELDS_NUM_BYTES
FILE_PREFIX_NUM_BYTES = len(FILE_MAGIC) + FINGERPRINT_NUM_BYTES
MIN_BITSTREAM_NUM_BYTES = _HEADER_NUM_BYTES + _CHECKSUM.size

# The last three header bytes are one 24-bit number. From its most significant bit:
# gray 1, lambda index 16, version 3, coder 2, reserved 2.
_GRAY_SHIFT, _QUALITY_INDEX_SHIFT, _VERSION_SHIFT, _CODER_SHIFT = 23, 7, 4, 2
_QUALITY_INDEX_MASK, _VERSION_MASK, _CODER_MASK, _RESERVED_MASK = 0xFFFF, 0b111, 0b11, 0b11


class BitstreamError(ValueError):
    """The bytes are not a bitstream that this codec and this model can decode."""


class Coder(enum.IntEnum):
    """Entropy coder of the payload."""

    ADAPTIVE = 0
    STATIC = 1
    MIXED = 2


@dataclass(frozen=True)
class Header:
    """What the decoder must know before the payload.

    Raises:
        ValueError: a size or lambda index does not fit its 16 bits, or a side is zero.
    """

    height: int
    width: int
    gray: bool
    quality_index: int
    coder: Coder

    def __post_init__(self) -> None:
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise ValueError(
                f"image has {self.width}x{self.height} pixels, a bitstream holds 1x1 to {MAX_SIDE}x{MAX_SIDE}: "
                "resize or split the image"
            )
        if not 0 <= self.quality_index <= MAX_QUALITY_INDEX:
            raise ValueError(
                f"index of the quality is {self.quality_index}, a bitstream holds 0 to {MAX_QUALITY_INDEX}: "
                "choose another quality"
            )


def pack(header: Header, payload: bytes, *, fingerprint: bytes) -> bytes:
    """Join header, payload and checksum into a bitstream.

    `fingerprint` names the model whose symbols the payload holds: the first 8 bytes of its content hash.
    """
    body = _pack_header(header) + payload
    return body + _CHECKSUM.pack(_checksum(body, fingerprint))


def parse_header(bitstream: bytes) -> Header:
    """Read the header alone, to learn which model `unpack` needs; the checksum is not verified.

    Raises:
        BitstreamError: too short, of another version, or with a field value that no encoder writes.
    """
    if len(bitstream) < MIN_BITSTREAM_NUM_BYTES:
        raise BitstreamError(
            f"bitstream has {len(bitstream)} bytes, the shortest possible has {MIN_BITSTREAM_NUM_BYTES}: "
            "it is truncated, fetch it again"
        )
    height, width = _SIZE.unpack_from(bitstream)
    fields = int.from_bytes(bitstream[_SIZE.size : _HEADER_NUM_BYTES], "big")
    version = fields >> _VERSION_SHIFT & _VERSION_MASK
    coder = fields >> _CODER_SHIFT & _CODER_MASK
    if version != VERSION:
        raise BitstreamError(
            f"bitstream has version {version}, this codec reads version {VERSION}: "
            "decode it with the release that wrote it, or fetch it again if it is damaged"
        )
    if coder > max(Coder) or fields & _RESERVED_MASK or height == 0 or width == 0:
        raise BitstreamError(
            f"header {bitstream[:_HEADER_NUM_BYTES].hex()} says {width}x{height} pixels, entropy coder {coder}, "
            f"reserved bits {fields & _RESERVED_MASK:02b}, version {VERSION} has at least 1x1, coder 0 to 2, and 00: "
            "it is damaged, fetch it again"
        )
    return Header(
        height=height,
        width=width,
        gray=bool(fields >> _GRAY_SHIFT),
        quality_index=fields >> _QUALITY_INDEX_SHIFT & _QUALITY_INDEX_MASK,
        coder=Coder(coder),
    )


def unpack(bitstream: bytes, *, fingerprint: bytes) -> tuple[Header, bytes]:
    """Split a bitstream into header and payload, verified with the fingerprint of the model that is to decode it.

    Raises:
        BitstreamError: what `parse_header` raises, or the checksum does not match.
    """
    header = parse_header(bitstream)
    if not _is_intact(bitstream, fingerprint):
        raise BitstreamError(
            f"checksum of the bitstream does not match for model {fingerprint.hex()}: it is damaged, fetch it again, "
            "or another model wrote it, pass the bundle of that model"
        )
    return header, bitstream[_HEADER_NUM_BYTES : -_CHECKSUM.size]


def pack_file(bitstream: bytes, *, fingerprint: bytes) -> bytes:
    """Put magic and model fingerprint before a bitstream: the content of a `.bls` file."""
    assert _is_intact(bitstream, fingerprint), "packed with another fingerprint"
    return FILE_MAGIC + fingerprint + bitstream


def unpack_file(data: bytes) -> tuple[bytes, bytes]:
    """Split a `.bls` file into the fingerprint of its model and its bitstream, verified with that fingerprint.

    Raises:
        BitstreamError: not a `.bls` file, truncated, damaged, or of another version.
    """
    if not data.startswith(FILE_MAGIC):
        raise BitstreamError(
            f"file begins with {data[: len(FILE_MAGIC)].hex() or 'nothing'}, a .bls file with {FILE_MAGIC.hex()}: "
            "pass a .bls file, or fetch it again if it is damaged"
        )
    fingerprint, bitstream = data[len(FILE_MAGIC) : FILE_PREFIX_NUM_BYTES], data[FILE_PREFIX_NUM_BYTES:]
    parse_header(bitstream)
    if not _is_intact(bitstream, fingerprint):
        raise BitstreamError("checksum of the .bls file does not match its content: it is damaged, fetch it again")
    return fingerprint, bitstream


def check_fingerprint(written_by: bytes, *, model: bytes) -> None:
    """Do nothing if this model wrote the file.

    Raises:
        BitstreamError: the fingerprints differ; the message names both.
    """
    if written_by != model:
        raise BitstreamError(
            f"file was written by model {written_by.hex()}, this is model {model.hex()}: "
            f"pass the bundle of {written_by.hex()}"
        )


def _pack_header(header: Header) -> bytes:
    fields = (
        header.gray << _GRAY_SHIFT
        | header.quality_index << _QUALITY_INDEX_SHIFT
        | VERSION << _VERSION_SHIFT
        | header.coder << _CODER_SHIFT
    )
    return _SIZE.pack(header.height, header.width) + fields.to_bytes(_FIELDS_NUM_BYTES, "big")


def _checksum(body: bytes, fingerprint: bytes) -> int:
    assert len(fingerprint) == FINGERPRINT_NUM_BYTES
    return zlib.crc32(body, zlib.crc32(fingerprint))


def _is_intact(bitstream: bytes, fingerprint: bytes) -> bool:
    body, checksum = bitstream[: -_CHECKSUM.size], bitstream[-_CHECKSUM.size :]
    return _CHECKSUM.pack(_checksum(body, fingerprint)) == checksum
