"""How well uniform noise stands for rounding (Ballé, Laparra, Simoncelli, ICLR 2017, figure 4), image by image.

Training sees latents with noise and the differential entropy of those; coding has rounded latents and their discrete
entropy. Both entropies are taken under one density, which is fitted here, in closed form, to the latents of the very
images that are measured: a bundle keeps only the integers that the coders start from. The bits of real bitstreams come
from these integers.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from bls.bundle import Bundle
from bls.codec import Codec
from bls.entropy.coders import CODERS
from bls.ladder import index_of, quality_text
from bls.measures import images as measures
from bls.pixels import Pixels, padded_shape, to_planes
from bls.training.density import Density
from bls.training.distortion import mse_255
from bls.training.noise import add_uniform_noise
from bls.transforms.quantization import quantize
from bls.transforms.tiling import analyze_tiled, synthesize_tiled
from pipeline.console.text import markdown_table

Row = dict[str, Any]


class RelaxationCheck:
    """Measures one quality: first `fit` with every image, then `measure` each."""

    def __init__(self, bundle: Bundle, quality: float, *, seed: int = 0) -> None:
        self.quality = quality
        network = bundle.network(quality)
        self._config = network.config
        self._codec = Codec(Bundle([network]))
        self._analysis, self._synthesis = network.weights.transforms()
        self._gain = torch.from_numpy(network.gains.at(index_of(quality)))[None, :, None, None]
        # Momentum 1: a plain average over all images.
        self._density = Density(network.config.latents, momentum=1.0)
        self._generator = torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def fit(self, x: Pixels) -> None:
        """Move the density towards the latents of an image."""
        self._density.update(self._analyze(self._to_tensor(x)))

    @torch.inference_mode()
    def measure(self, x: Pixels) -> Row:
        """Return error and rate of an image with noise and with rounding, and the rate of its bitstreams."""
        image = self._to_tensor(x)
        v = self._analyze(image) * self._gain
        height, width = x.shape[:2]
        row: Row = {"quality": self.quality, "width": width, "height": height}
        for name, latents in (("noisy", add_uniform_noise(v, self._generator)), ("rounded", quantize(v))):
            x_hat = synthesize_tiled(self._synthesis, latents / self._gain)
            row[f"{name}_mse_255"] = mse_255(image[..., :height, :width], x_hat[..., :height, :width]).item()
            row[f"{name}_bpp"] = self._density.bits(latents, self._gain).double().sum().item() / (height * width)
        for coder in CODERS:
            num_bytes = len(self._codec.compress(x, quality=self.quality, coder=coder))
            row[f"{coder}_bpp"] = measures.bpp(num_bytes, height=height, width=width)
        return row

    def _to_tensor(self, x: Pixels) -> Tensor:
        return to_planes(x, padded_shape(*x.shape[:2]), self._config.channels)[None].float() / 255

    def _analyze(self, image: Tensor) -> Tensor:
        y: Tensor = analyze_tiled(self._analysis, image)
        return y


def summary_rows(table: pa.Table) -> Iterator[Row]:
    """Yield for each quality how far noise lies from rounding: mean (bias) and standard deviation over images.

    The error is in decibels, the rate in bits per pixel; both are positive where noise gives more. Beside
    them the mean of the rate, and of the bits of whole bitstreams, in percent above the discrete entropy.
    """
    rows = table.to_pylist()
    for quality in sorted({row["quality"] for row in rows}):
        chosen = [row for row in rows if row["quality"] == quality]
        error_db = [10 * math.log10(row["noisy_mse_255"] / row["rounded_mse_255"]) for row in chosen]
        rate_bpp = [row["noisy_bpp"] - row["rounded_bpp"] for row in chosen]
        yield {
            "quality": quality,
            "num_images": len(chosen),
            "mse_bias_db": np.mean(error_db),
            "mse_spread_db": np.std(error_db),
            "bpp_bias": np.mean(rate_bpp),
            "bpp_spread": np.std(rate_bpp),
            **{f"{name}_percent": np.mean(_percent(chosen, f"{name}_bpp")) for name in ("noisy", *CODERS)},
        }


def _percent(rows: Iterable[Row], column: str) -> list[float]:
    """Return how much each rate exceeds the discrete entropy, where that is not 0."""
    return [100 * (row[column] / row["rounded_bpp"] - 1) for row in rows if row["rounded_bpp"] > 0]


def markdown(table: pa.Table, *, name: str, provenance: Row) -> str:
    """Return the numbers as Markdown, with the picture `relaxation.png`."""
    rows = list(summary_rows(table))
    heads = ["quality", "images", "MSE, noise against rounding", "entropy, noise against rounding"]
    heads += [f"{coder} bitstream against entropy" for coder in CODERS]
    lines = [
        f"# Noise for rounding: {name}",
        "",
        "Training adds uniform noise to the latents, coding rounds them. A dot is an image; the table has mean and",
        "standard deviation over images. Both entropies are under one density, fitted in closed form to the latents of",
        "these images (a bundle keeps only the integers that its coders start from); one draw of noise per image.",
        "Bitstreams are whole, header and checksum included; a coder with contexts needs fewer bits than this entropy,",
        "which knows none.",
        "",
        "![noise against rounding](relaxation.png)",
        "",
        *markdown_table(heads, [_cells(row) for row in rows]),
        "",
        *(f"- {key}: {value}" for key, value in provenance.items() if value is not None),
    ]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    return [
        quality_text(row["quality"]),
        str(row["num_images"]),
        f"{row['mse_bias_db']:+.2f} ± {row['mse_spread_db']:.2f} dB",
        f"{row['bpp_bias']:+.3f} ± {row['bpp_spread']:.3f} bpp, {row['noisy_percent']:+.1f} %",
        *(f"{row[f'{coder}_percent']:+.1f} %" for coder in CODERS),
    ]
