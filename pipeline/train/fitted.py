"""Fitted networks and their training curves in the storage folder of a train job; no Ray.

fitted/quality-1-4.5/   a bundle of one network, and its curve; done.json comes last
"""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bls.bundle import MANIFEST, read_bundle, save_bundle
from bls.ladder import QualityRange
from bls.network import FittedNetwork
from pipeline.ledger.damage import parsing
from pipeline.ledger.schema import TRAINING_CURVE, to_parquet
from pipeline.storage.folder import Folder, list_names
from pipeline.train.fit import FitConfig

CURVE = "curve.parquet"
DONE = "done.json"


def write_fitted(storage: Folder, network: FittedNetwork, curve: Sequence[Mapping[str, Any]], *, step: int) -> None:
    """Keep a network with its curve: rows of `pipeline.ledger.schema.TRAINING_CURVE`."""
    folder = _folder(storage, network.qualities)
    with tempfile.TemporaryDirectory() as temporary:
        save_bundle(Path(temporary), [network])
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path.name == MANIFEST):
            folder.write(path.name, path.read_bytes())
    folder.write(CURVE, to_parquet(curve, TRAINING_CURVE, metadata={"qualities": str(network.qualities)}))
    folder.write(DONE, json.dumps({"step": step}).encode())


def read_fitted(storage: Folder, qualities: QualityRange) -> FittedNetwork | None:
    """Return a network that was fitted before, or None."""
    folder = _folder(storage, qualities)
    if not folder.holds(DONE):
        return None
    (network,) = read_bundle(folder.read, str(folder)).networks
    return network


def read_curve(storage: Folder, qualities: QualityRange) -> pa.Table:
    """Return the training curve of a fitted network."""
    return pq.read_table(io.BytesIO(_folder(storage, qualities).read(CURVE)))


def check_settings(storage: Folder, fit: FitConfig, *, data: Sequence[str], init: str) -> None:
    """Note a network's settings when it is begun, and refuse to go on with others.

    Raises:
        ValueError: names the settings that differ, or a file that this job would take for its own.
    """
    settings = {**json.loads(json.dumps(asdict(fit))), "data": data, "init": init}
    run = f"quality-{fit.qualities.stem}"
    name = f"{run}.json"
    if not storage.holds(name):
        _check_free(storage, run, f"fitted/{run}")
    if storage.create(name, json.dumps(settings, indent=2).encode()):
        return
    stored = storage.read(name)
    with parsing(storage, name):
        begun = dict(json.loads(stored))
    differing = [key for key in settings if begun.get(key) != settings[key]]
    if differing:
        raise ValueError(
            f"{storage}/{name} was begun with {_pairs(begun, differing)}, this run has {_pairs(settings, differing)}: "
            "give the same flags, or another --storage"
        )


def _check_free(storage: Folder, *folders: str) -> None:
    for folder in folders:
        if (there := next(iter(list_names(storage.child(folder))), None)) is not None:
            raise ValueError(
                f"{storage} holds files that this job did not write, {folder}/{there} for example: "
                "use another --storage, or move them away"
            )


def _pairs(settings: Mapping[str, object], keys: Sequence[str]) -> str:
    return "; ".join(f"{key} {settings.get(key)}" for key in keys)


def _folder(storage: Folder, qualities: QualityRange) -> Folder:
    return storage.child(f"fitted/quality-{qualities.stem}")
