"""The synthesis transform with gradients to the latents alone.

The same values as `SynthesisTransform` gives and the gradients that autograd would find, in half of the time: a layer
keeps little, and its backward pass is one convolution and few passes over memory.

Letters in shapes: b batch, c channels, m latent channels, h and w rows and columns, hl and wl of the latents.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from bls.transforms.gdn import GDN
from bls.transforms.layers import Upsample, mirror_pad
from bls.transforms.networks import SynthesisTransform

SMALLEST_ENERGY = 1e-9
"""Keeps the gradient finite where a channel has lost all its pooling weight."""


def synthesize(synthesis: SynthesisTransform, y: Float[Tensor, "b m hl wl"]) -> Float[Tensor, "b c h w"]:
    """Transform a batch of latents; the parameters get no gradient. `torch.autocast` chooses the arithmetic."""
    x = y
    for layer in synthesis:
        if isinstance(layer, GDN):
            gamma, beta = layer.gamma[:, :, None, None].to(x.dtype), layer.beta.to(x.dtype)
            x = _InverseGDN.apply(x, gamma, beta)  # type: ignore[no-untyped-call]
        else:
            assert isinstance(layer, Upsample)
            x = layer.of_padded(_MirrorPad.apply(x))  # type: ignore[no-untyped-call]
    return x.float() + 0.5


class _InverseGDN(torch.autograd.Function):
    """`u = x * root`, `root = sqrt(beta + gamma x^2)`; a gradient g becomes `g * root + x * gamma^T (g * x / root)`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        root = functional.conv2d(x.square(), gamma, beta).clamp_min_(SMALLEST_ENERGY).sqrt_()
        ctx.save_for_backward(x, root, gamma)
        return x * root

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        x, root, gamma = ctx.saved_tensors
        pooled = functional.conv2d((g * x).div_(root), gamma.transpose(0, 1))
        return pooled.mul_(x).addcmul_(g, root), None, None


class _MirrorPad(torch.autograd.Function):
    """`mirror_pad` by one sample: what reaches the margin counts for the edge."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return mirror_pad(x, 1, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        rows = g[:, :, 1:-1].clone()
        rows[:, :, 0] += g[:, :, 0]
        rows[:, :, -1] += g[:, :, -1]
        inner = rows[:, :, :, 1:-1].contiguous(memory_format=torch.channels_last)
        inner[:, :, :, 0] += rows[:, :, :, 0]
        inner[:, :, :, -1] += rows[:, :, :, -1]
        return inner
