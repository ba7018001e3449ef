"""The static entropy coder: range coding of symbols with the stored tables, by the `constriction` package.

Channel by channel, in raster order: each symbol as its entry in the channel's table. The values of escaped symbols of
all channels follow at the end in an Exp-Golomb code: first all their prefixes, then all their suffixes. Layout and
derivation: docs/entropy-coding.md.

Letters in shapes: c channels, h and w rows and columns of latents.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from constriction import stream
from jaxtyping import Int32, Int64

from bls.bitstream import BitstreamError
from bls.entropy.table import INT32, PRECISION, ProbabilityTable

CONSTRICTION_PRECISION = 24
SUFFIX_CHUNK_BITS = 16
MAX_SUFFIX_BITS = 33
"""An escaped int32 is at most 2**33 (`ProbabilityTable.escaped`)."""


@dataclass(frozen=True)
class StaticCoder:
    """The entropy coder that knows the stored tables alone."""

    table: ProbabilityTable

    def encode(self, symbols: Int32[np.ndarray, "c h w"]) -> bytes:
        """Code symbols into a payload, within a few bytes of `table.code_length_bits`."""
        table = self.table
        assert len(symbols) == table.channels
        encoder = stream.queue.RangeEncoder()
        for c, plane in enumerate(symbols):
            encoder.encode(table.entry(plane, c).ravel().astype(np.int32), _categorical(table.channel(c)))
        escaped = np.concatenate([table.escaped(plane, c) for c, plane in enumerate(symbols)])
        if len(escaped):
            _encode_exp_golomb(encoder, escaped)
        return bytes(encoder.get_compressed().astype(">u4").tobytes()).rstrip(b"\0")

    def decode(self, payload: bytes, shape: tuple[int, int, int]) -> Int32[np.ndarray, "c h w"]:
        """Decode the symbols of a payload.

        Raises:
            BitstreamError: the payload is not what `encode` writes for any symbols of this shape.
        """
        assert shape[0] == self.table.channels
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), ">u4").astype(np.uint32)
        try:
            result = _decode_symbols(stream.queue.RangeDecoder(words), shape, self.table)
        except AssertionError as error:  # constriction's word for data that no encoder writes
            raise BitstreamError(f"payload is damaged ({error}): fetch it again") from error
        # The decoder reads zeros for ever past the end; only what the encoder writes for these symbols was complete.
        if self.encode(result) != payload:
            raise BitstreamError(
                f"payload has {len(payload)} bytes that no {shape[0]}x{shape[1]}x{shape[2]} symbols are coded to: "
                "it is truncated or damaged, fetch it again"
            )
        return result


def _decode_symbols(
    decoder: stream.queue.RangeDecoder, shape: tuple[int, int, int], table: ProbabilityTable
) -> Int32[np.ndarray, "c h w"]:
    entries = [decoder.decode(_categorical(table.channel(c)), shape[1] * shape[2]) for c in range(shape[0])]
    is_escaped = [plane == table.num_symbols[c] for c, plane in enumerate(entries)]
    num_escaped = [int(mask.sum()) for mask in is_escaped]
    escaped = _decode_exp_golomb(decoder, sum(num_escaped))
    symbols = np.stack(entries).astype(np.int64) + table.minimum[:, None]
    for c, end in enumerate(accumulate(num_escaped)):
        symbols[c, is_escaped[c]] = table.unescape(escaped[end - num_escaped[c] : end], c)
    if (symbols < INT32.min).any() or (symbols > INT32.max).any():
        raise BitstreamError("payload codes a symbol beyond int32: it is damaged, fetch it again")
    return symbols.astype(np.int32).reshape(shape)


def _categorical(frequencies: np.ndarray, precision: int = PRECISION) -> stream.model.Categorical:
    """Return constriction's model of exactly these frequencies, which sum to `2**precision`.

    It scales what it is given to a sum of 2**24 minus the number of entries, cuts off fractions and adds one to each.
    Given integers of just that sum, the scale is one and all is exact: no float ever rounds.
    """
    scale = 1 << CONSTRICTION_PRECISION - precision
    return stream.model.Categorical(frequencies.astype(np.float64) * scale - 1, perfect=False)


def _exp_golomb_prefixes() -> stream.model.Categorical:
    """Return the distribution of the number of suffix bits: halving up to 16, then uniform, as int32 allows no more."""
    halving = [1 << 22 - n for n in range(SUFFIX_CHUNK_BITS)]
    rest, larger = divmod(1 << 23 - SUFFIX_CHUNK_BITS, MAX_SUFFIX_BITS + 1 - SUFFIX_CHUNK_BITS)
    uniform = [rest + (n < larger) for n in range(MAX_SUFFIX_BITS + 1 - SUFFIX_CHUNK_BITS)]
    return _categorical(np.array(halving + uniform), precision=23)


def _suffix_chunks(num_bits: Int64[np.ndarray, " n"]) -> Iterator[tuple[int, np.ndarray, Int32[np.ndarray, " chunks"]]]:
    """Split suffixes of these lengths into chunks that the coder takes: shift, which have a chunk there, its size."""
    for shift in range(0, MAX_SUFFIX_BITS, SUFFIX_CHUNK_BITS):
        chunk_bits = np.clip(num_bits - shift, 0, SUFFIX_CHUNK_BITS)
        has_chunk = chunk_bits > 0
        if has_chunk.any():
            yield shift, has_chunk, (1 << chunk_bits[has_chunk]).astype(np.int32)


def _encode_exp_golomb(encoder: stream.queue.RangeEncoder, values: Int64[np.ndarray, " n"]) -> None:
    num_bits = np.frexp(values)[1].astype(np.int64) - 1  # exact: floats hold integers up to 2**53
    encoder.encode(num_bits.astype(np.int32), _exp_golomb_prefixes())
    suffix = values - (1 << num_bits)
    for shift, has_chunk, size in _suffix_chunks(num_bits):
        encoder.encode((suffix[has_chunk] >> shift & size - 1).astype(np.int32), stream.model.Uniform(), size)


def _decode_exp_golomb(decoder: stream.queue.RangeDecoder, n: int) -> Int64[np.ndarray, " n"]:
    if n == 0:
        return np.zeros(0, np.int64)
    num_bits = decoder.decode(_exp_golomb_prefixes(), n).astype(np.int64)
    values = 1 << num_bits
    for shift, has_chunk, size in _suffix_chunks(num_bits):
        values[has_chunk] |= decoder.decode(stream.model.Uniform(), size).astype(np.int64) << shift
    return values
