"""Compress an image to a target: the quality is searched for that just meets it.

PSNR, MS-SSIM and size rise with quality, so a few tries close in on the target (`bls.search`). An image is analysed
once for each network that is tried; a try is a synthesis, or an entropy coding, and with effort a refinement first.
"""

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from bls.bitstream import Header
from bls.codec import Codec, Latents, Symbols, make_header
from bls.entropy.coders import CODERS
from bls.ladder import INDEX_STEPS, index_of, quality_of
from bls.measures import images as measures
from bls.measures.ms_ssim import MS_SSIM_MIN_SIDE
from bls.pixels import Pixels
from bls.search import Crossing, find_crossing

Kind = Literal["psnr_db", "ms_ssim", "num_bytes", "bpp"]
TOLERANCES = {"psnr_db": 0.02, "ms_ssim": 0.0005}
"""A measure may exceed its target by this, if a lower quality would miss it."""
SIZE_TOLERANCE = 0.005
"""A bitstream may fall short of its target by this part, and is never larger."""
FIRST_TRY = 4.0
SLOPES = {"psnr_db": 1.5, "ms_ssim": 0.2, "num_bytes": 0.4, "bpp": 0.4}
"""Roughly how much the excess over a target rises from one quality to the next."""
_MAX_PSNR_DB = 100.0  # of an image that is restored without an error


