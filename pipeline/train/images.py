"""Training images on the cluster: read by tasks, kept in memory as far as they fit."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch

from pipeline.sources.reference import ImageReference, Source
from pipeline.train.patches import PatchConfig, PatchSet

IMAGES_PER_TASK = 64
TASKS_IN_FLIGHT = 64
MAX_HELD_OUT = 16
HELD_OUT_PART = 20
"""One image in this many is held out of training, up to the number above."""


@dataclass(frozen=True)
class Images:
    """The training images on the cluster: some decoded in the object store, all of them by reference."""

    source: Source
    chunks: Sequence[Any]
    """References to lists of decoded images."""
    num_held_out: int
    num_decoded: int
    dropped: Counter[str]
    stream: Sequence[ImageReference] | None
    """The source that batches are streamed from; None if all images are decoded."""


def read_images(source: Source, config: PatchConfig, *, max_cached_gib: float) -> Images:
    """Read a source in random order until enough is decoded; the rest is streamed.

    Raises:
        ValueError: no image is fit to be trained on.
    """
    references = shuffled(list(source.references()), config.seed)
    parts = [references[i : i + IMAGES_PER_TASK] for i in range(0, len(references), IMAGES_PER_TASK)]
    read: Any = ray.remote(_read_part).options(num_returns=2)
    pending = [read.remote(source, part, config) for part in parts[:TASKS_IN_FLIGHT]]
    chunks: list[Any] = []
    dropped: Counter[str] = Counter()
    keys: list[str] = []
    num_bytes = 0
    while len(chunks) < len(parts) and num_bytes < max_cached_gib * 2**30:
        chunk, info = pending[len(chunks)]
        kept, left_out, size = ray.get(info)
        chunks.append(chunk)
        keys += kept
        dropped += left_out
        num_bytes += size
        pending += [read.remote(source, part, config) for part in parts[len(pending) : len(pending) + 1]]
    if not keys:
        raise ValueError(
            f"no image of {source} can be trained on ({dict(dropped) or 'none found'}): "
            f"expected images of at least {config.patch_size} pixels a side"
        )
    num_held_out = min(MAX_HELD_OUT, len(keys) // HELD_OUT_PART)
    held_out = set(keys[:num_held_out])
    stream = None if len(chunks) == len(parts) else [r for r in references if r.key not in held_out]
    return Images(source, chunks, num_held_out, len(keys), dropped, stream)


def shuffled(references: Sequence[ImageReference], seed: int) -> list[ImageReference]:
    """Return references in random order; rows of Parquet files in runs, as these files are read by groups of rows."""
    in_rows = len(references) > 0 and references[0].start is not None and references[0].num_bytes is None
    run = IMAGES_PER_TASK if in_rows else 1
    order = torch.randperm(math.ceil(len(references) / run), generator=torch.Generator().manual_seed(seed))
    return [reference for place in order.tolist() for reference in references[run * place : run * (place + 1)]]


def _read_part(
    source: Source, references: Sequence[ImageReference], config: PatchConfig
) -> tuple[list[Any], tuple[list[str], Counter[str], int]]:
    patches = PatchSet.read(source, references, config)
    return patches.images, (patches.keys, patches.dropped, sum(image.nbytes for image in patches.images))
