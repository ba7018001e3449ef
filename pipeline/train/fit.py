"""The fit of one network, from its start to what goes into a bundle: batches in, curve and fitted model out.

Knows no cluster: `pipeline/train/worker.py` runs it in every worker of a Ray Train job, and it is tested without.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8

from bls.bundle import Bundle
from bls.codec import Codec
from bls.ladder import MAX_QUALITY, QualityRange, lmbda_of
from bls.measures import images as quality
from bls.measures.nlp import nlp
from bls.network import FittedNetwork
from bls.training import distortion
from bls.training.finish import STATES_SPACING, make_fitted_network
from bls.training.model import Model
from bls.training.parallel import BatchPart
from bls.training.starts.klt import initialize_from_klt, quantizer_step, scale_latents
from bls.training.starts.widening import widened
from bls.training.trainer import StepMetrics, Trainer, TrainingConfig
from bls.transforms.networks import TransformConfig
from pipeline.train.patches import PatchConfig, PatchSet

DISTORTIONS = {"mse": distortion.mse_255, "ms-ssim": distortion.ms_ssim, "nlp": nlp}
LMBDA_SCALES = {"mse": 1.0, "ms-ssim": 2500.0, "nlp": 300.0}
"""Factor on the ladder's weights: with it each distortion weighs about as much as the MSE at quality 4."""
START_PATCHES = 128
"""Patches whose principal components a fit starts from."""
WIDENING_BATCHES = 50
"""Batches of eight patches that further latents are found from."""
STEPS_PER_POINT = 20
"""Steps whose mean is one point of the training curve."""
DRAFT_IMAGES = 64
"""Images that tables and coders are fitted to for an evaluation on the way."""
CODER_IMAGES = 600
"""Images that they are fitted to at the end: three times this number gained nothing."""


@dataclass(frozen=True)
class FitConfig:
    """All that decides the fit of one network, except its images and its start."""

    qualities: QualityRange
    training: TrainingConfig
    model: TransformConfig
    patches: PatchConfig
    batch_size: int
    distortion: Literal["mse", "ms-ssim", "nlp"] = "mse"
    rate: Literal["density", "context"] = "density"
    """What counts the bits of a step: the density, as in the paper, or a network with contexts, as the coders have."""

    def new_model(self) -> Model:
        """Return a model that knows nothing yet."""
        return Model(self.model, self.qualities, context_rate=self.rate == "context")


@dataclass(frozen=True)
class Sample:
    """Decoded images for the steps that need only some: the start, the entropy coder, and evaluations on the way."""

    patches: PatchSet
    held_out: Sequence[UInt8[np.ndarray, "h w c"]]
    """Images that no step sees."""


