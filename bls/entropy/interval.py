"""Binary arithmetic coding on 64-bit integers: the interval that both adaptive coders narrow, decision by decision.

Carry and termination are derived in docs/entropy-coding.md. Everything here is inlined into the coders' walks, or
called once in many decisions.
"""

import numpy as np
from jaxtyping import UInt32
from numba import njit

from bls.bitstream import BitstreamError

ENCODE, DECODE, COUNT = 0, 1, 2
"""Uses of a walk; counting decisions narrows nothing."""

# numba keeps unsigned arithmetic only where both operands are typed so.
ONE, TWO, WORD_BITS = np.uint64(1), np.uint64(2), np.uint64(32)
FULL_RANGE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
MIN_RANGE = np.uint64(1 << 32)
LOW_WORD = np.uint64(0xFFFF_FFFF)

MAX_ESCAPE_BITS = 32
"""The distance of two int32 is below 2**32: a payload that claims more is damaged."""
MAX_WORDS_PER_SYMBOL = 132
"""257 decisions of at most 16 bits, 63 of the escape, rounded up: what one symbol may take."""


def to_payload(words: UInt32[np.ndarray, " n"]) -> bytes:
    """Return the bytes of an encoder's words, without the zeros at the end."""
    return bytes(words.astype(">u4").tobytes()).rstrip(b"\0")


def to_words(payload: bytes) -> UInt32[np.ndarray, " n"]:
    """Return a decoder's words: two of zeros follow, as it starts with two, and the encoder cuts zeros off the end."""
    return np.frombuffer(payload + b"\0" * (-len(payload) % 4 + 8), ">u4").astype(np.uint32)


def check_payload(payload: bytes, shape: tuple[int, int, int], *, is_complete: bool) -> None:
    """Do nothing if a walk found that it read what the encoder writes.

    Raises:
        BitstreamError: it did not, or the payload ends in zeros, which the encoder cuts off.
    """
    if not is_complete or payload.endswith(b"\0"):
        raise BitstreamError(
            f"payload has {len(payload)} bytes that no {shape[0]}x{shape[1]}x{shape[2]} symbols are coded to: "
            "it is truncated or damaged, fetch it again"
        )


def writable(array: np.ndarray) -> np.ndarray:
    """Return an array of the one type that the walks are compiled for, a copy where it is read-only or strided."""
    return np.require(array, requirements=("C", "W"))


# An interval is (low, range_, position): the 64 bits behind the words before `position` lie in [low, low + range_). The
# decoder's low is the payload's 64 bits less the encoder's low: the payload lies in the interval while low < range_.
# Invariant before and after each decision: 2**32 <= range_ < 2**64.


@njit(nogil=True)
def first_interval(mode, words):
    """Return the interval of all payloads, and whether the decoder's payload lies in it: one number does not."""
    if mode != DECODE:
        return (np.uint64(0), FULL_RANGE, np.uint64(0)), True
    low = np.uint64(words[0]) << WORD_BITS | np.uint64(words[1])
    return (low, FULL_RANGE, TWO), low != FULL_RANGE


@njit(nogil=True)
def decide_evenly(mode, words, interval, bit):
    """Code one decision of probability 1/2 that has no state."""
    if mode == COUNT:
        return interval, bit
    split = interval[1] >> ONE
    if mode == DECODE:
        bit = interval[0] < split
    interval, carries = narrow(mode, interval, split, bit)
    if carries or interval[1] < MIN_RANGE:
        interval = renormalize(mode, words, interval, carries)
    return interval, bit


# Taken apart for speed: what is inlined takes no array, as numba would count references to it, two atomic operations a
# decision; what takes the words is called in one decision of many.


@njit(nogil=True, inline="always")
def narrow(mode, interval, split, bit):
    """Keep the first `split` numbers of the interval for yes, else the others; return whether the encoder's low wraps.

    `renormalize` must follow where it does, or where fewer than 2**32 numbers are left.
    """
    low, range_, position = interval
    skipped = np.uint64(0) if bit else split
    range_ = split if bit else range_ - split
    low = low - skipped if mode == DECODE else low + skipped
    return (low, range_, position), mode == ENCODE and low < skipped


@njit(nogil=True)
def renormalize(mode, words, interval, carries):
    """Carry; then, where few numbers are left, shift a word out of the interval, or into the decoder's.

    One word suffices: of at least 2**32 numbers either part has at least 2**16.
    """
    low, range_, position = interval
    if carries:
        carry(words, position)
    if range_ < MIN_RANGE:
        range_ <<= WORD_BITS
        if mode == DECODE:
            low = low << WORD_BITS | word_at(words, position)
        else:
            words[position] = np.uint32(low >> WORD_BITS)
            low <<= WORD_BITS
        position += ONE
    return low, range_, position


@njit(nogil=True)
def carry(words, position):
    """Add one to the number that the words before `position` form; it has room, as no interval leaves [0, 1)."""
    position -= ONE
    while words[position] == LOW_WORD:
        words[position] = 0
        position -= ONE
    words[position] += np.uint32(1)


@njit(nogil=True, inline="always")
def word_at(words, position):
    """Return a word of the payload; the last is zero, and so are all after it."""
    return np.uint64(words[min(position, np.uint64(words.size - 1))])


@njit(nogil=True)
def with_room(words, position, width):
    """Return the words, moved to a larger array where a row of symbols may not fit."""
    room = width * MAX_WORDS_PER_SYMBOL + 2
    if words.size - np.int64(position) >= room:
        return words
    grown = np.empty(2 * words.size + room, np.uint32)
    grown[:position] = words[:position]
    return grown


@njit(nogil=True)
def terminate(words, interval):
    """Write the number of the interval that ends in the most zeros; return all words."""
    low, range_, position = interval
    number = roundest(low, range_)
    if number < low:
        carry(words, position)
    words[position] = np.uint32(number >> WORD_BITS)
    words[position + ONE] = np.uint32(number)
    return words[: position + TWO]


@njit(nogil=True)
def is_terminated(words, interval):
    """Return whether all words were read, and the last two are what `terminate` writes."""
    low, range_, position = interval
    window = word_at(words, position - TWO) << WORD_BITS | word_at(words, position - ONE)
    return position >= np.uint64(words.size - 2) and window == roundest(window - low, range_)


@njit(nogil=True)
def roundest(low, range_):
    """Return the number in [low, low + range_) that ends in the most zero bits, modulo 2**64."""
    if low == 0 or np.uint64(0) - low < range_:
        return np.uint64(0)
    unit = ONE << np.uint64(63)
    while True:
        number = (low + (unit - ONE)) & ~(unit - ONE)
        if number - low < range_:
            return number
        unit >>= ONE


@njit(nogil=True)
def code_escape(mode, words, interval, value):
    """Code an integer from 1 on by Exp-Golomb: its number of bits after the first in unary, then these bits."""
    num_bits = 0
    while num_bits < MAX_ESCAPE_BITS:
        interval, more = decide_evenly(mode, words, interval, value >> (num_bits + 1) > 0)
        if not more:
            break
        num_bits += 1
    decoded = 1
    for shift in range(num_bits - 1, -1, -1):
        interval, bit = decide_evenly(mode, words, interval, value >> shift & 1 > 0)
        decoded = 2 * decoded + (1 if bit else 0)
    return interval, decoded
