"""Split decoding: DataLoader workers decode bitstreams to symbols, the training device makes images of them.

    images = pipeline.CompressedImages("compressed", columns=["symbols", "label"], shuffle=True)
    loader = DataLoader(images, batch_size=64, num_workers=8, collate_fn=pipeline.collate_symbols)
    decode = pipeline.DeviceDecoder(images, device="cuda", transform=RandomResizedCrop(224))
    for batch in map(decode, loader): ...

Entropy decoding runs on CPUs only. The synthesis is all convolutions: the device takes many images at a time, and
nothing but symbols travels there.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.utils.data import default_collate

from bls.bitstream import Header
from bls.pixels import padded_shape
from pipeline.read.images import DecodedSymbols
from pipeline.read.torch_dataset import CompressedImages

_SMALLEST_TYPES = (np.int8, np.int16, np.int32)


@dataclass(frozen=True)
class SymbolBatch:
    """The symbols of several images in one tensor, which is cheap to hand to another process or device."""

    headers: Sequence[Header]
    shapes: Sequence[tuple[int, ...]]
    values: Int[Tensor, " n"]

    @classmethod
    def of(cls, decoded: Sequence[DecodedSymbols]) -> "SymbolBatch":
        """Join symbols, as integers of the smallest type that holds them."""
        values = np.concatenate([each.values.reshape(-1) for each in decoded])
        smallest = next(kind for kind in _SMALLEST_TYPES if np.array_equal(values.astype(kind), values))
        tensor = torch.from_numpy(values.astype(smallest))
        return cls([each.header for each in decoded], [each.values.shape for each in decoded], tensor)

    def pin_memory(self) -> "SymbolBatch":
        """Put the symbols where they are copied to a GPU fastest; DataLoader calls it if it pins memory."""
        return replace(self, values=self.values.pin_memory())

    def on(self, device: str) -> list[tuple[Header, Tensor]]:
        """Return the symbols of each image on a device."""
        parts = self.values.to(device, non_blocking=True).split([int(np.prod(shape)) for shape in self.shapes])
        return [(h, part.view(shape)) for h, part, shape in zip(self.headers, parts, self.shapes, strict=True)]


def collate_symbols(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch of samples with a column `symbols`; other columns as torch's `default_collate` does.

    Raises:
        ValueError: the samples have no symbols.
    """
    if "symbols" not in samples[0]:
        raise ValueError(f"samples have {', '.join(samples[0])}, expected symbols: read the dataset with that column")
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    symbols = SymbolBatch.of(columns.pop("symbols"))
    return {**{name: default_collate(values) for name, values in columns.items()}, "symbols": symbols}


class DeviceDecoder:
    """Makes images of a batch's symbols, on a device: `image` in the place of `symbols`.

    `transform` is given each image as uint8 (3, h, w) on the device, grayscale repeated, and must give all one shape:
    those of `pipeline.read.training.augment`, or of torchvision. The images then are one tensor. Without it they are a
    list.

    Raises:
        ValueError: the dataset has no column `symbols`.
    """

    def __init__(
        self, images: CompressedImages, *, device: str = "cpu", transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if "symbols" not in (images.columns or ()):
            raise ValueError(
                "the dataset gives no symbols to decode: make it with a column of them, as "
                'CompressedImages(uri, columns=["symbols", "label"])'
            )
        self._spec = replace(images.codec, device=device)
        self._codec = self._spec.load()
        self._transform = transform

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch with images."""
        decoded = batch["symbols"].on(self._spec.device)
        images: dict[int, UInt8[Tensor, "3 h w"]] = {}
        for places in self._groups([header for header, _ in decoded]):
            planes = self._codec.synthesize_planes([decoded[place] for place in places])
            images |= zip(places, (each.expand(3, -1, -1) for each in planes), strict=True)
        kept = {name: values for name, values in batch.items() if name != "symbols"}
        listed = [images[place] for place in range(len(decoded))]
        if self._transform is None:
            return {**kept, "image": listed}
        return {**kept, "image": torch.stack([self._transform(image) for image in listed])}

    def _groups(self, headers: Sequence[Header]) -> Iterator[list[int]]:
        """Return places of images of equal shape, as many as the device takes at a time."""
        by_shape = defaultdict(list)
        for place, header in enumerate(headers):
            by_shape[padded_shape(header.height, header.width), header.gray].append(place)
        for ((height, width), _), places in by_shape.items():
            size = max(self._spec.batch_pixels // (height * width), 1)
            yield from (places[start : start + size] for start in range(0, len(places), size))
