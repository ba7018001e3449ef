"""One training step after another: loss, optimisers, constraints, schedule, checkpoint. Knows batches, not datasets.

With a process group of torch.distributed every process holds the same model and takes its part of each batch;
gradients, metrics and the density's histogram are summed, so all stay equal, and a fit does not depend on the number of
processes but for rounding.

The transforms are fitted by Adam, the density by its own closed-form update, the constraints applied after every step
(Ballé, Laparra, Simoncelli, ICLR 2017, section 5 and appendix). The paper's schedule (1e-4, divided by 10 on a
plateau) is `schedule="plateau"`; `"cosine"` warms up, holds, and decays over the last part, and suits runs of hours
on a CPU.
"""

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from bls.training.constraints import apply_constraints, parameterize_by_dct
from bls.training.distortion import Distortion, mse_255
from bls.training.gains import draw_qualities
from bls.training.gradients import bfloat16_gradients
from bls.training.model import Model
from bls.training.parallel import BatchPart, copy_from_first, sum_over_processes
from bls.transforms.layers import Downsample, Upsample
from bls.transforms.precision import has_bfloat16

Bfloat16 = Literal["none", "gradients", "all"]


@dataclass(frozen=True)
class TrainingConfig:
    """What fixes the course of one fit, the batches aside."""

    steps: int
    schedule: Literal["cosine", "plateau"] = "cosine"
    learning_rate: float = 1e-3
    """Highest learning rate of Adam; the paper's plateau schedule starts at 1e-4."""
    warmup_steps: int = 200
    """Steps over which the learning rate of the cosine schedule rises; at most half of those before it decays."""
    decay_fraction: float = 0.4
    """Part of the steps over which the cosine schedule decays, at the end."""
    plateau_window: int = 1000
    """Steps whose mean loss is compared by the plateau schedule."""
    clip_norm: float = 2.0
    """Largest norm of the gradient of all parameters together."""
    bfloat16: Bfloat16 = "gradients"
    """What a step rounds to bfloat16 where the device multiplies it: nothing, the factors of the gradients, or the
    values inside of the transforms as well. Latents, density and loss stay in float32. A fit with rounded values is
    tied to their rounding (docs/decisions/0005-precision.md)."""
    rounding_fraction: float = 0.15
    """Part of the steps, at the end, that fit the synthesis alone to rounded latents, as it will see them; the analysis
    and with it the rate stay what they are (docs/decisions/0007-rounding.md)."""
    lmbda_scale: float = 1.0
    """Factor on the ladder's weights, for distortions that are not squared errors."""
    gain_slope: float = 1.0
    """How steeply the gains rise over a range, relative to theory: above 1 the network reaches lower and higher rates
    (docs/decisions/0013)."""
    seed: int = 0
    """Seed of the quantisation noise and the patches' qualities."""

    def __post_init__(self) -> None:
        if self.lmbda_scale <= 0:
            raise ValueError(f"lmbda_scale is {self.lmbda_scale}, expected a positive number")
        if not 0.5 <= self.gain_slope <= 2:
            raise ValueError(f"gain_slope is {self.gain_slope}, expected 0.5 to 2")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, expected at least 1")
        for name in ("decay_fraction", "rounding_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")

    @property
    def rounding_steps(self) -> int:
        """How many steps at the end see rounded latents."""
        return round(self.rounding_fraction * self.steps)


class StepMetrics(NamedTuple):
    """What one training step measured."""

    step: int
    loss: float
    estimated_bpp: float
    psnr_db: float
    learning_rate: float


MIN_LEARNING_RATE = 1e-7
"""Learning rate at which the paper's schedule ends."""
ADAM_BETAS = (0.9, 0.99)
"""Adam's coefficients. The squares have a shorter memory than by default: runs are short, and the density moves."""
GAINS_SCALE = 4.0
"""Factor on the learning rate for the gains' logarithms, which have a long way to go."""
CONTEXT_RATE = 1e-3
"""Highest learning rate of the contexts."""
CONTEXT_STEPS = 300
"""Steps at the start that fit the contexts alone, or a tenth of all steps if that is fewer."""
ROUNDING_RATE = 0.5
"""Part of the highest learning rate at which the steps with rounded latents begin."""


class CosineSchedule:
    """Warm up linearly, hold, and decay to zero along a cosine; the steps with rounded latents have a cosine of their
    own."""

    def __init__(self, config: TrainingConfig) -> None:
        self.peak = config.learning_rate
        self.steps = config.steps
        self.rounding_steps = config.rounding_steps
        noisy_steps = config.steps - config.rounding_steps
        self.decay_steps = config.decay_fraction * noisy_steps
        # A short fit is to see its highest learning rate, too.
        self.warmup_steps = min(config.warmup_steps, (noisy_steps - self.decay_steps) / 2)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the given step."""
        noisy_steps = self.steps - self.rounding_steps
        if step >= noisy_steps:
            return self.peak * ROUNDING_RATE * _half_cosine((self.steps - step) / self.rounding_steps)
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        return self.peak * warmup * _half_cosine(min(1.0, (noisy_steps - step) / max(self.decay_steps, 1)))

    def observe(self, loss: float) -> None:
        """Do nothing: this schedule depends on the step alone."""


def _half_cosine(remaining: float) -> float:
    """Return a factor that falls from 1 to 0 with the part that remains."""
    return (1 - math.cos(math.pi * remaining)) / 2


class PlateauSchedule:
    """Divide the learning rate by 10 whenever a window's mean loss is not lower than the one before (the paper's)."""

    def __init__(self, config: TrainingConfig) -> None:
        self.current = config.learning_rate
        self.window = config.plateau_window
        self.losses: list[float] = []
        self.last_mean = math.inf

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the given step."""
        return self.current

    def observe(self, loss: float) -> None:
        """Take note of a step's loss."""
        self.losses.append(loss)
        if len(self.losses) < self.window:
            return
        mean = sum(self.losses) / len(self.losses)
        if mean >= self.last_mean:
            self.current = max(self.current / 10, MIN_LEARNING_RATE)
        self.last_mean = mean
        self.losses = []


