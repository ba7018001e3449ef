"""Run a transform over a large image tile by tile: bounded memory, no seams.

A latent sees 27 pixels before and 14 behind its own block of 16, a pixel less than two latents to each side. So tiles
that overlap by two latents (32 pixels) a side, their overlap cut off again, give what the whole image would give, up
to float rounding; at the image's own border the transform mirrors as always.

Letters in shapes: b batch, c channels, h and w rows and columns.
"""

from collections.abc import Callable, Iterator

from jaxtyping import Shaped
from torch import Tensor

from bls.transforms.networks import DOWNSAMPLING

HALO = 2
"""Overlap of tiles, in latents."""
TILE = 64
"""Side of a tile without its overlap, in latents: 1024 pixels, some 150 MB of activations."""


def analyze_tiled(analysis: Callable[[Tensor], Tensor], x: Shaped[Tensor, "b c h w"], tile: int = TILE) -> Tensor:
    """Return the latents of an image batch whose sides are multiples of 16."""
    return _tiled(analysis, x, tile, unit_in=DOWNSAMPLING, unit_out=1)


def synthesize_tiled(synthesis: Callable[[Tensor], Tensor], y: Shaped[Tensor, "b c h w"], tile: int = TILE) -> Tensor:
    """Return the images of a batch of latents."""
    return _tiled(synthesis, y, tile, unit_in=1, unit_out=DOWNSAMPLING)


def shrink_tiled(
    thumbnail: Callable[[Tensor], Tensor], y: Shaped[Tensor, "b c h w"], scale: int, tile: int = TILE
) -> Tensor:
    """Return the thumbnails of a batch of latents, whose sides are those of the images over `scale`."""
    return _tiled(thumbnail, y, tile, unit_in=1, unit_out=DOWNSAMPLING // scale)


def _tiled(transform: Callable[[Tensor], Tensor], x: Tensor, tile: int, *, unit_in: int, unit_out: int) -> Tensor:
    height, width = x.shape[2] // unit_in, x.shape[3] // unit_in
    if height <= tile and width <= tile:
        return transform(x)
    whole: Tensor | None = None
    for rows_in, rows_kept, rows in spans(height, tile):
        for columns_in, columns_kept, columns in spans(width, tile):
            out = transform(x[:, :, scaled(rows_in, unit_in), scaled(columns_in, unit_in)])
            if whole is None:
                whole = out.new_empty(*out.shape[:2], height * unit_out, width * unit_out)
            kept = out[:, :, scaled(rows_kept, unit_out), scaled(columns_kept, unit_out)]
            whole[:, :, scaled(rows, unit_out), scaled(columns, unit_out)] = kept
    assert whole is not None
    return whole


def spans(length: int, tile: int, halo: int = HALO) -> Iterator[tuple[slice, slice, slice]]:
    """Cut a length into tiles: what each reads, what of its result is kept, and where that belongs."""
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        first, last = max(start - halo, 0), min(stop + halo, length)
        yield slice(first, last), slice(start - first, stop - first), slice(start, stop)


def scaled(span: slice, unit: int) -> slice:
    """Return a span of latents in pixels, or of anything in smaller units."""
    return slice(span.start * unit, span.stop * unit)