class Fit:
    """One network on its way; every process of a data-parallel fit holds one."""

    def __init__(
        self,
        config: FitConfig,
        sample: Sample,
        part: BatchPart,
        *,
        start: FittedNetwork | None = None,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self._sample = sample
        self._part = part
        self._points: list[dict[str, Any]] = []
        self._window: list[StepMetrics] = []
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
            torch.default_generator.manual_seed(config.training.seed)
            model = _klt_start(config, sample) if start is None else _start_from(start, config, sample)
        self.trainer = Trainer(model, config.training, device=device, distortion=DISTORTIONS[config.distortion])

    @property
    def step(self) -> int:
        """The number of steps that are done."""
        return self.trainer.step

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        return self.step >= self.config.training.steps

    def train_step(self, x: torch.Tensor) -> StepMetrics:
        """Take one step on this process's part of the batch.

        Raises:
            FloatingPointError: the fit has diverged.
        """
        metrics = self.trainer.train_step(x, self._part)
        self._window.append(metrics)
        if metrics.step % STEPS_PER_POINT == 0 or self.is_done:
            self._points.append({"qualities": str(self.config.qualities), **mean_of(self._window)})
            self._window = []
        return metrics

    def curve(self) -> list[dict[str, Any]]:
        """Return the training curve so far: rows of `pipeline.ledger.schema.TRAINING_CURVE`."""
        return list(self._points)

    def evaluate(self) -> tuple[float, float]:
        """Return bpp and PSNR of real bitstreams of the held-out images, and note them in the curve.

        Means over the images, each at the middle of the range.
        """
        draft = self.fitted_network(max_images=DRAFT_IMAGES, states_spacing=MAX_QUALITY)
        codec, middle = Codec(Bundle([draft])), draft.qualities.middle
        rates, psnrs = [], []
        for image in self._sample.held_out:
            x = image[:, :, 0] if image.shape[2] == 1 else image
            bitstream = codec.compress(x, quality=middle)
            rates.append(quality.bpp(len(bitstream), height=x.shape[0], width=x.shape[1]))
            psnrs.append(quality.psnr_db(quality.mse_255(x, codec.decompress(bitstream))))
        bpp, psnr_db = float(np.mean(rates)), float(np.mean(psnrs))
        if self._points:
            self._points[-1].update(held_out_bpp=bpp, held_out_psnr_db=psnr_db)
        return bpp, psnr_db

    def fitted_network(
        self,
        *,
        max_images: int = CODER_IMAGES,
        states_spacing: float = STATES_SPACING,
        description: Mapping[str, Any] | None = None,
    ) -> FittedNetwork:
        """Return what goes into a bundle, the coders fitted to whole images of the sample."""
        return make_fitted_network(
            self.trainer.model,
            self._sample.patches.whole_images(max_images),
            training={**describe(self.config), **(description or {})},
            states_spacing=states_spacing,
        )

    def state_bytes(self) -> bytes:
        """Return everything that the next step depends on, and the curve so far."""
        file = io.BytesIO()
        state = {"trainer": self.trainer.state_dict(), "points": self._points, "window": [*map(tuple, self._window)]}
        torch.save(state, file)
        return file.getvalue()

    def load_state_bytes(self, data: bytes) -> None:
        """Continue from a state that `state_bytes` returned."""
        state = torch.load(io.BytesIO(data), weights_only=True, map_location=self.trainer.device)
        self.trainer.load_state_dict(state["trainer"])
        self._points = state["points"]
        self._window = [StepMetrics(*values) for values in state["window"]]


def _klt_start(config: FitConfig, sample: Sample) -> Model:
    model = config.new_model()
    patches = sample.patches.batch(config.training.steps, BatchPart(0, START_PATCHES, START_PATCHES))
    initialize_from_klt(model, patches, lmbda=lmbda_of(config.qualities.high))
    return model


def _start_from(start: FittedNetwork, config: FitConfig, sample: Sample) -> Model:
    """Return a fitted model, its gains kept for the same range, else its quantiser's step made right for another.

    If more latents are asked for than it has, further ones code what it misses.
    """
    model = config.new_model()
    analysis, synthesis = start.weights.transforms()
    more_latents = config.model.latents > start.config.latents
    if more_latents:
        batches = sample.patches.batches(config.training.steps, WIDENING_BATCHES, BatchPart(0, 8, 8))
        step = quantizer_step(lmbda_of(start.qualities.high), channels=config.model.channels)
        analysis, synthesis = widened(analysis, synthesis, [*batches], num_latents=config.model.latents, step=step)
    model.analysis.load_state_dict(analysis.state_dict())
    model.synthesis.load_state_dict(synthesis.state_dict())
    if start.qualities == config.qualities and not more_latents:
        model.gains.load(start.gains)
    else:
        steps = [quantizer_step(lmbda_of(qualities.high)) for qualities in (config.qualities, start.qualities)]
        scale_latents(model, steps[0] / steps[1])
    return model


def describe(config: FitConfig) -> dict[str, Any]:
    """Return the configuration as it is kept in a bundle."""
    return {
        "qualities": str(config.qualities),
        "distortion": config.distortion,
        "rate": config.rate,
        "batch_size": config.batch_size,
        "patches": asdict(config.patches),
        **asdict(config.training),
    }


def mean_of(window: Sequence[StepMetrics]) -> dict[str, Any]:
    """Return the means of some steps, and the last one's number and learning rate."""
    means = {
        name: float(np.mean([getattr(metrics, name) for metrics in window]))
        for name in ("loss", "estimated_bpp", "psnr_db")
    }
    return {"step": window[-1].step, **means, "learning_rate": window[-1].learning_rate}