class Trainer:
    """Fits one model, step by step; a state saved and loaded again continues exactly."""

    def __init__(
        self, model: Model, config: TrainingConfig, *, device: str = "cpu", distortion: Distortion = mse_255
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.distortion = distortion
        self.model = model
        self.step = 0
        parameterize_by_dct(model)
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        copy_from_first(model)
        groups = _parameter_groups(model, config.learning_rate)
        self.optimizer = torch.optim.Adam(groups, betas=ADAM_BETAS, fused=True)
        self.schedule = CosineSchedule(config) if config.schedule == "cosine" else PlateauSchedule(config)
        self.bfloat16 = config.bfloat16 if has_bfloat16(self.device) else "none"

    def train_step(self, x: Float[Tensor, "b c h w"], part: BatchPart | None = None) -> StepMetrics:
        """Take one step on a batch of images in [0, 1] whose sides are multiples of 16, or on a part of the batch.

        Raises:
            FloatingPointError: the fit has diverged.
        """
        learning_rate = self.schedule.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"] if self._fits(group["name"]) else 0.0
        x = x.to(self.device, memory_format=torch.channels_last)
        generator = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + self.step)
        if self.step == 0:
            self._start_density(x)
        part = part or BatchPart(0, len(x), len(x))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16 == "all"):
            relaxed = self.model(
                x,
                self._qualities(part),
                lmbda_scale=self.config.lmbda_scale,
                distortion=self.distortion,
                generator=generator,
                part=part,
                rounding=self.step >= self.config.steps - self.config.rounding_steps,
            )
        self.optimizer.zero_grad(set_to_none=True)
        with nullcontext() if self.bfloat16 == "none" else bfloat16_gradients():
            relaxed.loss.backward()
        measured = torch.stack([relaxed.loss.detach(), relaxed.bpp.detach(), relaxed.mse_255]).float()
        sum_over_processes(measured, *(p.grad for p in self.model.parameters() if p.grad is not None))
        loss, bpp, mse_255 = measured.tolist()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss} at step {self.step}: lower the learning rate (now {learning_rate:g}) "
                "and resume from the last checkpoint"
            )
        for parameters in _of_codec_and_contexts(self.model):
            torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        self.optimizer.step()
        apply_constraints(self.model, self.model.config)
        self.model.density.update(relaxed.y, of_all_processes=True)
        self.model.gains.project(self.model.used_channels(), slope=self.config.gain_slope)
        self.schedule.observe(loss)
        self.step += 1
        return StepMetrics(self.step, loss, bpp, 10 * math.log10(255**2 / max(mse_255, 1e-9)), learning_rate)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": copy.deepcopy(vars(self.schedule)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        vars(self.schedule).update(state["schedule"])

    def _qualities(self, part: BatchPart) -> Float[Tensor, " b"]:
        """Return the quality of each patch of this step, which depends on nothing but the seed and the step."""
        rng = np.random.default_rng((self.config.seed, self.step))
        return part.take(draw_qualities(self.model.qualities, part.total, rng)).to(self.device)

    def _fits(self, name: str) -> bool:
        """Return whether this step moves a group of parameters: contexts that know nothing yet are fitted alone."""
        alone = 0 if self.model.context is None else min(CONTEXT_STEPS, self.config.steps // 10)
        return name == "contexts" or self.step >= alone

    @torch.no_grad()
    def _start_density(self, x: Tensor) -> None:
        """Give the density the first batch's latents, so that the first rate is a rate."""
        self.model.density.update(self.model.analysis(x), of_all_processes=True)


def _of_codec_and_contexts(model: Model) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters of what codes, and those of the rate's contexts: their gradients have different scales."""
    contexts = [] if model.context is None else [*model.context.parameters()]
    of_contexts = set(contexts)
    return [parameter for parameter in model.parameters() if parameter not in of_contexts], contexts


def _parameter_groups(model: Model, learning_rate: float) -> list[dict[str, Any]]:
    """Scale the learning rate of the filters next to the latents as they are scaled themselves.

    Latents are in units of the quantiser's step, which makes the analysis' last filters large and the synthesis' first
    ones small, the more so the higher the rate. Adam moves every parameter by about the learning rate, whatever its
    size: without a scale the one layer would hardly move while the other is torn apart.
    """
    of_codec, of_contexts = _of_codec_and_contexts(model)
    of_gains = [*model.gains.parameters()]
    groups: list[dict[str, Any]] = [
        {"name": "gains", "params": of_gains, "scale": GAINS_SCALE},
        {"name": "contexts", "params": of_contexts, "scale": CONTEXT_RATE / learning_rate},
    ]
    last, first = model.analysis[-1], model.synthesis[0]
    if isinstance(last, Downsample) and isinstance(first, Upsample):  # else the GDN at the latents holds the step
        step = (first.weight.norm() / last.weight.norm()).sqrt().item()
        small = [parameter for name, parameter in first.named_parameters() if name != "bias"]
        groups.append({"name": "into latents", "params": [*last.parameters()], "scale": 1 / step})
        groups.append({"name": "out of latents", "params": small, "scale": step})
    scaled = {parameter for group in groups for parameter in group["params"]}
    rest = [parameter for parameter in of_codec if parameter not in scaled]
    return [{"name": "transforms", "params": rest, "scale": 1.0}, *groups]
