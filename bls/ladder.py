"""What a quality means: a weight of the distortion, and an index in the header.

Quality is a real number from 1 to 8. At the integers it is the field's usual ladder of lambdas, .0018 to .18, which
rises by the same factor from one to the next; between them it goes on rising evenly. The header's index of lambda
(Ballé, Laparra, Simoncelli, ICLR 2017) counts steps of 1/256 of a quality.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

MIN_QUALITY, MAX_QUALITY = 1.0, 8.0
INDEX_STEPS = 256
"""Steps of the index from one quality to the next."""
_FIRST_LMBDA, _LAST_LMBDA = 0.0018, 0.18


class QualityError(ValueError):
    """A quality that is not a number from 1 to 8."""


Number = TypeVar("Number")


def lmbda_of(quality: Number) -> Number:
    """Return the weight of a quality, or of each of an array, in `lmbda * 255**2 * mse + bpp`: .0018 at 1, .18 at 8."""
    part = (quality - MIN_QUALITY) / (MAX_QUALITY - MIN_QUALITY)  # type: ignore[operator]
    lmbda: Number = _FIRST_LMBDA * (_LAST_LMBDA / _FIRST_LMBDA) ** part
    return lmbda


def index_of(quality: float) -> int:
    """Return the index of a quality, the nearest step.

    Raises:
        QualityError: not a number from 1 to 8.
    """
    if isinstance(quality, bool) or not isinstance(quality, int | float) or not MIN_QUALITY <= quality <= MAX_QUALITY:
        raise QualityError(f"quality is {quality!r}, expected a number from {MIN_QUALITY:g} to {MAX_QUALITY:g}")
    return round(quality * INDEX_STEPS)


def quality_of(index: int) -> float:
    """Return the quality of an index."""
    return index / INDEX_STEPS


def quality_text(quality: float) -> str:
    """Return a quality as its shortest text: 4, 4.37."""
    return f"{quality:.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, order=True)
class QualityRange:
    """The qualities that one network serves, both ends included; a network of a single quality has equal ends.

    Raises:
        QualityError: an end is not a quality, or they are the wrong way round.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if index_of(self.low) > index_of(self.high):
            raise QualityError(f"quality {self.low:g} is above {self.high:g}: give the lower one first")

    def __contains__(self, quality: float) -> bool:
        return index_of(self.low) <= index_of(quality) <= index_of(self.high)

    def __str__(self) -> str:
        ends = (quality_text(self.low), quality_text(self.high))
        return ends[0] if self.is_single else ":".join(ends)

    @property
    def is_single(self) -> bool:
        """Whether this is one quality."""
        return index_of(self.low) == index_of(self.high)

    def overlaps(self, other: "QualityRange") -> bool:
        """Return whether both serve some quality."""
        return index_of(self.low) <= index_of(other.high) and index_of(other.low) <= index_of(self.high)

    @property
    def stem(self) -> str:
        """The range as it stands in the names of files: 4, 1-4.5."""
        return str(self).replace(":", "-")

    @property
    def middle(self) -> float:
        """The quality in the middle."""
        return (self.low + self.high) / 2

    @property
    def whole(self) -> list[float]:
        """The whole numbers in the range; its middle if there are none."""
        inside = [float(quality) for quality in range(math.ceil(self.low), math.floor(self.high) + 1)]
        return inside or [self.middle]

    @classmethod
    def parse(cls, text: str) -> "QualityRange":
        """Read a range as `1:4.5`, or a single quality as `4`.

        Raises:
            QualityError: it is neither.
        """
        low, _, high = text.partition(":")
        try:
            ends = float(low), float(high or low)
        except ValueError as error:
            raise QualityError(f"{text!r} is not a range of qualities: expected one such as 1:4.5, or 4") from error
        return cls(*ends)

    def spread(self, spacing: float) -> list[float]:
        """Return qualities from one end to the other, evenly spread, at most `spacing` apart; one if they are equal."""
        if self.is_single:
            return [self.low]
        count = math.ceil((self.high - self.low) / spacing)
        return [self.low + (self.high - self.low) * n / count for n in range(count + 1)]


def check_disjoint(ranges: Sequence[QualityRange]) -> None:
    """Do nothing if no two ranges serve the same quality.

    Raises:
        QualityError: names two that do.
    """
    for lower, upper in pairwise(sorted(ranges)):
        if lower.overlaps(upper):
            raise QualityError(f"qualities {lower} and {upper} overlap: let each be served by one network")
