"""A compressed dataset as a Ray Dataset of decoded images."""

import math
import os
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from bls.bitstream import MAX_PIXELS
from pipeline.ledger.markers import CommittedFile
from pipeline.reachable import check_cluster
from pipeline.read.dataset import CompressedDataset, StoredFile
from pipeline.read.images import ImageReader, ReadingConfig, in_order, reading_config
from pipeline.work.codec import configure_process

try:
    import ray
    import ray.data
    from ray.data.extensions import ArrowVariableShapedTensorArray
except ImportError as error:
    raise ImportError("reading a compressed dataset with Ray needs Ray Data: pip install 'bls-codec[data]'") from error

_MAX_BLOCKS = 1024  # of the list of files, which a driver holds


def read_compressed(
    uri: str,
    *,
    columns: Sequence[str] | None = None,
    keys: Collection[str] | None = None,
    where: str | None = None,
    bundle: str | None = None,
    device: str = "cpu",
    max_pixels: int = MAX_PIXELS,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: int = 1,
    num_gpus: float | None = None,
) -> "ray.data.Dataset":
    """Read a compressed dataset as decoded images: `pipeline.read.images`' columns, `image` (and `latents`) of
    varying shape.

    Actors of `num_cpus` and `num_gpus` each hold the codec: `concurrency` of them, without it up to one less than the
    cluster has room for, so that what follows has room too. Only committed files are read. A damaged bitstream ends the
    reading with its key.

    Raises:
        ValueError: no compressed dataset is at `uri`, a key or column is unknown, or another bundle compressed it.
        ConnectionError: Ray would join a cluster that does not answer.
    """
    if "symbols" in (columns or ()):
        raise ValueError("symbols are for pipeline.CompressedImages: take the column latents")
    if not ray.is_initialized():
        check_cluster(os.environ.get("RAY_ADDRESS"))
    dataset = CompressedDataset(uri)
    config = reading_config(dataset, columns=columns, bundle=bundle, device=device, max_pixels=max_pixels)
    selection = dataset.select(keys=keys, where=where)
    files = dataset.files(selection)
    dataset.check_columns(columns, files, num_kept=selection.num_kept)
    if not files:
        raise ValueError(f"{dataset.output} has no committed image yet: run the compress job to its end")
    listed = ray.data.from_arrow(_listing(files))
    return listed.map_batches(
        _ReadFiles,
        fn_constructor_args=(config, num_cpus),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=num_cpus,
        num_gpus=num_gpus if num_gpus is not None else float(device.startswith("cuda")),
        compute=_pool(concurrency or (1, _room(num_cpus))),
    )


class _ReadFiles:
    """What the actors hold."""

    def __init__(self, config: ReadingConfig, num_threads: int) -> None:
        configure_process(num_threads)
        self._columns = config.columns
        self._reader = ImageReader(config)

    def __call__(self, files: pa.Table) -> Iterator[pa.Table]:
        for file in files.to_pylist():
            for table, decoded in self._reader.read(CommittedFile(**file["file"]), array("i", file["rows"])):
                columns: dict[str, Any] = {name: table[name] for name in table.column_names}
                for name, arrays in decoded.items():
                    columns[name] = ArrowVariableShapedTensorArray.from_numpy(arrays)
                yield pa.table({name: columns[name] for name in in_order(self._columns, columns)})


def _pool(size: int | tuple[int, int]) -> ray.data.ActorPoolStrategy:
    smallest, largest = (size, size) if isinstance(size, int) else size
    return ray.data.ActorPoolStrategy(min_size=smallest, max_size=largest)


def _listing(files: Sequence[StoredFile]) -> list[pa.Table]:
    size = math.ceil(len(files) / _MAX_BLOCKS)
    parts = (files[start : start + size] for start in range(0, len(files), size))
    return [
        pa.table(
            {"file": [asdict(file.file) for file in part], "rows": [array("i", file.rows).tobytes() for file in part]}
        )
        for part in parts
    ]


def _room(num_cpus: int) -> int:
    """Return how many actors leave a place for another."""
    return max(int(ray.cluster_resources().get("CPU", os.cpu_count() or 1) // num_cpus) - 1, 1)
