"""The compressor as a function of batches, for data graphs of others: `map_batches(CompressImages(quality=4))`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from bls.bitstream import MAX_PIXELS, MAX_SIDE
from bls.codec import Codec
from bls.entropy.coders import CODERS, coder_of
from bls.pixels import as_pixels
from bls.refinement.descent import check_effort
from pipeline import images
from pipeline.compress.coding import CodedItem, analyze, code, rate_and_distortion
from pipeline.images import ImageError, SourceImage
from pipeline.status import Status
from pipeline.work.codec import CodecSpec, num_pixels, shape_of, synthesize
from pipeline.work.stages import batches

ADDED_COLUMNS = (
    "bitstream",
    "width",
    "height",
    "mode",
    "exif",
    "icc_profile",
    "alpha_png",
    "num_bytes",
    "bpp",
    "psnr_db",
    "status",
    "error_class",
    "error_message",
)
"""What an image becomes; names and units are those of `pipeline.ledger.schema`. A value that does not exist is None."""


@dataclass
class _BatchItem(CodedItem):
    """An image of a batch, as it came."""

    value: Any = None


class CompressImages:
    """Compress the images of a batch: its column `column` is replaced by ADDED_COLUMNS.

    An image is the bytes of a file, a struct with them as `bytes`, or a uint8 array of (h, w), (h, w, 1) or (h, w, 3).
    An image that cannot be compressed gets a row whose `status` says why, and disturbs no other. Every bitstream was
    decoded again; `psnr_db` is of the decoded image.

    An instance serves as a function, whose processes each load the codec once; the class itself serves as the class of
    an actor pool, with `fn_constructor_kwargs={"quality": 4}`.

    Raises:
        ValueError: the bundle does not serve the quality, or the coder or effort is unknown.
    """

    def __init__(
        self,
        *,
        quality: float,
        column: str = "image",
        coder: str = CODERS[0],
        effort: int = 0,
        bundle: str | None = None,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        coder_of(coder)
        check_effort(effort)
        self._column = column
        self._spec = CodecSpec.of(bundle, quality, coder=coder, effort=effort, device=device, max_pixels=max_pixels)

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Return the batch with its images compressed.

        Raises:
            ValueError: the batch lacks the column, or the model of this process is another.
        """
        if self._column not in batch:
            raise ValueError(f"the batch has no column {self._column!r}, expected it among {', '.join(batch)}")
        rows = _compress(batch[self._column], self._spec)
        kept = {name: values for name, values in batch.items() if name not in (self._column, *ADDED_COLUMNS)}
        return kept | {name: _objects(row.get(name) for row in rows) for name in ADDED_COLUMNS}


@lru_cache(maxsize=1)
def _codec(spec: CodecSpec) -> Codec:
    return spec.load_and_try()


def _compress(values: Iterable[Any], spec: CodecSpec) -> list[dict[str, Any]]:
    codec, quality = _codec(spec), spec.quality
    assert quality is not None
    items = [_BatchItem(position, {"status": Status.OK}, value=value) for position, value in enumerate(values)]
    for item in items:
        _load(item, spec.max_pixels)
    for group in batches(items, key=shape_of, cost=num_pixels, max_cost=spec.batch_pixels):
        analyze(codec, group, quality=quality, coder=spec.coder, effort=spec.effort)
        for item in group:
            code(codec, item, quality=quality, coder=spec.coder)
        for item in synthesize(codec, group):
            _measure(item)
    return [item.row for item in items]


def _load(item: _BatchItem, max_pixels: int) -> None:
    with item.stage("decode_seconds"):
        item.image = _to_image(item.value, max_pixels)
        height, width = item.image.pixels.shape[:2]
        item.row.update(width=width, height=height, mode=item.image.mode)
        item.row.update(exif=item.image.exif, icc_profile=item.image.icc_profile, alpha_png=item.image.alpha_png)
    item.value = None


def _to_image(value: Any, max_pixels: int) -> SourceImage:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, bytes):
        return images.decode(value, max_pixels=max_pixels)
    if not isinstance(value, np.ndarray):
        raise ImageError(Status.UNSUPPORTED, f"is a {type(value).__name__}, expected bytes of a file or a uint8 array")
    try:
        pixels = as_pixels(value[:, :, 0] if value.ndim == 3 and value.shape[2] == 1 else value)
    except ValueError as error:
        raise ImageError(Status.UNSUPPORTED, str(error)) from error
    if pixels.shape[0] * pixels.shape[1] > max_pixels or max(pixels.shape[:2]) > MAX_SIDE:
        raise ImageError(
            Status.TOO_LARGE, f"has shape {pixels.shape}, over the limit of {max_pixels} or {MAX_SIDE} a side"
        )
    return SourceImage(pixels, "L" if pixels.ndim == 2 else "RGB", "", None, None, None)


def _measure(item: _BatchItem) -> None:
    if item.ok:
        with item.stage("quality_seconds"):
            item.row.update(rate_and_distortion(item), bitstream=item.bitstream)
    item.image = item.symbols = item.x_hat = None


def _objects(values: Iterable[Any]) -> npt.NDArray[np.object_]:
    """Return an array of Python objects, whatever they are; None stays None."""
    listed = list(values)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array
