"""A family of fitted networks on disk: a folder with `bundle.json` and one safetensors file per network.

A network serves a range of qualities. Its file holds the filters and GDN parameters of both transforms in half
precision, the gains by quality, and at some points of the range the integers that the entropy coders start from.
Integers are stored, never derived again, so symbols decode identically on every machine and in every later release.
The fingerprint is the hash of what decodes: all but the analysis transform and the filter for thumbnails. A better
encoder for the same decoder is an upgrade, and so are thumbnails.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
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
from bls.files import write_file
from bls.ladder import QualityError, QualityRange, check_disjoint, index_of, quality_of, quality_text
from bls.transforms.gains import StoredGains
from bls.transforms.gdn import GDN
from bls.transforms.layers import Downsample, Upsample
from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig
from bls.transforms.thumbnails import ThumbnailFilter

FORMAT = 2
MANIFEST = "bundle.json"
Arrays = Mapping[str, np.ndarray]
_NOT_DECODING = ("analysis.", "thumbnails.")
_FINGERPRINTS = ("fingerprint", "analysis_fingerprint", "thumbnails_fingerprint")


class BundleError(ValueError):
    """The folder does not hold a bundle that this codec can load."""


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


@dataclass(frozen=True)
class BundlePlace:
    """Where a bundle was loaded from, None for the shipped one, and which quality alone, if one was wanted."""

    folder: Path | None
    quality: float | None


@dataclass(frozen=True)
class Bundle:
    """Fitted networks, the one of the lowest qualities first.

    Pickled, a bundle that was loaded from a local folder is the name of the folder and the fingerprints of its
    networks; unpickling raises BundleError if the folder holds others by then.

    Raises:
        ValueError: there are none, or two serve the same quality.
    """

    networks: Sequence[FittedNetwork]
    place: BundlePlace | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.networks:
            raise ValueError("a bundle without networks: fit some with jobs/train.py")
        ordered = sorted(self.networks, key=lambda network: network.qualities)
        object.__setattr__(self, "networks", tuple(ordered))
        check_disjoint(self.qualities)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.place is None:
            return Bundle, (self.networks,)
        return _load_again, (self.place, self._fingerprints())

    @property
    def qualities(self) -> tuple[QualityRange, ...]:
        """The qualities that can be chosen, range by range."""
        return tuple(network.qualities for network in self.networks)

    @property
    def whole_qualities(self) -> tuple[float, ...]:
        """The whole numbers that can be chosen, and one quality of each network that serves no whole number."""
        return tuple(quality for each in self.qualities for quality in each.whole)

    @cached_property
    def fingerprint(self) -> bytes:
        """The first 8 bytes of the hash of the networks' fingerprints and ranges."""
        parts = (f"{network.qualities} {network.fingerprint.hex()}\n" for network in self.networks)
        return _short_hash("".join(parts).encode())

    def network(self, quality: float) -> FittedNetwork:
        """Return the network that serves a quality.

        Raises:
            QualityError: no network does.
        """
        return self.network_at(index_of(quality))

    def network_at(self, index: int) -> FittedNetwork:
        """Return the network that serves a quality's index.

        Raises:
            QualityError: no network does.
        """
        return self.networks[network_number(self.qualities, index)]

    def _fingerprints(self) -> list[list[bytes]]:
        return [[getattr(network, name) for name in _FINGERPRINTS] for network in self.networks]


def network_number(qualities: Sequence[QualityRange], index: int) -> int:
    """Return the number of the range that holds a quality's index.

    Raises:
        QualityError: no range does.
    """
    for number, each in enumerate(qualities):
        if index_of(each.low) <= index <= index_of(each.high):
            return number
    served = ", ".join(map(str, qualities))
    raise QualityError(f"quality is {quality_text(quality_of(index))}, the bundle serves {served}: choose one of these")


def shipped_bundle() -> Path:
    """Return the folder of the bundle that comes with the package."""
    return Path(str(resources.files("bls"))) / "bundles" / "default"


def network_file(qualities: QualityRange) -> str:
    """Return the name of the file of a network in a bundle."""
    return f"quality-{qualities.stem}.safetensors"


