"""Fitted models and their training curves in the storage folder of a train job; no Ray.

fitted/quality-4/   a bundle of one model, and its curve; done.json comes last
"""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bls.bundle import MANIFEST, FittedModel, read_bundle, save_bundle
from pipeline.ledger.schema import TRAINING_CURVE, to_parquet
from pipeline.storage.folder import Folder

CURVE = "curve.parquet"
DONE = "done.json"


def write_fitted(storage: Folder, model: FittedModel, curve: Sequence[Mapping[str, Any]], *, step: int) -> None:
    """Keep a model with its curve: rows of `pipeline.ledger.schema.TRAINING_CURVE`."""
    folder = _folder(storage, model.quality)
    with tempfile.TemporaryDirectory() as temporary:
        save_bundle(Path(temporary), [model])
        for path in sorted(Path(temporary).iterdir(), key=lambda path: path.name == MANIFEST):
            folder.write(path.name, path.read_bytes())
    folder.write(CURVE, to_parquet(curve, TRAINING_CURVE, metadata={"quality": model.quality}))
    folder.write(DONE, json.dumps({"step": step}).encode())


def read_fitted(storage: Folder, quality: int) -> FittedModel | None:
    """Return a model that was fitted before, None where there is none."""
    folder = _folder(storage, quality)
    if not folder.holds(DONE):
        return None
    return read_bundle(folder.read, str(folder)).models[quality]


def read_curve(storage: Folder, quality: int) -> pa.Table:
    """Return the training curve of a fitted model."""
    return pq.read_table(io.BytesIO(_folder(storage, quality).read(CURVE)))


def _folder(storage: Folder, quality: int) -> Folder:
    return storage.child(f"fitted/quality-{quality}")
