"""Bitstreams to images as a function of batches, for datasets of others: `set_transform` of Hugging Face `datasets`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bls.bitstream import MAX_PIXELS, BitstreamError, parse_header
from bls.codec import Codec
from bls.ladder import index_of, quality_of
from pipeline.ledger.schema import ORIGINAL
from pipeline.work.bundles import load_bundle
from pipeline.work.kept import KeptFile


class DecompressImages:
    """Decode the bitstreams of a batch: its column `column` is replaced by `image`, and all others stay.

    An image is a uint8 array of (h, w, 3), or (h, w, 1) if it was grayscale, or what `transform` makes of that.
    Networks of the bundle are loaded when a bitstream needs them, in every process. Where originals are kept in the
    place of bitstreams, the batch must have their columns (`pipeline.ledger.schema.ORIGINAL`), which do not stay.
    """

    def __init__(
        self,
        *,
        column: str = "bitstream",
        transform: Callable[[npt.NDArray[np.uint8]], Any] | None = None,
        bundle: str | None = None,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._column = column
        self._transform = transform
        self._bundle = bundle
        self._options: dict[str, Any] = {"device": device, "max_pixels": max_pixels}
        self._codecs: list[Codec] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the networks."""
        return {**self.__dict__, "_codecs": []}

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Return the batch with images.

        Raises:
            ValueError: the batch has no such column, or not those of kept originals, or the bundle does not serve a
                quality.
            BitstreamError: a bitstream or a kept original is damaged.
        """
        if self._column not in batch:
            raise ValueError(f"the batch has no column {self._column!r}, expected it among {', '.join(batch)}")
        images = [self._image(batch, place) for place in range(len(batch[self._column]))]
        used = {self._column, *ORIGINAL}
        return {**{name: values for name, values in batch.items() if name not in used}, "image": images}

    def _image(self, batch: Mapping[str, Sequence[Any]], place: int) -> Any:
        bitstream = batch[self._column][place]
        if bitstream is None:
            x_hat = _kept(batch, place).decode(max_pixels=self._options["max_pixels"]).pixels
        else:
            x_hat = self._codec_of(parse_header(bitstream).quality_index).decompress(bitstream)
        image = x_hat if x_hat.ndim == 3 else x_hat[:, :, None]
        return image if self._transform is None else self._transform(image)

    def _codec_of(self, quality_index: int) -> Codec:
        for codec in self._codecs:
            low, high = map(index_of, codec.quality_range)
            if low <= quality_index <= high:
                return codec
        self._codecs.append(Codec(load_bundle(self._bundle, quality=quality_of(quality_index)), **self._options))
        return self._codecs[-1]


def _kept(batch: Mapping[str, Sequence[Any]], place: int) -> KeptFile:
    """Return the kept original of an image without a bitstream."""
    if absent := [name for name in ORIGINAL if name not in batch]:
        raise ValueError(
            f"an image has no bitstream, as its original was kept, and the batch has no {', '.join(absent)}: select "
            "these columns, too"
        )
    if batch["original"][place] is None:
        raise BitstreamError("the row has neither a bitstream nor an original: it is damaged")
    return KeptFile(*(batch[name][place] for name in ORIGINAL))
