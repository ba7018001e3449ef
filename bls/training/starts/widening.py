"""More latents for fitted transforms: a start for a fit of higher qualities at the same number of filters.

Few latents bound what a network can reach, whatever is spent. Further ones code what the given ones miss. Their
analysis filters are the best linear estimate, from the features that all latents are filtered from, of the principal
components of blocks of what is missed; their synthesis filters are fitted to the squared error by descent. All other
filters stay, so a block whose further latents are zero is decoded as before.

Letters in shapes: c image channels, h and w image size, f features, k further latents, v values of a block or patch.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bls.training.starts.klt import patch_rows, principal_components
from bls.transforms.layers import Downsample, Upsample, mirror_pad
from bls.transforms.networks import DOWNSAMPLING, AnalysisTransform, SynthesisTransform, TransformConfig
from bls.transforms.quantization import quantize

RIDGE = 1e-3
"""Of the mean square of a feature: what keeps the estimate's filters small."""
STEPS = 250
LEARNING_RATE = 0.08
"""Highest step of the descent, in root mean squares of the synthesis' filters."""


def widened(
    analysis: AnalysisTransform,
    synthesis: SynthesisTransform,
    batches: Sequence[Float[Tensor, "b c h w"]],
    *,
    num_latents: int,
    step: float,
) -> tuple[AnalysisTransform, SynthesisTransform]:
    """Return transforms with this number of latents, the given ones first and unchanged.

    `batches` are training images, best some million pixels. `step` is the quantiser's, in which further latents are
    measured, for an orthonormal transform of images in [0, 1] (`bls.training.starts.klt.quantizer_step`).
    """
    last = analysis[-1]
    if not isinstance(last, Downsample):
        raise ValueError("latents behind a GDN cannot become more: expected transforms without latent_gdn")
    count = num_latents - last.out_channels
    config = TransformConfig(last.in_channels, num_latents, batches[0].shape[1])
    wide_analysis, wide_synthesis = AnalysisTransform(config), SynthesisTransform(config)
    weight, bias = (each / step for each in _estimating_filters(analysis, synthesis, batches, count))
    _load(wide_analysis, analysis, {f"{len(analysis) - 1}.weight": weight, f"{len(analysis) - 1}.bias": bias})
    first = synthesis[0]
    assert isinstance(first, Upsample)
    _load(wide_synthesis, synthesis, {"0.weight": first.weight.new_zeros(count, *first.weight.shape[1:])})
    _fit_synthesis_filters(wide_analysis, wide_synthesis, batches, last.out_channels)
    return wide_analysis, wide_synthesis


@torch.no_grad()
def _load(wide: nn.Module, narrow: nn.Module, further: dict[str, Tensor]) -> None:
    """Take over all parameters, with further filters behind those of the layer next to the latents."""
    state = narrow.state_dict()
    wide.load_state_dict(state | {name: torch.cat([state[name], filters]) for name, filters in further.items()})


@torch.no_grad()
def _estimating_filters(
    analysis: AnalysisTransform, synthesis: SynthesisTransform, batches: Sequence[Tensor], count: int
) -> tuple[Float[Tensor, "k f 5 5"], Float[Tensor, " k"]]:
    """Return filters and biases that estimate the leading components of what the transforms miss, by least squares."""
    *layers, last = analysis
    assert isinstance(last, Downsample)
    before = nn.Sequential(*layers)
    missed = [patch_rows(x - synthesis(analysis(x)), DOWNSAMPLING, stride=DOWNSAMPLING) for x in batches]
    components = principal_components(torch.cat(missed), count)
    size = last.weight[0].numel() + 1
    products, wanted = torch.zeros(size, size).double(), torch.zeros(size, count).double()
    for x, target in zip(batches, missed, strict=True):
        padded = mirror_pad(before(x - 0.5), last.before, last.after)
        patches = patch_rows(padded, last.kernel_size[0], stride=last.stride[0])
        with_constant = nn.functional.pad(patches, (0, 1), value=1.0)
        products += (with_constant.T @ with_constant).double()
        wanted += (with_constant.T @ (target @ components.T)).double()
    of_features = products.diagonal()[:-1]
    of_features += RIDGE * of_features.mean()
    solution = torch.linalg.solve(products, wanted).float()
    return solution[:-1].T.reshape(count, *last.weight.shape[1:]), solution[-1]


def _fit_synthesis_filters(
    analysis: AnalysisTransform, synthesis: SynthesisTransform, batches: Sequence[Tensor], num_before: int
) -> None:
    """Fit the filters behind the first ones to the squared error of images from rounded latents."""
    first = synthesis[0]
    assert isinstance(first, Upsample)
    weight = first.weight
    synthesis.requires_grad_(False)
    weight.requires_grad_(True)
    scale = LEARNING_RATE * weight[:num_before].detach().square().mean().sqrt().item()
    optimizer = torch.optim.Adam([weight], betas=(0.9, 0.99))
    for step in range(STEPS):
        x = batches[step % len(batches)]
        with torch.no_grad():
            symbols = quantize(analysis(x))
        optimizer.param_groups[0]["lr"] = scale * (1 + math.cos(math.pi * step / STEPS)) / 2
        optimizer.zero_grad()
        (x - synthesis(symbols)).square().mean().backward()
        assert weight.grad is not None
        weight.grad[:num_before] = 0
        optimizer.step()
    synthesis.requires_grad_(True)
