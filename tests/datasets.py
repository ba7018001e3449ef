"""Compressed datasets for tests, made by hand: what a compress job commits, with carried columns, without Ray."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bls.codec import Codec
from bls.measures.images import bpp
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import CommittedFile, Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import BITSTREAMS, METRICS, SCHEMA_VERSION, SOURCE_SIZES, STORED_SIZES, to_parquet
from pipeline.ledger.summary import Summary
from pipeline.status import GOOD
from pipeline.work.kept import KeptFile
from tests.images import random_fields

STRUCT = pa.struct([("label", pa.int16()), ("caption", pa.string()), ("key", pa.string()), ("mask", pa.binary())])
MAP = pa.map_(pa.string(), pa.binary())


@dataclass(frozen=True)
class Sample:
    """An image of such a dataset; one whose `status` is neither ok nor kept is not stored."""

    key: str
    pixels: npt.NDArray[np.uint8]
    carried: Any = None
    psnr_db: float | None = 30.0
    source_format: str = "PNG"
    status: str = "ok"
    stem: str | None = None


def pixels(height: int, width: int, *, gray: bool = False, seed: int = 0) -> npt.NDArray[np.uint8]:
    field = random_fields(1, max(height, width, 32), seed=seed)[0, :, :height, :width]
    x = (field * 255).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(x[:, :, 0] if gray else x)


def write_dataset(
    folder: Path, bundle: Path, shards: Sequence[Sequence[Sample]], *, carried: pa.DataType | None = None
) -> Output:
    """Write and commit a compressed dataset; shards are numbered by their place."""
    codec, output = Codec.load(bundle), Output(str(folder))
    model = {"quality": 4, "model_fingerprint": codec.model_fingerprint(4).hex(), "coder": "mixed", "effort": 0}
    settings = {"schema_version": SCHEMA_VERSION, **model}
    num_images = sum(map(len, shards))
    output.begin(Manifest(job="compress", settings=settings, plans=(Plan("1" * 32, num_images, len(shards)),)))
    for index, samples in enumerate(shards):
        _commit(output, codec, index, samples, carried)
    return output


def commit_instead(output: Output, marker: Marker, kind: str, content: pa.Table | bytes) -> Marker:
    """Put other content in the place of a committed file and into its marker; return the marker."""
    if isinstance(content, pa.Table):
        sink = io.BytesIO()
        pq.write_table(content, sink)
        content = sink.getvalue()
    file = CommittedFile(marker.files[kind].name, len(content), hashlib.sha256(content).hexdigest())
    marker = replace(marker, files={**marker.files, kind: file})
    output.folder.write(file.name, content)
    output.folder.write(f"commits/{marker.name}", json.dumps(asdict(marker)).encode())
    return marker


def _commit(output: Output, codec: Codec, shard: int, samples: Sequence[Sample], carried: pa.DataType | None) -> Marker:
    metrics, stored = [], []
    for sample in samples:
        height, width = sample.pixels.shape[:2]
        row = {"key": sample.key, "source_uri": sample.key, "shard": shard, "status": sample.status}
        row |= {"width": width, "height": height, "psnr_db": sample.psnr_db, "source_format": sample.source_format}
        metrics.append({**row, "model_fingerprint": codec.model_fingerprint(4).hex(), "error_message": ""})
        if sample.status in GOOD:
            content = _stored(sample, codec)
            num_bytes = len(content.get("original") or content["bitstream"])
            metrics[-1] |= {"num_bytes": num_bytes, "bpp": bpp(num_bytes, height=height, width=width)}
            metrics[-1] |= {"source_num_bytes": sample.pixels.size, "beside_num_bytes": 0, "carried_num_bytes": 0}
            stem = sample.stem or sample.key.rpartition(".")[0]
            stored.append({"key": sample.key, "stem": stem, "carried": sample.carried, **content})
    schema = BITSTREAMS if carried is None else BITSTREAMS.append(pa.field("carried", carried))
    files = {
        "bitstreams": to_parquet(stored, schema, metadata={}),
        "metrics": to_parquet(metrics, METRICS, metadata={}),
    }
    return output.commit(shard, files, Summary.of_rows(metrics, bytes_in=SOURCE_SIZES, bytes_out=STORED_SIZES))


def _stored(sample: Sample, codec: Codec) -> dict[str, Any]:
    """Return the columns of what is stored of an image: a bitstream, or a PNG that is kept."""
    if sample.status != "kept":
        return {"bitstream": codec.compress(sample.pixels, quality=4)}
    file = io.BytesIO()
    Image.fromarray(sample.pixels).save(file, "png")
    return KeptFile.of(file.getvalue(), key=sample.key, source_format="PNG").columns()
