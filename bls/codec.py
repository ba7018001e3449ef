"""Images to bitstreams and back: the whole codec in one place.

    y = analysis(x);  symbols = quantize(y);  bitstream = header + entropy_code(symbols) + checksum
    symbols = entropy_decode(bitstream);  x_hat = synthesis(symbols)

Ballé, Laparra, Simoncelli, "End-to-end Optimized Image Compression", ICLR 2017. `compress` and `decompress` do it in
one call; the stages stand beside them for pipelines that overlap and time them. Every method may be called from
several threads.

Letters in shapes: b batch, c latent channels, h and w image rows and columns, hl and wl latent rows and columns.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int32
from PIL import Image
from torch import Tensor

from bls import bitstream
from bls.bitstream import BitstreamError, Coder, Header
from bls.bundle import Bundle, FittedModel, load_bundle
from bls.entropy import static as range_coder
from bls.entropy.adaptive import coder as arithmetic_coder
from bls.entropy.mixed import coder as mixed_coder
from bls.pixels import Pixels, as_pixels, padded_shape, to_pixels, to_planes, to_uint8
from bls.transforms.networks import DOWNSAMPLING
from bls.transforms.precision import Precision, takes_bfloat16
from bls.transforms.quantization import quantize
from bls.transforms.tiling import analyze_tiled, synthesize_tiled

Symbols = Int32[np.ndarray, "c hl wl"]

MAX_PIXELS = 2**27
"""Default limit of what is decoded: a few damaged or hostile bytes may claim 4 gigapixels."""


class Codec:
    """A bundle of fitted models, ready to compress and decompress."""

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", max_pixels: int = MAX_PIXELS, precision: Precision = "auto"
    ) -> None:
        self._models = bundle.models
        self._device = torch.device(device)
        self._max_pixels = max_pixels
        self._precision = precision
        self._transforms = {
            quality: [
                transform.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
                for transform in model.transforms()
            ]
            for quality, model in bundle.models.items()
        }
        self._fingerprints = {quality: model.fingerprint for quality, model in bundle.models.items()}

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        *,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
        precision: Precision = "auto",
    ) -> "Codec":
        """Load a bundle from its folder; None stands for the one that comes with the package.

        Raises:
            BundleError: the folder holds no bundle that this release can load.
        """
        return cls(load_bundle(bundle), device=device, max_pixels=max_pixels, precision=precision)

    @property
    def qualities(self) -> tuple[int, ...]:
        """The qualities that can be chosen: the lambda indices of the bundle, the lowest rate first."""
        return tuple(sorted(self._models))

    def lmbda(self, quality: int) -> float:
        """Return the weight of `lmbda * 255**2 * mse + bpp` that a quality was fitted for."""
        return self._model(quality).lmbda

    def coders(self, quality: int) -> tuple[str, ...]:
        """Return the names of a quality's entropy coders, the one with the smallest bitstreams first: the default."""
        return self._model(quality).coders

    def model_fingerprint(self, quality: int) -> bytes:
        """Return the 8 bytes that bind a bitstream to the model of a quality."""
        self._model(quality)
        return self._fingerprints[quality]

    def compress(self, image: Image.Image | Pixels, *, quality: int, coder: str | None = None) -> bytes:
        """Compress one image: PIL (modes L and RGB) or uint8, (h, w) grayscale or (h, w, 3) RGB.

        Raises:
            ValueError: the bundle has no such quality or coder, or the image is of another kind.
        """
        return self.compress_batch([image], quality=quality, coder=coder)[0]

    def compress_batch(
        self, images: Sequence[Image.Image | Pixels], *, quality: int, coder: str | None = None
    ) -> list[bytes]:
        """Compress several images; those of equal padded shapes go through the transform together."""
        pixels = [as_pixels(image) for image in images]
        coder = coder or self.coders(quality)[0]
        headers = [make_header(x, quality=quality, coder=coder) for x in pixels]
        symbols = self.analyze(pixels, quality=quality)
        return [self.encode(q, header=header) for q, header in zip(symbols, headers, strict=True)]

    def decompress(self, data: bytes) -> Pixels:
        """Decompress one bitstream to a uint8 array, (h, w) if it was grayscale, else (h, w, 3).

        Raises:
            BitstreamError: truncated, altered, of a model that this bundle lacks, or larger than `max_pixels`.
        """
        return self.decompress_batch([data])[0]

    def decompress_batch(self, data: Sequence[bytes]) -> list[Pixels]:
        """Decompress several bitstreams; those of equal padded shapes and quality share the transform."""
        return self.synthesize([self.decode(item) for item in data])

    def analyze(self, images: Sequence[Pixels], *, quality: int) -> list[Symbols]:
        """Transform and quantise images to the symbols that are coded."""
        model = self._model(quality)
        groups = defaultdict(list)
        for index, image in enumerate(images):
            groups[padded_shape(*image.shape[:2])].append(index)

        def quantized_latents(tile: Tensor) -> Tensor:
            with self._autocast(quality):
                y = self._transforms[quality][0](self._on_device(tile).float() / 255)
            return quantize(y.float()).to(torch.int32).cpu()

        symbols: dict[int, Symbols] = {}
        for shape, indices in groups.items():
            x = _batch([to_planes(images[i], shape, model.config.channels) for i in indices])
            with torch.inference_mode():
                y_hat = analyze_tiled(quantized_latents, x)
            symbols |= zip(indices, y_hat.contiguous().numpy(), strict=True)
        return [symbols[index] for index in range(len(images))]

    def encode(self, symbols: Symbols, *, header: Header) -> bytes:
        """Entropy code symbols into a bitstream; `header.lmbda_index` is the quality."""
        model = self._model(header.lmbda_index)
        if header.coder is Coder.STATIC:
            payload = range_coder.encode(symbols, model.table)
        elif header.coder is Coder.MIXED:
            if model.mixed is None:
                raise ValueError(
                    f"bundle has no mixed coder for quality {header.lmbda_index}, it was written before there was one: "
                    "choose the coder adaptive, or write the bundle again"
                )
            payload = mixed_coder.encode(symbols, model.adaptive, model.mixed)
        else:
            payload = arithmetic_coder.encode(symbols, model.adaptive)
        return bitstream.pack(header, payload, fingerprint=self._fingerprints[header.lmbda_index])

    def decode(self, data: bytes) -> tuple[Header, Symbols]:
        """Decode a bitstream to its header and symbols, without any float arithmetic.

        Raises:
            BitstreamError: as `decompress`.
        """
        header = bitstream.parse_header(data)
        model = self._models.get(header.lmbda_index)
        if model is None:
            raise BitstreamError(
                f"bitstream has quality {header.lmbda_index}, the bundle has {self.qualities}: "
                "pass the bundle that wrote it"
            )
        header, payload = bitstream.unpack(data, fingerprint=self._fingerprints[header.lmbda_index])
        if header.height * header.width > self._max_pixels:
            raise BitstreamError(
                f"image has {header.width}x{header.height} pixels, the limit is {self._max_pixels}: "
                "load the codec with a larger max_pixels if you trust the source"
            )
        height, width = padded_shape(header.height, header.width)
        shape = (model.config.latents, height // DOWNSAMPLING, width // DOWNSAMPLING)
        if header.coder is Coder.STATIC:
            return header, range_coder.decode(payload, shape, model.table)
        if header.coder is Coder.MIXED:
            if model.mixed is None:
                raise BitstreamError(
                    f"bitstream was written by the mixed coder, the bundle has none for quality {header.lmbda_index}: "
                    "it is damaged, fetch it again"
                )
            return header, mixed_coder.decode(payload, shape, model.adaptive, model.mixed)
        return header, arithmetic_coder.decode(payload, shape, model.adaptive)

    def synthesize(self, decoded: Sequence[tuple[Header, Symbols]]) -> list[Pixels]:
        """Transform decoded symbols to images, as uint8 arrays."""
        groups = defaultdict(list)
        for index, (header, symbols) in enumerate(decoded):
            groups[header.lmbda_index, header.gray, symbols.shape].append(index)
        images: dict[int, Pixels] = {}
        for (quality, gray, _), indices in groups.items():

            def pixels(tile: Tensor, quality: int = quality, gray: bool = gray) -> Tensor:
                with self._autocast(quality):
                    x_hat = self._transforms[quality][1](self._on_device(tile).float())
                return to_uint8(x_hat.float(), gray=gray).cpu()

            y_hat = _batch([torch.from_numpy(decoded[i][1]) for i in indices])
            with torch.inference_mode():
                planes = synthesize_tiled(pixels, y_hat)
            images |= {i: to_pixels(p, decoded[i][0]) for i, p in zip(indices, planes, strict=True)}
        return [images[index] for index in range(len(decoded))]

    def estimate_bits(self, symbols: Symbols, *, quality: int) -> float:
        """Return the model's estimate of the payload: the ideal code length under the density's samples."""
        return self._model(quality).table.code_length_bits(symbols)

    def _model(self, quality: int) -> FittedModel:
        model = self._models.get(quality)
        if model is None:
            raise ValueError(f"quality is {quality}, the bundle has {self.qualities}: choose one of these")
        return model

    def _autocast(self, quality: int) -> torch.autocast:
        enabled = takes_bfloat16(self._precision, self._device, lmbda=self.lmbda(quality))
        return torch.autocast(self._device.type, torch.bfloat16, enabled=enabled)

    def _on_device(self, x: Tensor) -> Tensor:
        return x.to(self._device, memory_format=torch.channels_last)


def make_header(image: Pixels, *, quality: int, coder: str) -> Header:
    """Return the header of an image's bitstream; `coder` is `adaptive`, `static` or `mixed`."""
    if coder.upper() not in Coder.__members__:
        names = " or ".join(name.lower() for name in Coder.__members__)
        raise ValueError(f"coder is {coder!r}, expected {names}")
    height, width = image.shape[:2]
    return Header(height, width, gray=image.ndim == 2, lmbda_index=quality, coder=Coder[coder.upper()])


def _batch(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors; a single one, which may be large, is not copied."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
