"""What the workers of all jobs share: the process and the codec they hold, and batches through the synthesis.

A worker is a plain class that knows nothing of Ray; see pipeline/compress/worker.py and pipeline/decompress/worker.py.
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from bls import use_huge_pages
from bls.bitstream import MAX_PIXELS, BitstreamError, Header
from bls.codec import Codec, Symbols
from bls.entropy.coders import CODERS
from bls.ladder import quality_text
from bls.pixels import Pixels, padded_shape
from bls.transforms.precision import Precision
from pipeline.storage.uris import absolute
from pipeline.work.bundles import load_bundle, load_network
from pipeline.work.stages import Item, run_batch

# Pixels of one device batch: on a CPU enough to make small images as cheap as large ones, on a GPU enough to fill it.
BATCH_PIXELS = {"cpu": 2**20, "cuda": 2**24}


class WorkerCrashError(Exception):
    """An image that ends the process of its worker."""

    def __init__(self) -> None:
        super().__init__("the process that worked on this image died, each time")


def configure_process(num_threads: int) -> None:
    """Configure the process, which belongs to this worker."""
    use_huge_pages()
    torch.set_num_threads(num_threads)  # several workers of a machine must not each take all of it
    Image.init()  # imports of Pillow's plugins in the middle of several threads are best avoided
    # The limit is max_pixels, checked before pixels are decoded; Pillow's own would warn and raise at other sizes.
    Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class CodecSpec:
    """Which codec a process holds: the one that a job was begun with, whatever else its bundle holds.

    `bundle` None is the shipped one. `model_fingerprint` is that of the network of this quality; without a quality, of
    the whole bundle. `effort` is that of the encoder.
    """

    bundle: str | None
    quality: float | None
    model_fingerprint: str
    coder: str = CODERS[0]
    effort: int = 0
    device: str = "cpu"
    max_pixels: int = MAX_PIXELS
    precision: Precision = "auto"

    @classmethod
    def of(cls, bundle: str | None, quality: float | None, **options: Any) -> "CodecSpec":
        """Return the codec of a quality, or of all, as the bundle has it now.

        Raises:
            BundleError: the bundle is missing, or does not serve this quality.
        """
        held = load_bundle(bundle) if quality is None else load_network(bundle, quality)
        return cls(bundle and absolute(bundle), quality, held.fingerprint.hex(), **options)

    def load(self) -> Codec:
        """Load it.

        Raises:
            ValueError: the bundle has another network for this quality, or none.
        """
        bundle = load_bundle(self.bundle, quality=self.quality)
        codec = Codec(bundle, device=self.device, max_pixels=self.max_pixels, precision=self.precision)
        held = bundle if self.quality is None else bundle.network(self.quality)
        if (fingerprint := held.fingerprint.hex()) != self.model_fingerprint:
            what = "the bundle" if self.quality is None else f"the network of quality {quality_text(self.quality)}"
            raise other_bundle(what, fingerprint, self.model_fingerprint)
        return codec

    def load_and_try(self) -> Codec:
        """Load it and code an image before the first one that counts."""
        codec = self.load()
        for served in codec.bundle.qualities:
            try_out(codec, quality=self.quality or served.low, coder=self.coder, effort=self.effort)
        return codec

    @property
    def batch_pixels(self) -> int:
        """Pixels of one batch for its device."""
        return BATCH_PIXELS[self.device.partition(":")[0]]


def other_bundle(what: str, fingerprint: str, expected: str) -> ValueError:
    """Return the error of a worker that holds something else than the job began with."""
    return ValueError(
        f"{what} of this worker is {fingerprint}, the job began with {expected}: give all nodes the same bundle, and "
        "do not replace it while a job runs"
    )


def try_out(codec: Codec, *, quality: float, coder: str, effort: int = 0) -> None:
    """Code an image before the first one that counts: what fails here would fail for all and quarantine them.

    It also loads or compiles what is compiled on first use, which belongs to no image's times.
    """
    x = np.zeros((16, 16, 3), np.uint8)
    codec.decompress(codec.compress(x, quality=quality, coder=coder, effort=effort))


def decode_again(codec: Codec, bitstream: bytes, *, header: Header, symbols: Symbols) -> tuple[Header, Symbols]:
    """Decode a bitstream that was just encoded; return what it holds.

    Raises:
        BitstreamError: it does not give its header and symbols back.
    """
    decoded = codec.decode(bitstream)
    if decoded[0] != header or not np.array_equal(decoded[1], symbols):
        raise BitstreamError("the bitstream does not give its symbols back: please report this image")
    return decoded


@dataclass
class DecodedItem(Item):
    """An image whose bitstream is decoded to symbols, and then to pixels."""

    decoded: tuple[Header, Symbols] | None = field(default=None, kw_only=True)
    x_hat: Pixels | None = field(default=None, kw_only=True)


_D = TypeVar("_D", bound=DecodedItem)


def synthesize(codec: Codec, batch: list[_D]) -> list[_D]:
    """Run the synthesis transform over the good images of a batch whose pixels are not known yet."""
    good = [item for item in batch if item.ok and item.decoded is not None]
    inputs = [item.decoded for item in good if item.decoded is not None]
    for item, x_hat in run_batch(codec.synthesize, good, inputs, seconds="synthesis_seconds"):
        item.x_hat, item.decoded = x_hat, None
    return batch


def shape_of(item: Item) -> tuple[int, int] | None:
    return padded_shape(item.row["height"], item.row["width"]) if item.ok else None


def num_pixels(item: Item) -> int:
    return int(item.row["height"] * item.row["width"]) if item.ok else 0
