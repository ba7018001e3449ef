"""Refine latents by gradient steps on `lmbda * 255^2 * mse + bpp`, for one image at a time and the decoder as it is.

The analysis is fitted to all images at once; what it misses on one is found by descending on that image's own loss
(Campos et al., "Content Adaptive Optimization for Neural Image Compression", CVPR workshops 2019). Rounding has no
gradient. Yang, Bamler, Mandt, "Improving Inference for Neural Image Compression", NeurIPS 2020, draw noisy roundings
and anneal them; here rounding is softened without noise, by the function of Agustsson and Theis, "Universally
Quantized Neural Compression", NeurIPS 2020, which hardens from step to step, and from some step on more and more
latents, in a random order, are rounded for good while the others make up for them. That needs a third of the steps
(docs/decisions/0014-effort.md).

All is counted in bits: the bits of an image are its latents' code lengths, and `lmbda * 255^2 * mse` a pixel. Latents
are in units of the quantiser's step, `v = y * gain`.

Letters in shapes: b batch, c image channels, m latent channels, h and w image rows and columns, hl and wl latent rows
and columns.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from bls.transforms.networks import DOWNSAMPLING
from bls.transforms.quantization import quantize
from bls.transforms.tiling import HALO, TILE, scaled, spans

MAX_EFFORT = 3


@dataclass(frozen=True)
class Schedule:
    """The steps of a level of effort."""

    num_steps: int
    hardness: tuple[float, float]
    """Of the softened rounding, at the first step and at the last."""
    first_fixed: float
    """After which part of the steps latents begin to be rounded for good."""

    def hardness_at(self, progress: float) -> float:
        """Return the hardness at a part of the way, 0 to 1."""
        first, last = self.hardness
        return float(first * (last / first) ** progress)

    def fixed_part(self, progress: float) -> float:
        """Return which part of the latents is rounded for good."""
        return max(0.0, (progress - self.first_fixed) / (1 - self.first_fixed)) if self.first_fixed < 1 else 0.0


SCHEDULES = {
    1: Schedule(3, (4.0, 30.0), 1.0),
    2: Schedule(8, (2.0, 20.0), 0.5),
    3: Schedule(20, (2.0, 12.0), 0.3),
}
"""Of each level; 0 is the analysis alone."""

# Adam (Kingma, Ba, ICLR 2015), in steps of the quantiser: a latent moves by as much as the rate at most.
FIRST_RATE, LAST_RATE = 0.08, 0.024
MOMENTUM, SQUARE_MOMENTUM = 0.8, 0.95
SMALLEST_GRADIENT = 1e-9
"""In bits a step; keeps the quotient finite where nothing changes."""


def check_effort(effort: int) -> None:
    """Do nothing if there is a level of effort.

    Raises:
        ValueError: there is none.
    """
    if isinstance(effort, bool) or not isinstance(effort, int) or not 0 <= effort <= MAX_EFFORT:
        raise ValueError(f"effort is {effort!r}, expected a whole number from 0 (fastest) to {MAX_EFFORT} (smallest)")


@dataclass(frozen=True)
class Objective:
    """What is minimised: the bits that latents cost, and those that the error of what they turn into weighs."""

    synthesis: Callable[[Tensor], Tensor]
    """From latents to images, differentiable in them."""
    code_length: Callable[[Tensor], Tensor]
    """The bits of each latent, differentiable too."""
    error_bits: float
    """What a squared error of 1 in one sample of a pixel weighs."""

    def __call__(self, v: Tensor, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the bits of all images together; without `counted` all pixels count."""
        error = self.synthesis(v).clamp(0, 1) - x
        if counted is not None:
            error = error * counted
        return self.error_bits * error.square().sum() + self.code_length(v).sum()


def refine(
    objective: Objective,
    v: Float[Tensor, "b m hl wl"],
    x: UInt8[Tensor, "b c h w"],
    counted: Bool[Tensor, "b 1 h w"],
    *,
    effort: int,
    tile: int = TILE,
) -> Float[Tensor, "b m hl wl"]:
    """Return symbols for images, better ones than the latents that the analysis gave, rounded.

    `counted` are the pixels whose error counts. A large image is refined tile by tile in bounded memory: of a tile,
    whatever its latents have an influence on counts, while the latents around it stay as they are, refined or rounded.
    """
    symbols = quantize(v)
    height, width = v.shape[2:]
    # A latent reaches pixels and contexts up to HALO latents away, and these depend on latents as far away again.
    for rows_in, rows_kept, rows in spans(height, tile, 2 * HALO):
        for columns_in, columns_kept, columns in spans(width, tile, 2 * HALO):
            pixels = (..., scaled(rows_in, DOWNSAMPLING), scaled(columns_in, DOWNSAMPLING))
            reached = counted[pixels] & _reached(counted[pixels].shape, rows_kept, columns_kept)
            bits = _bits_in(
                symbols[:, :, rows_in, columns_in],
                (..., rows_kept, columns_kept),
                partial(
                    objective, x=_on(v.device, x[pixels]) / 255, counted=None if reached.all() else reached.to(v.device)
                ),
            )
            symbols[:, :, rows, columns] = _descend(bits, v[:, :, rows, columns], SCHEDULES[effort])
    return symbols


def _descend(bits: Callable[[Tensor], Tensor], v: Tensor, schedule: Schedule) -> Tensor:
    """Return integers near `v` with few bits."""
    mean, square = torch.zeros_like(v), torch.zeros_like(v)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(v.shape[1:], generator=generator).to(v.device)
    for step in range(schedule.num_steps):
        progress = step / (schedule.num_steps - 1)
        is_fixed = order < schedule.fixed_part(progress)
        v = torch.where(is_fixed, quantize(v), v).requires_grad_()
        softened = torch.where(is_fixed, v, soften(v, schedule.hardness_at(progress)))
        (gradient,) = torch.autograd.grad(bits(softened), v)
        mean.lerp_(gradient, 1 - MOMENTUM)
        square.lerp_(gradient.square(), 1 - SQUARE_MOMENTUM)
        rate = LAST_RATE + (FIRST_RATE - LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
        scale = (square / (1 - SQUARE_MOMENTUM ** (step + 1))).sqrt_() + SMALLEST_GRADIENT
        move = mean / (1 - MOMENTUM ** (step + 1)) / scale * rate
        v = torch.where(is_fixed, v, v - move).detach()
    return quantize(v)


def soften(v: Float[Tensor, "*shape"], hardness: float) -> Float[Tensor, "*shape"]:
    """Round softly: between two integers along a tanh, the steeper the harder; integers and halves stay."""
    middle = v.detach().floor() + 0.5
    return middle + torch.tanh(hardness * (v - middle)) / (2 * math.tanh(hardness / 2))


def _bits_in(around: Tensor, kept: tuple[Any, ...], bits: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the bits as a function of the latents in the middle of others."""

    def bits_in_the_middle(v: Tensor) -> Tensor:
        whole = around.clone()
        whole[kept] = v
        return bits(whole)

    return bits_in_the_middle


def _reached(shape: torch.Size, rows: slice, columns: slice) -> Bool[Tensor, "b 1 h w"]:
    """Return which pixels of a window the latents in its middle have an influence on."""
    reached = torch.zeros(shape, dtype=torch.bool)
    rows, columns = (
        scaled(slice(max(span.start - HALO, 0), span.stop + HALO), DOWNSAMPLING) for span in (rows, columns)
    )
    reached[:, :, rows, columns] = True
    return reached


def _on(device: torch.device, x: Tensor) -> Tensor:
    return x.to(device, memory_format=torch.channels_last).float()
