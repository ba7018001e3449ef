"""A family of fitted networks on disk: a folder with `bundle.json` and one safetensors file per network.

What a network is, and what its file holds, is in `bls.network`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from bls.files import write_file
from bls.ladder import QualityError, QualityRange, check_disjoint, index_of, quality_of, quality_text
from bls.network import FittedNetwork, short_hash
from bls.transforms.networks import TransformConfig

FORMAT = 2
MANIFEST = "bundle.json"
_FINGERPRINTS = ("fingerprint", "analysis_fingerprint", "thumbnails_fingerprint")


class BundleError(ValueError):
    """The folder does not hold a bundle that this codec can load."""


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
        return short_hash("".join(parts).encode())

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
