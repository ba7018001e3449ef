"""Compress an image to a target: the quality is searched for that just meets it.

PSNR, MS-SSIM and size rise with quality, so a few tries close in on the target: at first where the usual slope reaches
it, further each time while all lie on one side, then where a straight line between both sides does. An image is
analysed once for each network that is tried.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

from bls.bitstream import Header
from bls.codec import Codec, Latents, Symbols, make_header
from bls.entropy.coders import CODERS
from bls.ladder import INDEX_STEPS, index_of, quality_of
from bls.measures import images as measures
from bls.measures.ms_ssim import MS_SSIM_MIN_SIDE
from bls.pixels import Pixels

Kind = Literal["psnr_db", "ms_ssim", "num_bytes", "bpp"]
TOLERANCES = {"psnr_db": 0.02, "ms_ssim": 0.0005}
"""A measure may exceed its target by this, if a lower quality would miss it."""
SIZE_TOLERANCE = 0.005
"""A bitstream may fall short of its target by this part, and is never larger."""
MAX_TRIES = 16
FIRST_TRY = 4.0
SLOPES = {"psnr_db": 2.0, "ms_ssim": 0.2, "num_bytes": 0.45, "bpp": 0.45}
"""Roughly how much the excess over a target rises from one quality to the next."""


@dataclass(frozen=True)
class Target:
    """What is asked of an image: a least PSNR or MS-SSIM, or a largest number of bytes or bits per pixel.

    Raises:
        ValueError: the value is out of range.
    """

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        highest = {"ms_ssim": 1.0, "psnr_db": 100.0}.get(self.kind, math.inf)
        if not 0 < self.value < highest:
            below = "" if highest == math.inf else f" and below {highest:g}"
            raise ValueError(f"target {self.kind} is {self.value:g}, expected a number above 0{below}")

    @property
    def is_size(self) -> bool:
        """Whether this bounds the size; else it bounds the error."""
        return self.kind in ("num_bytes", "bpp")

    def bound(self, x: Pixels) -> float:
        """Return the target of an image, a size in bytes."""
        return self.value * x.shape[0] * x.shape[1] / 8 if self.kind == "bpp" else self.value


@dataclass(frozen=True)
class Compressed:
    """A bitstream, the quality that was found, and whether it meets the target; if not, no quality does."""

    bitstream: bytes
    quality: float
    is_met: bool


def compress_to_target(
    codec: Codec, x: Pixels, target: Target, *, coder: str = CODERS[0], more_num_bytes: int = 0
) -> Compressed:
    """Return the bitstream of the lowest quality that meets a target of error, or the highest of a size.

    `more_num_bytes` are added to the size of each bitstream, for what a file has around it.

    Raises:
        ValueError: the target is an MS-SSIM and the image is too small to have one.
        BitstreamError: the target is a PSNR or an MS-SSIM, and the image has more pixels than the codec decodes.
    """
    if target.kind == "ms_ssim" and min(x.shape[:2]) < MS_SSIM_MIN_SIDE:
        raise ValueError(f"image has {x.shape[1]}x{x.shape[0]} pixels, MS-SSIM needs {MS_SSIM_MIN_SIDE} a side")
    attempts = _Attempts(codec, x, target, coder, more_num_bytes)
    served = [index for each in codec.bundle.qualities for index in range(index_of(each.low), index_of(each.high) + 1)]
    last = len(served) - 1
    # Places in the list, which has no gaps: below falls short of the target, above reaches it; unknown at first.
    below, above = -1, len(served)
    place = bisect_left(served, index_of(FIRST_TRY)) if served[0] <= index_of(FIRST_TRY) <= served[last] else last // 2
    stride = 1
    for _ in range(MAX_TRIES):
        excess = attempts.excess(served[place])
        if attempts.is_close(served[place]):
            return attempts.result(served[place], is_met=True)
        below, above = (place, above) if excess < 0 else (below, place)
        if above - below <= 1:
            break
        if below >= 0 and above <= last:
            ends = attempts.excess(served[below]), attempts.excess(served[above])
            place = below + _crossing(*ends, above - below)
        else:  # a little further than the usual slope says, so that the target is likely to lie between
            stride = max(2 * stride, round(1.2 * abs(excess) / SLOPES[target.kind] * INDEX_STEPS))
            place = min(place + stride, last) if excess < 0 else max(place - stride, 0)
    if target.is_size:
        return attempts.result(served[max(below, 0)], is_met=below >= 0)
    return attempts.result(served[min(above, last)], is_met=above <= last)


def _crossing(below: float, above: float, distance: int) -> int:
    """Return how far from the lower end a straight line crosses zero, kept a tenth away from both ends."""
    part = min(max(below / (below - above), 0.1), 0.9)
    return min(max(round(part * distance), 1), distance - 1)


class _Attempts:
    """Codings of one image at several qualities, each done once."""

    def __init__(self, codec: Codec, x: Pixels, target: Target, coder: str, more_num_bytes: int) -> None:
        self._codec = codec
        self._x = x
        self._target = target
        self._coder = coder
        self._more_num_bytes = more_num_bytes
        self._bound = target.bound(x)
        self._latents: dict[bytes, Latents] = {}
        self._values: dict[int, float] = {}
        self._bitstreams: dict[int, bytes] = {}

    def excess(self, index: int) -> float:
        """Return by how much a quality exceeds the target, on a scale on which it rises evenly with quality."""
        return self._scaled(self._value(index)) - self._scaled(self._bound)

    def is_close(self, index: int) -> bool:
        """Return whether a quality meets the target closely enough."""
        value = self._value(index)
        if self._target.is_size:
            return (1 - SIZE_TOLERANCE) * self._bound <= value <= self._bound
        return self._bound <= value <= self._bound + TOLERANCES[self._target.kind]

    def result(self, index: int, *, is_met: bool) -> Compressed:
        """Return the bitstream of a quality."""
        bitstream = self._bitstream(index)
        if not self._target.is_size:
            self._codec.decode(bitstream)  # a promised error is that of a bitstream that this codec decodes
        return Compressed(bitstream, quality_of(index), is_met)

    def _value(self, index: int) -> float:
        if index not in self._values:
            self._values[index] = self._measure(index)
        return self._values[index]

    def _measure(self, index: int) -> float:
        if self._target.is_size:
            return len(self._bitstream(index)) + self._more_num_bytes
        # What the decoder shows: the coders lose nothing.
        (x_hat,) = self._codec.synthesize([(self._header(index), self._symbols(index))])
        if self._target.kind == "psnr_db":
            return measures.psnr_db(measures.mse_255(self._x, x_hat))
        ms_ssim = measures.ms_ssim(self._x, x_hat)
        assert ms_ssim is not None
        return ms_ssim

    def _scaled(self, value: float) -> float:
        if self._target.is_size:
            return math.log(value)
        return value if self._target.kind == "psnr_db" else -math.log10(max(1 - value, 1e-9))

    def _bitstream(self, index: int) -> bytes:
        if index not in self._bitstreams:
            self._bitstreams[index] = self._codec.encode(self._symbols(index), header=self._header(index))
        return self._bitstreams[index]

    def _symbols(self, index: int) -> Symbols:
        quality = quality_of(index)
        fingerprint = self._codec.model_fingerprint(quality)
        if fingerprint not in self._latents:
            (self._latents[fingerprint],) = self._codec.latents([self._x], quality=quality)
        return self._codec.quantize(self._latents[fingerprint], quality=quality)

    def _header(self, index: int) -> Header:
        return make_header(self._x, quality=quality_of(index), coder=self._coder)