def save_bundle(folder: Path, networks: Sequence[FittedNetwork]) -> None:
    """Write a bundle; the manifest comes last, so that a folder without one is not a bundle yet."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for network in Bundle(networks).networks:
        name = network_file(network.qualities)
        write_file(folder / name, network.to_bytes())
        entries.append(
            {
                "qualities": [network.qualities.low, network.qualities.high],
                "file": name,
                **{each: getattr(network, each).hex() for each in _FINGERPRINTS},
                "config": asdict(network.config),
                "training": dict(network.training),
            }
        )
    manifest = json.dumps({"format": FORMAT, "networks": entries}, indent=2).encode() + b"\n"
    write_file(folder / MANIFEST, manifest)


def load_bundle(folder: Path | str | None = None, *, quality: float | None = None) -> Bundle:
    """Read and verify a bundle, or the network of one quality; `folder` None stands for the shipped one.

    Raises:
        BundleError: no bundle there, of another format or without this quality, or a file does not match its
            fingerprint.
    """
    path = shipped_bundle() if folder is None else Path(folder).absolute()
    bundle = read_bundle(lambda name: (path / name).read_bytes(), str(folder or path), quality=quality)
    return replace(bundle, place=BundlePlace(None if folder is None else path, quality))


def read_bundle(read: Callable[[str], bytes], folder: str, *, quality: float | None = None) -> Bundle:
    """Read and verify a bundle through a function that reads one of its files; messages call it `folder`.

    Raises:
        BundleError: as `load_bundle`.
    """
    entries = _read_manifest(read, folder)
    if quality is not None:
        try:
            entries = [entries[network_number([entry.qualities for entry in entries], index_of(quality))]]
        except QualityError as error:
            raise BundleError(str(error)) from error
    try:
        return Bundle([_read_network(read, folder, entry) for entry in entries])
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(f"{folder}: {error}") from error


def _load_again(place: BundlePlace, fingerprints: list[list[bytes]]) -> Bundle:
    bundle = load_bundle(place.folder, quality=place.quality)
    if bundle._fingerprints() != fingerprints:
        raise BundleError(
            f"{place.folder or shipped_bundle()} is not the bundle that was pickled, its networks have other "
            "fingerprints: put that bundle back, or pickle the codec again"
        )
    return bundle


@dataclass(frozen=True)
class _Entry:
    """A network as the manifest names it."""

    qualities: QualityRange
    file: str
    fingerprint: str
    analysis_fingerprint: str
    thumbnails_fingerprint: str
    config: TransformConfig
    training: Mapping[str, Any]

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "_Entry":
        known = {f.name for f in fields(TransformConfig)}
        low, high = value["qualities"]
        if Path(value["file"]).name != value["file"]:
            raise ValueError(f"it names {value['file']!r}, expected a file beside it")
        config = TransformConfig(**{name: item for name, item in value["config"].items() if name in known})
        values = {"thumbnails_fingerprint": "", **value}  # manifests of networks without thumbnails may lack it
        names = ("file", *_FINGERPRINTS, "training")
        return cls(QualityRange(low, high), config=config, **{name: values[name] for name in names})


def _read_manifest(read: Callable[[str], bytes], folder: str) -> list[_Entry]:
    try:
        manifest = json.loads(read(MANIFEST))
        found = manifest.get("format")
        if found == FORMAT:
            return [_Entry.of(entry) for entry in manifest["networks"]]
    except FileNotFoundError:
        raise BundleError(f"{folder} has no {MANIFEST}: pass the folder that jobs/train.py wrote") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise BundleError(f"{folder}/{MANIFEST} is damaged ({error}): copy the bundle again") from error
    raise BundleError(
        f"{folder} is a bundle of format {found}, this release reads format {FORMAT}: "
        "load it with the release that wrote it"
    )


def _read_network(read: Callable[[str], bytes], folder: str, entry: _Entry) -> FittedNetwork:
    path = f"{folder}/{entry.file}"
    try:
        data = read(entry.file)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing, {MANIFEST} names it: copy the bundle again") from None
    try:
        network = FittedNetwork.from_bytes(
            data, qualities=entry.qualities, config=entry.config, training=entry.training
        )
    except (ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise BundleError(f"{path} does not hold a network that this release can use: {error}") from error
    for name in _FINGERPRINTS:
        found, expected = getattr(network, name).hex(), getattr(entry, name)
        if found != expected:
            raise BundleError(
                f"{path} has {name} {found or 'none'}, {MANIFEST} says {expected or 'none'}: it is damaged or was "
                "exchanged, copy the bundle again"
            )
    return network


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


def _short_hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:FINGERPRINT_NUM_BYTES]
