"""A family of fitted models on disk: a folder with `bundle.json` and one safetensors file per quality.

A file holds the filters and GDN parameters of one model in half precision, and the integers that the entropy coders
start from. Its content hash is the model's fingerprint: what a bitstream is bound to. Integers are stored, never
derived again, so symbols decode identically on every machine and in every later release.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save
from torch import Tensor

from bls.bitstream import FINGERPRINT_NUM_BYTES
from bls.entropy.adaptive.model import AdaptiveModel
from bls.entropy.mixed.model import MixedModel
from bls.entropy.table import ProbabilityTable
from bls.transforms.gdn import GDN
from bls.transforms.layers import Downsample, Upsample
from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig

FORMAT = 1
MANIFEST = "bundle.json"
LMBDAS = {1: 0.0018, 2: 0.0035, 3: 0.0067, 4: 0.0130, 5: 0.0250, 6: 0.0483, 7: 0.0932, 8: 0.1800}
"""The field's usual ladder: quality to the weight of `lmbda * 255**2 * mse + bpp`."""


class BundleError(ValueError):
    """The folder is no bundle that this codec can load."""


@dataclass(frozen=True)
class FittedModel:
    """One model of a bundle: all that coding needs, and how it came about."""

    quality: int
    lmbda: float
    config: TransformConfig
    weights: Mapping[str, np.ndarray]
    """Parameters of `analysis.*` and `synthesis.*`, float16, filters in space."""
    table: ProbabilityTable
    adaptive: AdaptiveModel
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was fitted: free-form, for people and for comparisons."""
    mixed: MixedModel | None = None
    """None in bundles written before there was this coder."""

    @property
    def coders(self) -> tuple[str, ...]:
        """Names of the entropy coders that can be chosen, the one with the smallest bitstreams first."""
        return ("adaptive", "static") if self.mixed is None else ("mixed", "adaptive", "static")

    def to_bytes(self) -> bytes:
        """Serialise weights and integers; equal models give equal bytes."""
        arrays = dict(self.weights)
        arrays |= {f"table.{name}": array for name, array in self.table.to_arrays().items()}
        arrays |= {f"adaptive.{name}": array for name, array in self.adaptive.to_arrays().items()}
        if self.mixed is not None:
            arrays |= {f"mixed.{name}": array for name, array in self.mixed.to_arrays().items()}
        return save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})

    @property
    def fingerprint(self) -> bytes:
        """The first 8 bytes of the hash of weights and integers."""
        return fingerprint(self.to_bytes())

    def transforms(self) -> tuple[AnalysisTransform, SynthesisTransform]:
        """Return the transforms with these weights, in float32."""
        analysis, synthesis = AnalysisTransform(self.config), SynthesisTransform(self.config)
        for name, transform in (("analysis.", analysis), ("synthesis.", synthesis)):
            transform.load_state_dict(
                {
                    key.removeprefix(name): torch.from_numpy(value).float()
                    for key, value in self.weights.items()
                    if key.startswith(name)
                }
            )
        return analysis.eval().requires_grad_(False), synthesis.eval().requires_grad_(False)


@dataclass(frozen=True)
class Bundle:
    """Fitted models by quality, in ascending order."""

    models: Mapping[int, FittedModel]

    @property
    def fingerprint(self) -> bytes:
        """The first 8 bytes of the hash of the models' qualities and fingerprints."""
        parts = (quality.to_bytes(2, "big") + model.fingerprint for quality, model in sorted(self.models.items()))
        return fingerprint(b"".join(parts))


def fingerprint(data: bytes) -> bytes:
    """Return the first 8 bytes of the SHA-256 hash."""
    return hashlib.sha256(data).digest()[:FINGERPRINT_NUM_BYTES]


def half_precision_weights(analysis: AnalysisTransform, synthesis: SynthesisTransform) -> dict[str, np.ndarray]:
    """Return the parameters as a bundle stores them: filters in space (not their DCT), rounded to float16."""
    weights: dict[str, Tensor] = {}
    for prefix, transform in (("analysis", analysis), ("synthesis", synthesis)):
        for index, layer in enumerate(transform):
            if isinstance(layer, GDN):
                named: dict[str, Tensor] = {"beta_root": layer.beta_root, "gamma_root": layer.gamma_root}
            else:
                assert isinstance(layer, Downsample | Upsample) and layer.bias is not None
                named = {"weight": layer.weight, "bias": layer.bias}
            weights |= {f"{prefix}.{index}.{name}": value for name, value in named.items()}
    return {name: value.detach().cpu().half().numpy() for name, value in weights.items()}


