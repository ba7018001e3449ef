"""One fitted network: its parts, and the bytes that it is stored as.

A network serves a range of qualities. Stored are the filters and GDN parameters of both transforms in half precision,
the gains by quality, and at some points of the range the integers that the entropy coders start from. Integers are
stored, never derived again, so symbols decode identically on every machine and in every later release. The fingerprint
is the hash of what decodes: all but the analysis transform and the filter for thumbnails. A better encoder for the same
decoder is an upgrade, and so are thumbnails.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor, nn

from bls.bitstream import FINGERPRINT_NUM_BYTES
from bls.entropy.adaptive.model import AdaptiveModel
from bls.entropy.coders import StartingStates
from bls.entropy.mixed.model import MixedModel
from bls.entropy.table import ProbabilityTable
from bls.ladder import QualityRange, index_of
from bls.transforms.gains import StoredGains
from bls.transforms.gdn import GDN
from bls.transforms.layers import Downsample, Upsample
from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig
from bls.transforms.thumbnails import ThumbnailFilter

Arrays = Mapping[str, np.ndarray]
_NOT_DECODING = ("analysis.", "thumbnails.")


@dataclass(frozen=True)
class TransformWeights:
    """The parameters of both transforms, as a bundle stores them: float16, filters in space (not their DCT).

    Raises:
        ValueError: they are not the parameters of this architecture, or one is not finite.
    """

    config: TransformConfig
    analysis: Arrays
    synthesis: Arrays

    def __post_init__(self) -> None:
        for name, transform in (("analysis", AnalysisTransform), ("synthesis", SynthesisTransform)):
            with torch.device("meta"):
                expected = {key: tuple(value.shape) for key, value in transform(self.config).state_dict().items()}
            _check_weights(name, getattr(self, name), expected)

    @classmethod
    def of(
        cls, config: TransformConfig, analysis: AnalysisTransform, synthesis: SynthesisTransform
    ) -> "TransformWeights":
        """Round the parameters of transforms to what is stored."""
        return cls(config, _half_precision(analysis), _half_precision(synthesis))

    def transforms(self) -> tuple[AnalysisTransform, SynthesisTransform]:
        """Return the transforms with these weights, in float32."""
        analysis, synthesis = AnalysisTransform(self.config), SynthesisTransform(self.config)
        for transform, weights in ((analysis, self.analysis), (synthesis, self.synthesis)):
            transform.load_state_dict({name: torch.from_numpy(value).float() for name, value in weights.items()})
            transform.eval().requires_grad_(False)
        return analysis, synthesis


@dataclass(frozen=True)
class FittedNetwork:
    """One network of a bundle: all that coding needs, and how it was fitted.

    Raises:
        ValueError: its parts do not belong together.
    """

    qualities: QualityRange
    weights: TransformWeights
    gains: StoredGains
    states: Sequence[StartingStates]
    """Starting states of the entropy coders at some qualities of the range, the lowest first."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was fitted: free-form, for people and for comparisons."""
    thumbnails: ThumbnailFilter | None = None
    """What small pictures are made by; a network may have none."""

    def __post_init__(self) -> None:
        latents = self.config.latents
        if not self.states:
            raise ValueError(f"network of qualities {self.qualities} has no entropy coder: write the bundle again")
        counts = {self.gains.channels, *(states.channels for states in self.states)}
        if counts != {latents}:
            raise ValueError(
                f"network of qualities {self.qualities} has {latents} latents, its gains and coders are for "
                f"{', '.join(map(str, sorted(counts)))}: write the bundle again"
            )
        ends = index_of(self.qualities.low), index_of(self.qualities.high)
        if (self.gains.indices[0], self.gains.indices[-1]) != ends:
            raise ValueError(
                f"gains of the network of qualities {self.qualities} end elsewhere: write the bundle again"
            )
        places = [states.index for states in self.states]
        if places != sorted(set(places)) or not ends[0] <= places[0] <= places[-1] <= ends[1]:
            raise ValueError(f"coders of network {self.qualities} stand at {places}, not in its range")
        if self.thumbnails and (self.thumbnails.latents, self.thumbnails.channels) != (latents, self.config.channels):
            raise ValueError(f"thumbnails of network {self.qualities} are of another network: fit them again")

    @property
    def config(self) -> TransformConfig:
        """The transforms' architecture."""
        return self.weights.config

    @cached_property
    def fingerprint(self) -> bytes:
        """The first 8 bytes of the hash of what decodes: what a bitstream is bound to."""
        decoding = {name: array for name, array in self._arrays().items() if not name.startswith(_NOT_DECODING)}
        return _fingerprint(decoding)

    @cached_property
    def analysis_fingerprint(self) -> bytes:
        """The first 8 bytes of the hash of the analysis transform: which encoder wrote, for provenance."""
        return _fingerprint({f"analysis.{name}": array for name, array in self.weights.analysis.items()})

    @cached_property
    def thumbnails_fingerprint(self) -> bytes:
        """The first 8 bytes of the hash of the filter for thumbnails, or nothing."""
        return b"" if self.thumbnails is None else _fingerprint(self.thumbnails.to_arrays())

    def states_at(self, index: int) -> StartingStates:
        """Return what the coders start from at a quality's index: the nearest stored point, the lower of two."""
        return min(self.states, key=lambda states: (abs(states.index - index), states.index))

    def to_bytes(self) -> bytes:
        """Serialise it; equal networks give equal bytes."""
        arrays = self._arrays()
        return save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})

    @classmethod
    def from_bytes(
        cls, data: bytes, *, qualities: QualityRange, config: TransformConfig, training: Mapping[str, Any]
    ) -> "FittedNetwork":
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: it is not a network of this architecture and these qualities.
        """
        try:
            arrays = load(data)
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"not a safetensors file ({error})") from error
        return cls(
            qualities,
            TransformWeights(config, _with_prefix(arrays, "analysis."), _with_prefix(arrays, "synthesis.")),
            StoredGains.from_arrays(_with_prefix(arrays, "gains.")),
            [_states(_with_prefix(arrays, f"{place:04d}."), place) for place in _places(arrays)],
            training,
            ThumbnailFilter.from_arrays(thumbnails) if (thumbnails := _with_prefix(arrays, "thumbnails.")) else None,
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        parts: dict[str, Arrays] = {"analysis": self.weights.analysis, "synthesis": self.weights.synthesis}
        parts["gains"] = self.gains.to_arrays()
        parts["thumbnails"] = {} if self.thumbnails is None else self.thumbnails.to_arrays()
        for states in self.states:
            parts[f"{states.index:04d}.table"] = states.table.to_arrays()
            parts[f"{states.index:04d}.adaptive"] = states.adaptive.to_arrays()
            parts[f"{states.index:04d}.mixed"] = states.mixed.to_arrays()
        return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


def _check_weights(name: str, weights: Arrays, expected: Mapping[str, tuple[int, ...]]) -> None:
    found = {key: value.shape for key, value in weights.items()}
    if found != expected:
        different = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
        raise ValueError(f"{name} transform has other parameters than its architecture: {', '.join(different[:3])}")
    for key, value in weights.items():
        if value.dtype != np.float16 or not np.isfinite(value).all():
            raise ValueError(f"{name}.{key} is not finite float16: write the bundle again")


def _half_precision(transform: nn.Sequential) -> dict[str, np.ndarray]:
    weights: dict[str, Tensor] = {}
    for index, layer in enumerate(transform):
        if isinstance(layer, GDN):
            named: dict[str, Tensor] = {"beta_root": layer.beta_root, "gamma_root": layer.gamma_root}
        else:
            assert isinstance(layer, Downsample | Upsample) and layer.bias is not None
            named = {"weight": layer.weight, "bias": layer.bias}
        weights |= {f"{index}.{name}": value for name, value in named.items()}
    return {name: value.detach().cpu().half().numpy() for name, value in weights.items()}


def _states(arrays: Arrays, index: int) -> StartingStates:
    return StartingStates(
        index,
        ProbabilityTable.from_arrays(_with_prefix(arrays, "table.")),
        AdaptiveModel.from_arrays(_with_prefix(arrays, "adaptive.")),
        MixedModel.from_arrays(_with_prefix(arrays, "mixed.")),
    )


def _places(arrays: Arrays) -> list[int]:
    """Return the quality indices at which coders start, in order."""
    firsts = {name.partition(".")[0] for name in arrays}
    return sorted(int(first) for first in firsts if len(first) == 4 and first.isdecimal() and first.isascii())


def _with_prefix(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _fingerprint(arrays: Arrays) -> bytes:
    """Return the short hash of arrays: of each, by name, a line with its name, type and shape, then its bytes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        little_endian = array.dtype.newbyteorder("<")
        digest.update(f"{name} {little_endian.str} {'x'.join(map(str, array.shape))}\n".encode())
        digest.update(array.astype(little_endian, copy=False).tobytes())
    return digest.digest()[:FINGERPRINT_NUM_BYTES]


def short_hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:FINGERPRINT_NUM_BYTES]