@dataclass(frozen=True)
class Target:
    """What is asked of an image: a least PSNR or MS-SSIM, or a largest number of bytes or bits per pixel.

    Raises:
        ValueError: the value is out of range.
    """

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        highest = {"ms_ssim": 1.0, "psnr_db": _MAX_PSNR_DB}.get(self.kind, math.inf)
        if not 0 < self.value < highest:
            below = "" if highest == math.inf else f" and below {highest:g}"
            raise ValueError(f"target {self.kind} is {self.value:g}, expected a number above 0{below}")

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read what `str` says of a target."""
        kind, _, value = text.split()
        return cls(kind, float(value))  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"{self.kind} {'<=' if self.is_size else '>='} {self.value:.15g}"

    @property
    def is_size(self) -> bool:
        """Whether this bounds the size; else it bounds the error."""
        return self.kind in ("num_bytes", "bpp")

    def bound(self, x: Pixels) -> float:
        """Return the target of an image, a size in bytes."""
        return self.value * x.shape[0] * x.shape[1] / 8 if self.kind == "bpp" else self.value


@dataclass(frozen=True)
class Compressed:
    """A bitstream, the quality that was found, and whether it meets the target; if not, no quality does.

    `x_hat` is what its symbols decode to, and `ms_ssim` its likeness to the image, both None if the search did not need
    them; `seconds` are spent by stage.
    """

    bitstream: bytes
    quality: float
    is_met: bool
    symbols: Symbols
    x_hat: Pixels | None
    ms_ssim: float | None
    seconds: dict[str, float]


def compress_to_target(
    codec: Codec,
    x: Pixels,
    target: Target,
    *,
    coder: str = CODERS[0],
    effort: int = 0,
    more_num_bytes: int = 0,
    latents: Latents | None = None,
) -> Compressed:
    """Return the bitstream of the lowest quality that meets a target of error, or the highest of a size.

    `more_num_bytes` are added to the size of each bitstream, for what a file has around it. `latents` are those
    of the quality `first_try(codec)`, if they are known.

    Raises:
        ValueError: the target is an MS-SSIM and the image is too small to have one.
    """
    if target.kind == "ms_ssim" and min(x.shape[:2]) < MS_SSIM_MIN_SIDE:
        raise ValueError(f"image has {x.shape[1]}x{x.shape[0]} pixels, MS-SSIM needs {MS_SSIM_MIN_SIDE} a side")
    tries = _Tries(codec, x, target, coder, effort, more_num_bytes)
    if latents is not None:
        tries.latents[codec.model_fingerprint(first_try(codec))] = latents
    crossing = find_crossing(
        tries.excess,
        [range(index_of(each.low), index_of(each.high) + 1) for each in codec.bundle.qualities],
        first=index_of(first_try(codec)),
        slope=SLOPES[target.kind] / INDEX_STEPS,
        window=tries.window,
    )
    return tries.result(crossing)


def first_try(codec: Codec) -> float:
    """Return the quality at which a search begins."""
    return min(codec.bundle.whole_qualities, key=lambda quality: abs(quality - FIRST_TRY))


@dataclass
class _Tries:
    """Codings of one image at several qualities; what was done last is kept, as it is likely to be the result."""

    codec: Codec
    x: Pixels
    target: Target
    coder: str
    effort: int
    more_num_bytes: int
    latents: dict[bytes, Latents] = field(default_factory=dict)
    """By the fingerprint of their network."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    last_index: int = -1
    last_symbols: Symbols | None = None
    last_bitstream: bytes | None = None
    last_x_hat: Pixels | None = None
    last_ms_ssim: float | None = None

    @property
    def window(self) -> tuple[float, float]:
        """The excess that is close enough to the target."""
        bound = self.target.bound(self.x)
        if self.target.is_size:
            return math.log(1 - SIZE_TOLERANCE), 0.0
        return 0.0, self._scaled(bound + TOLERANCES[self.target.kind]) - self._scaled(bound)

    def excess(self, index: int) -> float:
        """Return by how much a quality exceeds the target, on a scale on which it rises evenly with quality."""
        return self._scaled(self._measure(index)) - self._scaled(self.target.bound(self.x))

    def result(self, crossing: Crossing) -> Compressed:
        """Return the bitstream of the quality that was found, or of the nearer end of the range."""
        sides = (crossing.below, crossing.above) if self.target.is_size else (crossing.above, crossing.below)
        index, is_met = (crossing.close, True) if crossing.close is not None else (sides[0], sides[0] is not None)
        index = sides[1] if index is None else index
        assert index is not None
        bitstream = self._bitstream(index)
        symbols = self._symbols(index)
        return Compressed(
            bitstream, quality_of(index), is_met, symbols, self.last_x_hat, self.last_ms_ssim, dict(self.seconds)
        )

    def _measure(self, index: int) -> float:
        if self.target.is_size:
            return len(self._bitstream(index)) + self.more_num_bytes
        x_hat = self._x_hat(index)
        with self._stage("quality"):
            if self.target.kind == "psnr_db":
                return measures.psnr_db(measures.mse_255(self.x, x_hat))
            self.last_ms_ssim = measures.ms_ssim(self.x, x_hat)
        assert self.last_ms_ssim is not None
        return self.last_ms_ssim

    def _scaled(self, value: float) -> float:
        if self.target.is_size:
            return math.log(value)
        return min(value, _MAX_PSNR_DB) if self.target.kind == "psnr_db" else -math.log10(max(1 - value, 1e-9))

    def _bitstream(self, index: int) -> bytes:
        symbols = self._symbols(index)
        if self.last_bitstream is None:
            with self._stage("entropy_encode"):
                self.last_bitstream = self.codec.encode(symbols, header=self._header(index))
        return self.last_bitstream

    def _x_hat(self, index: int) -> Pixels:
        """Return what the decoder shows: the coders lose nothing."""
        symbols = self._symbols(index)
        if self.last_x_hat is None:
            with self._stage("synthesis"):
                (self.last_x_hat,) = self.codec.synthesize([(self._header(index), symbols)])
        return self.last_x_hat

    def _symbols(self, index: int) -> Symbols:
        if index != self.last_index or self.last_symbols is None:
            with self._stage("analysis"):
                self.last_symbols = self._analyze(quality_of(index))
            self.last_index = index
            self.last_bitstream = self.last_x_hat = self.last_ms_ssim = None
        return self.last_symbols

    def _analyze(self, quality: float) -> Symbols:
        if self.effort:
            (symbols,) = self.codec.analyze([self.x], quality=quality, coder=self.coder, effort=self.effort)
            return symbols
        return self.codec.quantize(self._latents(quality), quality=quality)

    def _latents(self, quality: float) -> Latents:
        fingerprint = self.codec.model_fingerprint(quality)
        if fingerprint not in self.latents:
            (self.latents[fingerprint],) = self.codec.latents([self.x], quality=quality)
        return self.latents[fingerprint]

    def _header(self, index: int) -> Header:
        return make_header(self.x, quality=quality_of(index), coder=self.coder)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start