def shipped_bundle() -> Path:
    """Return the folder of the bundle that comes with the package."""
    return Path(str(resources.files("bls"))) / "bundles" / "default"


def model_file(quality: int) -> str:
    """Return the name of the file of a model in a bundle."""
    return f"quality-{quality}.safetensors"


def save_bundle(folder: Path, models: Sequence[FittedModel]) -> None:
    """Write a bundle; the manifest comes last, so that a folder without one is no bundle yet."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for model in sorted(models, key=lambda model: model.quality):
        name = model_file(model.quality)
        _replace(folder / name, model.to_bytes())
        entries.append(
            {
                "quality": model.quality,
                "lmbda": model.lmbda,
                "file": name,
                "fingerprint": model.fingerprint.hex(),
                "config": asdict(model.config),
                "training": dict(model.training),
            }
        )
    _replace(folder / MANIFEST, json.dumps({"format": FORMAT, "models": entries}, indent=2).encode() + b"\n")


def load_bundle(folder: Path | str | None = None, *, quality: int | None = None) -> Bundle:
    """Read and verify a bundle, or one model of it; `folder` None stands for the shipped one.

    Raises:
        BundleError: no bundle there, of another format or without this quality, or a file does not match its
            fingerprint.
    """
    path = shipped_bundle() if folder is None else Path(folder)
    return read_bundle(lambda name: (path / name).read_bytes(), str(path), quality=quality)


def read_bundle(read: Callable[[str], bytes], folder: str, *, quality: int | None = None) -> Bundle:
    """Read and verify a bundle by what reads one of its files; `folder` is where it is, for messages.

    Raises:
        BundleError: as `load_bundle`.
    """
    try:
        manifest = json.loads(read(MANIFEST))
    except FileNotFoundError:
        raise BundleError(f"{folder} has no {MANIFEST}: pass the folder that jobs/train.py wrote") from None
    except ValueError as error:
        raise BundleError(f"{folder}/{MANIFEST} is no JSON ({error}): copy the bundle again") from error
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{folder} is a bundle of format {manifest.get('format')}, this release reads format {FORMAT}: "
            "load it with the release that wrote it"
        )
    entries = {entry["quality"]: entry for entry in manifest["models"]}
    if quality is not None and quality not in entries:
        raise BundleError(f"quality is {quality}, the bundle has {sorted(entries)}: choose one of these")
    wanted = entries if quality is None else {quality: entries[quality]}
    return Bundle({number: _read_model(read, folder, entry) for number, entry in wanted.items()})


def _read_model(read: Callable[[str], bytes], folder: str, entry: Mapping[str, Any]) -> FittedModel:
    if Path(entry["file"]).name != entry["file"]:
        raise BundleError(f"{MANIFEST} names {entry['file']!r}, expected a file beside it: copy the bundle again")
    path = f"{folder}/{entry['file']}"
    try:
        data = read(entry["file"])
    except FileNotFoundError:
        raise BundleError(f"{path} is missing, {MANIFEST} names it: copy the bundle again") from None
    if fingerprint(data).hex() != entry["fingerprint"]:
        raise BundleError(
            f"{path} has fingerprint {fingerprint(data).hex()}, {MANIFEST} says {entry['fingerprint']}: "
            "it is damaged or was exchanged, copy the bundle again"
        )
    arrays = load(data)
    mixed = _with_prefix(arrays, "mixed.")
    known = {f.name for f in fields(TransformConfig)}
    try:
        model = FittedModel(
            quality=entry["quality"],
            lmbda=entry["lmbda"],
            config=TransformConfig(**{name: value for name, value in entry["config"].items() if name in known}),
            weights={name: array for name, array in arrays.items() if name.startswith(("analysis.", "synthesis."))},
            table=ProbabilityTable.from_arrays(_with_prefix(arrays, "table.")),
            adaptive=AdaptiveModel.from_arrays(_with_prefix(arrays, "adaptive.")),
            mixed=MixedModel.from_arrays(mixed) if mixed else None,
            training=entry["training"],
        )
    except (ValueError, KeyError) as error:
        raise BundleError(f"{path} holds no model that this release can use: {error}") from error
    if not model.config.latents == model.table.channels == model.adaptive.channels:
        raise BundleError(
            f"{path} has {model.config.latents} latents, {model.table.channels} tables and "
            f"{model.adaptive.channels} channels to adapt: expected the same of each, copy the bundle again"
        )
    if model.mixed is not None and model.mixed.channels != model.adaptive.channels:
        raise BundleError(
            f"{path} has {model.adaptive.channels} channels to adapt and {model.mixed.channels} to mix: "
            "expected the same of both, copy the bundle again"
        )
    return model


def _with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
