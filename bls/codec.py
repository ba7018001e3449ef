"""Images to bitstreams and back: the whole codec in one place.

    y = analysis(x);  symbols = quantize(y * gain);  bitstream = header + entropy_code(symbols) + checksum
    symbols = entropy_decode(bitstream);  x_hat = synthesis(symbols / gain)

Ballé, Laparra, Simoncelli, "End-to-end Optimized Image Compression", ICLR 2017. `compress` and `decompress` do it in
one call; the stages stand beside them for pipelines that overlap and time them. Every method may be called from
several threads, and in forked processes, where PyTorch then computes on one thread. A codec is pickled as its bundle,
and a bundle that was loaded from a folder as the name of the folder.

Letters in shapes: b batch, c latent channels, h and w image rows and columns, hl and wl latent rows and columns.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, UInt8
from PIL import Image
from torch import Tensor

from bls import bitstream
from bls.bitstream import MAX_PIXELS, BitstreamError, Header
from bls.bundle import Bundle, load_bundle, network_number
from bls.entropy.coders import CODERS, coder_of
from bls.forking import run_forks_on_one_thread
from bls.ladder import QualityError, index_of, lmbda_of, quality_of
from bls.measures import images as measures
from bls.network import FittedNetwork
from bls.pixels import Pixels, as_pixels, padded_shape, to_pixels, to_planes, to_uint8
from bls.refinement.descent import MAX_EFFORT, check_effort
from bls.refinement.refiner import Refiner
from bls.transforms.networks import DOWNSAMPLING
from bls.transforms.precision import Precision, takes_bfloat16
from bls.transforms.quantization import quantize
from bls.transforms.thumbnails import SCALES, Scale
from bls.transforms.tiling import analyze_tiled, shrink_tiled, synthesize_tiled

Symbols = Int32[np.ndarray, "c hl wl"]
Latents = Float32[np.ndarray, "c hl wl"]


class Codec:
    """A bundle of fitted networks, ready to compress and decompress."""

    def __init__(
        self, bundle: Bundle, *, device: str = "cpu", max_pixels: int = MAX_PIXELS, precision: Precision = "auto"
    ) -> None:
        run_forks_on_one_thread()
        self._bundle = bundle
        self._device = torch.device(device)
        self._max_pixels = max_pixels
        self._precision = precision
        self._transforms = [
            [
                transform.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
                for transform in network.weights.transforms()
            ]
            for network in bundle.networks
        ]

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

    def __reduce__(self) -> tuple[Any, ...]:
        device, max_pixels, precision = str(self._device), self._max_pixels, self._precision
        return partial(Codec, device=device, max_pixels=max_pixels, precision=precision), (self._bundle,)

    @property
    def bundle(self) -> Bundle:
        """The networks."""
        return self._bundle

    @property
    def quality_range(self) -> tuple[float, float]:
        """The lowest and the highest quality that can be chosen; `bundle.qualities` has gaps between, if any."""
        return self._bundle.qualities[0].low, self._bundle.qualities[-1].high

    def lmbda(self, quality: float) -> float:
        """Return the weight of a quality in `lmbda * 255**2 * mse + bpp`.

        Raises:
            QualityError: the bundle does not serve it.
        """
        self._network(index_of(quality))
        return lmbda_of(quality)

    def model_fingerprint(self, quality: float) -> bytes:
        """Return the 8 bytes that bind a bitstream to the network of a quality.

        Raises:
            QualityError: the bundle does not serve it.
        """
        return self._network(index_of(quality)).fingerprint

    def compress(
        self, image: Image.Image | Pixels, *, quality: float, coder: str = CODERS[0], effort: int = 0
    ) -> bytes:
        """Compress one image: PIL (modes L and RGB) or uint8, (h, w) grayscale or (h, w, 3) RGB.

        `quality` is any number that the bundle serves, `coder` is `mixed`, `adaptive` or `static`. An `effort` of 1 to
        3 takes longer and gives a better image for its bits (docs/effort.md).

        Raises:
            ValueError: there is no such quality, coder or effort, or the image is of another kind.
        """
        return self.compress_batch([image], quality=quality, coder=coder, effort=effort)[0]

    def compress_batch(
        self, images: Sequence[Image.Image | Pixels], *, quality: float, coder: str = CODERS[0], effort: int = 0
    ) -> list[bytes]:
        """Compress several images; those of equal padded shapes go through the transform together."""
        pixels = [as_pixels(image) for image in images]
        check_effort(effort)
        if effort:
            return [stream for _, stream in self._refine(pixels, quality=quality, coder=coder, effort=effort)]
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

    def thumbnail(self, data: bytes, *, scale: Scale = 16) -> Pixels:
        """Decode a bitstream to a small picture, without the synthesis: uint8, (h / scale, w / scale), rounded up.

        A pixel of it is close to the mean of a block of `scale` x `scale` pixels of the image, 16 or 8. Grayscale stays
        grayscale; else the shape ends in 3.

        Raises:
            BitstreamError: as `decompress`.
            ValueError: the scale is another, or the network of this bitstream has no thumbnails.
        """
        return self.thumbnails([self.decode(data)], scale=scale)[0]

    def analyze(
        self, images: Sequence[Pixels], *, quality: float, coder: str = CODERS[0], effort: int = 0
    ) -> list[Symbols]:
        """Transform and quantise images to the symbols that are coded; with effort, to better ones for this coder.

        Raises:
            ValueError: there is no such quality, coder or effort.
        """
        check_effort(effort)
        if effort:
            return [symbols for symbols, _ in self._refine(images, quality=quality, coder=coder, effort=effort)]
        gain = self._gain(index_of(quality))
        return self._analyze(images, quality, lambda y: quantize(y * gain).to(torch.int32))

    def latents(self, images: Sequence[Pixels], *, quality: float) -> list[Latents]:
        """Transform images to the latents of the network that serves a quality, the same for its whole range."""
        return self._analyze(images, quality, lambda y: y)

    def quantize(self, latents: Latents, *, quality: float) -> Symbols:
        """Quantise latents to the symbols of a quality of their network."""
        gain = self._gain(index_of(quality)).cpu()
        symbols: Symbols = quantize(torch.from_numpy(latents) * gain).to(torch.int32).numpy()
        return symbols

    def _analyze(
        self, images: Sequence[Pixels], quality: float, finish: Callable[[Tensor], Tensor]
    ) -> list[np.ndarray]:
        quality_index = index_of(quality)
        network, (analysis, _) = self._network(quality_index), self._transforms[self._number(quality_index)]
        groups = defaultdict(list)
        for place, image in enumerate(images):
            groups[padded_shape(*image.shape[:2])].append(place)

        def finished_latents(tile: Tensor) -> Tensor:
            with self._autocast(quality_index):
                y = analysis(self._on_device(tile).float() / 255)
            return finish(y.float()).cpu()

        results: dict[int, np.ndarray] = {}
        for shape, places in groups.items():
            x = _batch([to_planes(images[place], shape, network.config.channels) for place in places])
            with torch.inference_mode():
                y = analyze_tiled(finished_latents, x)
            results |= zip(places, y.contiguous().numpy(), strict=True)
        return [results[place] for place in range(len(images))]

    @torch.inference_mode(False)  # whatever the caller's mode is
    @torch.enable_grad()
    def _refine(
        self, images: Sequence[Pixels], *, quality: float, coder: str, effort: int
    ) -> list[tuple[Symbols, bytes]]:
        """Return the better of plain and refined symbols of each image, and its bitstream."""
        index = index_of(quality)
        latents = self.latents(images, quality=quality)
        refiner = Refiner(
            self._transforms[self._number(index)][1],
            self._gain(index),
            lmbda_of(quality_of(index)),
            self._network(index).states_at(index),
            coder_of(coder),
            # Gradients may be coarse where there are few steps.
            self._autocast(index) if effort == MAX_EFFORT else self._coarse(),
        )
        plain = [self.quantize(y, quality=quality) for y in latents]
        refined = refiner(images, latents, effort=effort)
        headers = [make_header(x, quality=quality, coder=coder) for x in images]
        # What the decoder shows and the coder spends decides.
        both = zip(self._coded(images, plain, headers), self._coded(images, refined, headers), strict=True)
        return [min(pair, key=lambda coded: coded[0])[1:] for pair in both]

    def _coded(
        self, images: Sequence[Pixels], symbols: Sequence[Symbols], headers: Sequence[Header]
    ) -> Iterator[tuple[float, Symbols, bytes]]:
        """Yield `lmbda * 255^2 * mse + bpp` of images, with their symbols and bitstreams."""
        x_hats = self.synthesize(list(zip(headers, symbols, strict=True)))
        for x, x_hat, q, header in zip(images, x_hats, symbols, headers, strict=True):
            stream = self.encode(q, header=header)
            bpp = measures.bpp(len(stream), height=header.height, width=header.width)
            yield lmbda_of(quality_of(header.quality_index)) * measures.mse_255(x, x_hat) + bpp, q, stream

    def encode(self, symbols: Symbols, *, header: Header) -> bytes:
        """Entropy code symbols into a bitstream."""
        network = self._network(header.quality_index)
        coder = network.states_at(header.quality_index).coders[header.coder]
        return bitstream.pack(header, coder.encode(symbols), fingerprint=network.fingerprint)

    def decode(self, data: bytes) -> tuple[Header, Symbols]:
        """Decode a bitstream to its header and symbols, without any float arithmetic.

        Raises:
            BitstreamError: as `decompress`.
        """
        header = bitstream.parse_header(data)
        try:
            network = self._network(header.quality_index)
        except QualityError as error:
            raise BitstreamError(f"bitstream is of another bundle, pass the one that wrote it ({error})") from error
        header, payload = bitstream.unpack(data, fingerprint=network.fingerprint)
        if header.height * header.width > self._max_pixels:
            raise BitstreamError(
                f"image has {header.width}x{header.height} pixels, the limit is {self._max_pixels}: "
                "load the codec with a larger max_pixels if you trust the source"
            )
        height, width = padded_shape(header.height, header.width)
        shape = (network.config.latents, height // DOWNSAMPLING, width // DOWNSAMPLING)
        coder = network.states_at(header.quality_index).coders[header.coder]
        return header, coder.decode(payload, shape)

    def dequantize(self, symbols: Symbols, *, quality: float) -> Latents:
        """Return the latents that symbols stand for: what the synthesis is given."""
        step = 1 / self._gain(index_of(quality)).cpu()
        latents: Latents = (torch.from_numpy(symbols).float() * step).numpy()
        return latents

    def synthesize(self, decoded: Sequence[tuple[Header, Symbols]]) -> list[Pixels]:
        """Transform decoded symbols to images, as uint8 arrays."""
        planes = self.synthesize_planes([(header, torch.from_numpy(symbols)) for header, symbols in decoded])
        return [to_pixels(each.cpu()) for each in planes]

    def synthesize_planes(self, decoded: Sequence[tuple[Header, Tensor]]) -> list[UInt8[Tensor, "_ h w"]]:
        """Transform decoded symbols, integers of any type, to uint8 images that stay on the codec's device."""
        groups = defaultdict(list)
        for index, (header, symbols) in enumerate(decoded):
            groups[header.quality_index, header.gray, symbols.shape].append(index)
        images: dict[int, Tensor] = {}
        for (quality_index, gray, _), indices in groups.items():
            pixels = self._synthesis_of(quality_index, gray=gray)
            with torch.inference_mode():
                planes = synthesize_tiled(pixels, _batch([decoded[i][1] for i in indices]))
            images |= zip(indices, planes, strict=True)
        return [images[i][:, : header.height, : header.width] for i, (header, _) in enumerate(decoded)]

    def thumbnails(self, decoded: Sequence[tuple[Header, Symbols]], *, scale: Scale = 16) -> list[Pixels]:
        """Return small pictures of decoded symbols, as `thumbnail`; they are computed on the CPU."""
        if scale not in SCALES:
            raise ValueError(f"scale is {scale}, expected one of {', '.join(map(str, SCALES))}")
        return [self._thumbnail(header, symbols, scale) for header, symbols in decoded]

    def _thumbnail(self, header: Header, symbols: Symbols, scale: Scale) -> Pixels:
        network = self._network(header.quality_index)
        if network.thumbnails is None:
            raise ValueError(
                f"the network of qualities {network.qualities} has no thumbnails: docs/training.md says how to add "
                "them to a bundle"
            )
        filter_, step = network.thumbnails, 1 / self._gain(header.quality_index).cpu()

        def pixels(tile: Tensor) -> Tensor:
            return to_uint8(filter_(tile.float() * step, scale=scale), gray=header.gray)

        planes = shrink_tiled(pixels, torch.from_numpy(symbols)[None], scale)[0]
        return to_pixels(planes[:, : -(-header.height // scale), : -(-header.width // scale)])

    def estimate_bits(self, symbols: Symbols, *, quality: float) -> float:
        """Return the model's estimate of the payload: the ideal code length under the static table."""
        index = index_of(quality)
        return self._network(index).states_at(index).table.code_length_bits(symbols)

    def _synthesis_of(self, quality_index: int, *, gray: bool) -> Callable[[Tensor], Tensor]:
        """Return the function that turns a tile of symbols into pixels."""
        _, synthesis = self._transforms[self._number(quality_index)]
        step = 1 / self._gain(quality_index)

        def pixels(tile: Tensor) -> Tensor:
            with self._autocast(quality_index):
                x_hat = synthesis(self._on_device(tile).float() * step)
            return to_uint8(x_hat.float(), gray=gray)

        return pixels

    def _gain(self, quality_index: int) -> Float[Tensor, "c 1 1"]:
        gain = self._network(quality_index).gains.at(quality_index)
        return torch.from_numpy(gain).to(self._device)[:, None, None]

    def _network(self, quality_index: int) -> FittedNetwork:
        return self._bundle.network_at(quality_index)

    def _number(self, quality_index: int) -> int:
        return network_number(self._bundle.qualities, quality_index)

    def _autocast(self, quality_index: int) -> torch.autocast:
        enabled = takes_bfloat16(self._precision, self._device, lmbda=lmbda_of(quality_of(quality_index)))
        return torch.autocast(self._device.type, torch.bfloat16, enabled=enabled)

    def _coarse(self) -> torch.autocast:
        """Return the fastest arithmetic that is allowed."""
        enabled = takes_bfloat16(self._precision, self._device, lmbda=0.0)
        return torch.autocast(self._device.type, torch.bfloat16, enabled=enabled)

    def _on_device(self, x: Tensor) -> Tensor:
        return x.to(self._device, memory_format=torch.channels_last)


def make_header(image: Pixels, *, quality: float, coder: str) -> Header:
    """Return the header of an image's bitstream; `coder` is `mixed`, `adaptive` or `static`."""
    height, width = image.shape[:2]
    return Header(height, width, gray=image.ndim == 2, quality_index=index_of(quality), coder=coder_of(coder))


def _batch(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors; a single tensor, which may be large, is not copied."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
