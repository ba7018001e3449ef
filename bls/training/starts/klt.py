"""Initialise a model as an optimal linear transform code of the training images.

Each analysis stage starts as the Karhunen-Loève transform (PCA) of its input's blocks, the synthesis as its
transpose, and the latents scaled to the step of a uniform quantiser at high resolution: there the rate falls by one
bit per halved step and the distortion is step^2 / 12, so `lmbda * 255^2 * mse + bpp` has its minimum at
`quantizer_step(lmbda)`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bls.training.model import Model
from bls.transforms.gdn import GDN
from bls.transforms.layers import Downsample, Upsample, block_offset

UNUSED_FILTER_SCALE = 1.0
"""Factor on the default random filters beyond the input block's dimensions: ready to be learnt at once."""
PERTURBATION_SCALE = 0.02
"""Factor on the default random filters added to all, so that what the principal components leave at zero learns."""


def quantizer_step(lmbda: float, *, channels: int = 3) -> float:
    """Return the optimal quantiser step of an orthonormal transform of images in [0, 1], at high resolution."""
    return math.sqrt(12 * channels / (2 * math.log(2) * lmbda * 255**2))


@torch.no_grad()
def initialize_from_klt(model: Model, x: Float[Tensor, "b c h w"], *, lmbda: float) -> None:
    """Set all parameters of the transforms from a batch of training images, ideally some millions of pixels.

    The perturbation is drawn from torch's global generator.
    """
    z = x - 0.5
    down = [layer for layer in model.analysis if isinstance(layer, Downsample)]
    up = [layer for layer in reversed(model.synthesis) if isinstance(layer, Upsample)]
    gdn = [layer for layer in model.analysis if isinstance(layer, GDN)]
    random = [layer.weight.clone() for layer in (*down, *up)]
    for stage, (analysis, synthesis) in enumerate(zip(down, up, strict=True)):
        assert analysis.bias is not None and synthesis.bias is not None
        mean = z.mean((0, 2, 3))
        filters = _principal_filters(z - mean[:, None, None], analysis)
        analysis.weight.copy_(filters)
        analysis.bias.copy_(-(filters.sum((2, 3)) @ mean))
        synthesis.weight.copy_(filters)
        synthesis.bias.copy_(mean)
        z = analysis(z)
        if stage < len(down) - 1:
            z = gdn[stage](z)
    for layer, weight in zip((*down, *up), random, strict=True):
        unused = layer.weight.square().sum((1, 2, 3), keepdim=True) == 0
        scale = torch.where(unused & isinstance(layer, Downsample), UNUSED_FILTER_SCALE, PERTURBATION_SCALE)
        layer.weight.add_(scale * weight)
    for latent_gdn in (model.analysis[-1], model.synthesis[0]):
        if isinstance(latent_gdn, GDN):
            latent_gdn.set_(torch.ones_like(latent_gdn.beta), torch.zeros_like(latent_gdn.gamma))
    scale_latents(model, quantizer_step(lmbda, channels=x.shape[1]))


def principal_components(rows: Float[Tensor, "p v"], count: int) -> Float[Tensor, "k v"]:
    """Return the leading principal components of zero-mean variables; fewer if the others have no variance."""
    rows = rows.double()
    eigenvalues, components = torch.linalg.eigh(rows.T @ rows / len(rows))
    order = eigenvalues.argsort(descending=True)[:count]
    order = order[eigenvalues[order] > 1e-9 * eigenvalues.max()]  # the rest is zero: channels without input
    leading: Tensor = components.T[order].float()
    return leading


def patch_rows(z: Float[Tensor, "b c h w"], size: int, *, stride: int) -> Float[Tensor, "p v"]:
    """Return the values of all patches of this size, a row for each, one patch every `stride` samples."""
    rows: Tensor = nn.functional.unfold(z, size, stride=stride).transpose(1, 2).flatten(0, 1)
    return rows


def block_filters(components: Float[Tensor, "k v"], layer: Downsample) -> Float[Tensor, "k n i j"]:
    """Return filters that see a stride-sized block at the centre of the kernel, and nothing around it."""
    stride = layer.stride[0]
    filters = components.new_zeros(len(components), layer.in_channels, *layer.kernel_size)
    offset = block_offset(layer.kernel_size[0], stride)
    inside = slice(offset, offset + stride)
    filters[:, :, inside, inside] = components.reshape(len(components), -1, stride, stride)
    return filters


def _principal_filters(z: Float[Tensor, "b c h w"], layer: Downsample) -> Float[Tensor, "n c k k"]:
    """Return filters that hold the leading principal components of stride-sized blocks, centred in the kernel."""
    stride = layer.stride[0]
    blocks = patch_rows(z, stride, stride=stride)
    leading = block_filters(principal_components(blocks, layer.out_channels), layer)
    filters = torch.zeros_like(layer.weight)
    filters[: len(leading)] = leading
    return filters


@torch.no_grad()
def scale_latents(model: Model, step: float) -> None:
    """Divide the latents by the step: in the GDN at the latents if there is one, else in the filters."""
    first, last = model.synthesis[0], model.analysis[-1]
    if isinstance(first, GDN) and isinstance(last, GDN):
        last.set_(step**2 * last.beta, step**2 * last.gamma)
        first.set_(step**2 * first.beta, step**4 * first.gamma)
        return
    assert isinstance(first, Upsample) and isinstance(last, Downsample) and last.bias is not None
    last.weight.div_(step)
    last.bias.div_(step)
    first.weight.mul_(step)
