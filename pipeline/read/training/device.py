"""Split decoding: DataLoader workers decode bitstreams to symbols, the training device makes images of them.

    images = pipeline.CompressedImages("compressed", columns=["symbols", "label"], shuffle=True)
    loader = DataLoader(images, batch_size=64, num_workers=8, collate_fn=pipeline.collate_symbols)
    decode = pipeline.DeviceDecoder(images, device="cuda", transform=RandomResizedCrop(224))
    for batch in map(decode, loader): ...

Entropy decoding runs on CPUs only. The synthesis is all convolutions: the device takes many images at a time, and
nothing but symbols travels there, and the pixels of originals that were kept in the place of bitstreams.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
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
    """The symbols of several images in one tensor, which is cheap to hand to another process or device.

    `kept` has the pixels of kept originals, by their places in the batch.
    """

    headers: Sequence[Header]
    shapes: Sequence[tuple[int, ...]]
    values: Int[Tensor, " n"]
    kept: Mapping[int, UInt8[Tensor, "_ h w"]] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Sequence[DecodedSymbols | npt.NDArray[np.uint8]]) -> "SymbolBatch":
        """Join symbols, as integers of the smallest type that holds them; an array is the image of a kept original."""
        decoded = [each for each in samples if isinstance(each, DecodedSymbols)]
        values = np.concatenate([np.empty(0, np.int8), *(each.values.reshape(-1) for each in decoded)])
        smallest = next(kind for kind in _SMALLEST_TYPES if np.array_equal(values.astype(kind), values))
        tensor = torch.from_numpy(values.astype(smallest))
        kept = {
            place: torch.from_numpy(np.ascontiguousarray(each.transpose(2, 0, 1)))
            for place, each in enumerate(samples)
            if not isinstance(each, DecodedSymbols)
        }
        return cls([each.header for each in decoded], [each.values.shape for each in decoded], tensor, kept)

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.headers) + len(self.kept)

    def pin_memory(self) -> "SymbolBatch":
        """Put the symbols where they are copied to a GPU fastest; DataLoader calls it if it pins memory."""
        kept = {place: pixels.pin_memory() for place, pixels in self.kept.items()}
        return replace(self, values=self.values.pin_memory(), kept=kept)

    def on(self, device: str) -> list[tuple[Header, Tensor]]:
        """Return the symbols of each image on a device, without kept originals."""
        parts = self.values.to(device, non_blocking=True).split([int(np.prod(shape)) for shape in self.shapes])
        return [(h, part.view(shape)) for h, part, shape in zip(self.headers, parts, self.shapes, strict=True)]

    def kept_on(self, device: str) -> dict[int, UInt8[Tensor, "_ h w"]]:
        """Return the pixels of kept originals on a device, by their places."""
        return {place: pixels.to(device, non_blocking=True) for place, pixels in self.kept.items()}


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
        others = {name: values for name, values in batch.items() if name != "symbols"}
        images = [planes.expand(3, -1, -1) for planes in self._planes(batch["symbols"])]
        if self._transform is None:
            return {**others, "image": images}
        return {**others, "image": torch.stack([self._transform(image) for image in images])}

    def _planes(self, batch: SymbolBatch) -> list[UInt8[Tensor, "_ h w"]]:
        """Return the images of a batch in their order."""
        planes = batch.kept_on(self._spec.device)
        decoded = batch.on(self._spec.device)
        places = [place for place in range(len(batch)) if place not in batch.kept]
        for group in self._groups([header for header, _ in decoded]):
            made = self._codec.synthesize_planes([decoded[number] for number in group])
            planes |= zip((places[number] for number in group), made, strict=True)
        return [planes[place] for place in range(len(batch))]

    def _groups(self, headers: Sequence[Header]) -> Iterator[list[int]]:
        """Return the numbers of images of equal shape, as many as the device takes at a time."""
        by_shape = defaultdict(list)
        for number, header in enumerate(headers):
            by_shape[padded_shape(header.height, header.width), header.gray].append(number)
        for ((height, width), _), numbers in by_shape.items():
            size = max(self._spec.batch_pixels // (height * width), 1)
            yield from (numbers[start : start + size] for start in range(0, len(numbers), size))
