"""Refine the latents of images for one network, quality and entropy coder.

Letters in shapes: b batch, c image channels, m latent channels, h and w image rows and columns, hl and wl latent rows
and columns.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from bls.bitstream import Coder
from bls.entropy.adaptive.model import AdaptiveModel
from bls.entropy.coders import StartingStates
from bls.measures.luma import luma
from bls.pixels import Pixels, to_planes
from bls.refinement.descent import Objective, refine
from bls.refinement.rate import CodeLength
from bls.refinement.synthesis import synthesize
from bls.transforms.networks import DOWNSAMPLING, SynthesisTransform


@dataclass(frozen=True)
class Refiner:
    """What refinement takes of a codec."""

    synthesis: SynthesisTransform
    gain: Float[Tensor, "m 1 1"]
    lmbda: float
    states: StartingStates
    coder: Coder
    autocast: torch.autocast
    """The arithmetic inside the synthesis."""

    def __call__(
        self, images: Sequence[Pixels], latents: Sequence[Float32[np.ndarray, "m hl wl"]], *, effort: int
    ) -> list[Int32[np.ndarray, "m hl wl"]]:
        """Return symbols for images whose latents the analysis gave; those of one shape and kind go together."""
        groups = defaultdict(list)
        for place, image in enumerate(images):
            groups[latents[place].shape, image.ndim == 2].append(place)
        code_length = CodeLength(self._adaptive_model(), self.gain.device)
        results: dict[int, np.ndarray] = {}
        for (_, is_gray), places in groups.items():
            symbols = self._refine(
                [images[place] for place in places],
                np.stack([latents[place] for place in places]),
                self._objective(code_length, is_gray=is_gray),
                effort,
            )
            results |= zip(places, symbols, strict=True)
        return [results[place] for place in range(len(images))]

    def _adaptive_model(self) -> AdaptiveModel:
        # The static coder is the adaptive one that knows the table alone and learns nothing.
        return AdaptiveModel.from_table(self.states.table) if self.coder is Coder.STATIC else self.states.adaptive

    def _objective(self, code_length: CodeLength, *, is_gray: bool) -> Objective:
        def synthesized(v: Tensor) -> Tensor:
            with self.autocast:
                x_hat = synthesize(self.synthesis, v / self.gain)
            return luma(x_hat) if is_gray else x_hat

        return Objective(synthesized, code_length, self.lmbda * 255**2 / (1 if is_gray else 3))

    def _refine(self, images: Sequence[Pixels], latents: np.ndarray, objective: Objective, effort: int) -> np.ndarray:
        shape = latents.shape[2] * DOWNSAMPLING, latents.shape[3] * DOWNSAMPLING
        x = torch.stack([to_planes(image, shape, 1 if image.ndim == 2 else 3) for image in images])
        counted = torch.zeros(len(images), 1, *shape, dtype=torch.bool)
        for image, inside in zip(images, counted, strict=True):
            inside[:, : image.shape[0], : image.shape[1]] = True
        y = torch.from_numpy(latents).to(self.gain.device, memory_format=torch.channels_last)
        symbols = refine(objective, y * self.gain, x, counted, effort=effort)
        return symbols.to("cpu", torch.int32).contiguous().numpy()
