"""Filtering with a change of resolution: the linear layers of both transforms.

Letters in shapes: i input channels, o output channels, s stride."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def mirror_pad(x: Float[Tensor, "b c h w"], before: int, after: int) -> Float[Tensor, "b c hp wp"]:
    """Extend rows and columns by their mirror image, edge pixel repeated: the paper's boundary, which torch lacks."""
    for dim in (2, 3):
        size = x.shape[dim]
        parts = [x.narrow(dim, 0, before).flip(dim)] if before else []
        parts.append(x)
        if after:
            parts.append(x.narrow(dim, size - after, after).flip(dim))
        x = torch.cat(parts, dim)
    return x


class Downsample(nn.Conv2d):
    """Mirror-pad, filter, keep every `stride`-th sample: output (i, j) sees the block at stride * (i, j) centred."""

    def __init__(self, channels_in: int, channels_out: int, size: int, stride: int) -> None:
        super().__init__(channels_in, channels_out, size, stride)
        self.before = block_offset(size, stride)
        self.after = size - stride - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Filter and downsample; rows and columns must be multiples of the stride."""
        return super().forward(mirror_pad(x, self.before, self.after))


FEW_CHANNELS = 16
"""Below this number of output channels, a transposed convolution leaves most of a CPU's vector units idle."""


class Upsample(nn.ConvTranspose2d):
    """Insert zeros and filter: with the same filters the adjoint of `Downsample`, boundaries aside.

    Few output channels are computed as a convolution with more of them, one for each sample of a block of
    `stride x stride`, which are then laid out: the same sums in less than half the time.
    """

    def __init__(self, channels_in: int, channels_out: int, size: int, stride: int) -> None:
        # One mirrored sample a side is all that reaches into the output; what it adds outside is cropped again.
        crop = stride + block_offset(size, stride)
        super().__init__(channels_in, channels_out, size, stride, crop, output_padding=2 * crop - stride - size)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample and filter."""
        return self.of_padded(mirror_pad(x, 1, 1), output_size)

    def of_padded(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample and filter what has its mirrored margin already."""
        if self.out_channels >= FEW_CHANNELS:
            return super().forward(x, output_size)
        stride = self.stride[0]
        bias = None if self.bias is None else self.bias.repeat_interleave(stride**2)
        blocks = nn.functional.conv2d(x, self._block_filters(), bias)
        return nn.functional.pixel_shuffle(blocks, stride)

    def _block_filters(self) -> Float[Tensor, "oss i 3 3"]:
        """Return the filters that yield a block from the sample there and its neighbours, zero where they reach past.

        Sample p of block b takes tap `p + offset - stride * d` of the filter from sample b + d.
        """
        (size, _), (stride, _) = self.kernel_size, self.stride
        before = stride - block_offset(size, stride)
        taps = nn.functional.pad(self.weight, (before, 3 * stride - size - before) * 2)
        taps = taps.reshape(self.in_channels, self.out_channels, 3, stride, 3, stride).flip(2, 4)  # axes i o d p d p
        return taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)


def block_offset(size: int, stride: int) -> int:
    """Return where a block of `stride` samples starts within a kernel of `size`, nearest to its centre."""
    return (size - stride + 1) // 2
