"""The entropy coders by name, and what they start from at one point of a network's range of qualities."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from jaxtyping import Int32

from bls.bitstream import Coder
from bls.entropy.adaptive.coder import AdaptiveCoder
from bls.entropy.adaptive.model import AdaptiveModel
from bls.entropy.mixed.coder import MixedCoder
from bls.entropy.mixed.model import MixedModel
from bls.entropy.static import StaticCoder
from bls.entropy.table import ProbabilityTable

CODERS = ("mixed", "adaptive", "static")
"""Names of the entropy coders, the one with the smallest bitstreams first."""


class EntropyCoder(Protocol):
    """Symbols to bytes and back; may be used by several threads at once."""

    def encode(self, symbols: Int32[np.ndarray, "c h w"]) -> bytes:
        """Code symbols into a payload."""
        ...

    def decode(self, payload: bytes, shape: tuple[int, int, int]) -> Int32[np.ndarray, "c h w"]:
        """Decode the symbols of a payload.

        Raises:
            BitstreamError: the payload is not what `encode` writes for any symbols of this shape.
        """
        ...


@dataclass(frozen=True)
class StartingStates:
    """What the entropy coders start from at one quality; `index` is that quality's.

    Raises:
        ValueError: the coders are for different numbers of channels.
    """

    index: int
    table: ProbabilityTable
    adaptive: AdaptiveModel
    mixed: MixedModel

    def __post_init__(self) -> None:
        counts = (self.table.channels, self.adaptive.channels, self.mixed.channels)
        if len(set(counts)) > 1:
            raise ValueError(f"static, adaptive and mixed coder have {counts} channels, expected the same of each")

    @property
    def channels(self) -> int:
        """How many channels are coded."""
        return self.table.channels

    @cached_property
    def coders(self) -> Mapping[Coder, EntropyCoder]:
        """The entropy coders."""
        return {
            Coder.STATIC: StaticCoder(self.table),
            Coder.ADAPTIVE: AdaptiveCoder(self.adaptive),
            Coder.MIXED: MixedCoder(self.adaptive, self.mixed),
        }


def coder_of(name: str) -> Coder:
    """Return the entropy coder of a name.

    Raises:
        ValueError: no coder has this name.
    """
    if name not in CODERS:
        raise ValueError(f"coder is {name!r}, expected {', '.join(CODERS)}")
    return Coder[name.upper()]
