"""The training core: the loss falls, constraints hold, a run continues exactly, schedules do what they say."""

import copy
import itertools
from typing import cast

import pytest
import torch

from bls.ladder import QualityRange, lmbda_of
from bls.training.model import Model
from bls.training.parallel import BatchPart
from bls.training.starts.klt import initialize_from_klt
from bls.training.trainer import (
    MIN_LEARNING_RATE,
    Bfloat16,
    CosineSchedule,
    PlateauSchedule,
    StepMetrics,
    Trainer,
    TrainingConfig,
)
from bls.transforms.gdn import GDN, ROOT_FLOOR
from bls.transforms.networks import TransformConfig
from bls.transforms.quantization import quantize
from tests.images import random_fields

CONFIG = TrainingConfig(steps=40, warmup_steps=2)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return random_fields(4, 64, seed=2)


def _trainer(
    x: torch.Tensor,
    config: TrainingConfig = CONFIG,
    *,
    low: float = 4,
    high: float | None = None,
    context_rate: bool = False,
) -> Trainer:
    torch.manual_seed(0)
    qualities = QualityRange(low, low if high is None else high)
    model = Model(TransformConfig(num_filters=16), qualities, context_rate=context_rate)
    initialize_from_klt(model, x, lmbda=lmbda_of(qualities.high))
    return Trainer(model, config)


def _train(trainer: Trainer, x: torch.Tensor, steps: int) -> list[StepMetrics]:
    return [trainer.train_step(x) for _ in range(steps)]


def test_loss_falls_and_constraints_hold(x: torch.Tensor) -> None:
    trainer = _trainer(x)
    metrics = _train(trainer, x, 40)
    assert metrics[-1].loss < 0.9 * metrics[0].loss
    for layer in trainer.model.modules():
        if isinstance(layer, GDN):
            assert layer.beta_root.min() >= ROOT_FLOOR and layer.gamma_root.min() >= ROOT_FLOOR
            torch.testing.assert_close(layer.gamma_root, layer.gamma_root.T)


def test_loss_is_the_weighted_sum_of_what_is_reported(x: torch.Tensor) -> None:
    metrics = _trainer(x).train_step(x)
    mse_255 = 255**2 / 10 ** (metrics.psnr_db / 10)
    assert metrics.loss == pytest.approx(lmbda_of(4.0) * mse_255 + metrics.estimated_bpp, rel=1e-4)


@pytest.mark.parametrize("quality", [1, 8])
def test_filters_on_both_sides_of_the_latents_move_alike(x: torch.Tensor, quality: float) -> None:
    """Whatever the quantiser's step, which makes the ones large and the others small."""
    trainer = _trainer(x, low=quality)

    def filters() -> list[torch.Tensor]:
        layers = (trainer.model.analysis[-1], trainer.model.synthesis[0])
        return [cast(torch.Tensor, layer.weight).detach().clone() for layer in layers]

    before = filters()
    trainer.train_step(x)
    last, first = (float((b - a).norm() / a.norm()) for a, b in zip(before, filters(), strict=True))
    assert 0.5 < last / first < 2


@pytest.mark.parametrize(("schedule", "context_rate"), [("cosine", False), ("plateau", False), ("cosine", True)])
def test_a_resumed_run_repeats_an_undisturbed_one(x: torch.Tensor, schedule: str, context_rate: bool) -> None:
    config = TrainingConfig(steps=8, schedule=schedule, plateau_window=3)  # type: ignore[arg-type]
    undisturbed = _trainer(x, config, context_rate=context_rate)
    expected = _train(undisturbed, x, 8)
    first = _trainer(x, config, context_rate=context_rate)
    _train(first, x, 5)
    state = copy.deepcopy(first.state_dict())
    # Another start: all that counts must come from the state.
    second = _trainer(torch.flip(x, (0,)), config, context_rate=context_rate)
    second.load_state_dict(state)
    assert _train(second, x, 3) == expected[5:]


def test_contexts_are_fitted_alone_first(x: torch.Tensor) -> None:
    trainer = _trainer(x, context_rate=True)

    def moved() -> set[str]:
        groups = trainer.optimizer.param_groups
        before = [[parameter.detach().clone() for parameter in group["params"]] for group in groups]
        trainer.train_step(x)
        same = [all(map(torch.equal, group["params"], old)) for group, old in zip(groups, before, strict=True)]
        return {group["name"] for group, is_same in zip(groups, same, strict=True) if not is_same}

    assert moved() == {"contexts"}
    _train(trainer, x, 3)
    assert moved() == {"transforms", "contexts", "into latents", "out of latents"}


@pytest.mark.parametrize(("rounded", "tolerance"), [("gradients", 0.001), ("all", 0.03)])
def test_bfloat16_trains_about_as_well(x: torch.Tensor, rounded: Bfloat16, tolerance: float) -> None:
    loss = {}
    settings: tuple[Bfloat16, ...] = ("none", rounded)
    for bfloat16 in settings:
        trainer = _trainer(x, TrainingConfig(steps=10, warmup_steps=2))
        trainer.bfloat16 = bfloat16  # also where it is emulated
        loss[bfloat16] = _train(trainer, x, 10)[-1].loss
    assert 0 < abs(loss[rounded] / loss["none"] - 1) < tolerance


def test_a_diverged_run_says_so(x: torch.Tensor) -> None:
    trainer = _trainer(x)
    trainer.train_step(x)
    with torch.no_grad():
        trainer.model.get_parameter("synthesis.0.bias").fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        trainer.train_step(x)


def test_cosine_schedule_warms_up_holds_and_decays() -> None:
    config = TrainingConfig(steps=120, warmup_steps=10, learning_rate=1.0, rounding_fraction=1 / 6)
    rates = [CosineSchedule(config).learning_rate(step) for step in range(120)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == rates[59] == 1.0
    assert rates[80] == pytest.approx(0.5) and rates[99] < 0.002
    assert all(a >= b for a, b in itertools.pairwise(rates[59:100]))
    # The steps with rounded latents.
    assert rates[100] == 0.5 and rates[110] == pytest.approx(0.25) and rates[119] < 0.01


def test_a_short_fit_sees_its_learning_rate() -> None:
    rates = [CosineSchedule(TrainingConfig(steps=60, learning_rate=1.0)).learning_rate(step) for step in range(60)]
    assert rates.index(max(rates)) <= 15 and max(rates) == 1.0
    assert rates[0] < 0.1, "it warms up all the same"


def test_rounded_latents_at_the_end_fit_the_synthesis_alone(x: torch.Tensor) -> None:
    trainer = _trainer(x, TrainingConfig(steps=30, warmup_steps=2, rounding_fraction=0.5), low=2)
    _train(trainer, x, 15)
    before = copy.deepcopy(trainer.model.state_dict())
    metrics = _train(trainer, x, 15)
    after = trainer.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("analysis."))
    assert not torch.equal(after["synthesis.0.bias"], before["synthesis.0.bias"])
    assert metrics[-1].psnr_db > metrics[0].psnr_db + 0.05
    # What is measured is what a decoder would show.
    with torch.no_grad():
        x_hat = trainer.model.synthesis(quantize(trainer.model.analysis(x)))
    assert metrics[-1].psnr_db == pytest.approx(-10 * (x - x_hat).square().mean().log10().item(), abs=0.1)


def test_the_gains_of_a_fit_rise_as_steeply_as_it_says(x: torch.Tensor) -> None:
    trainer = _trainer(x, TrainingConfig(steps=40, warmup_steps=2, gain_slope=1.2), low=2, high=5)
    _train(trainer, x, 3)
    gains, used = trainer.model.gains, trainer.model.used_channels()
    torch.testing.assert_close(gains.log_gain[:, used].mean(1), 1.2 * gains.theory[:, 0], rtol=0.01, atol=0)


def test_a_range_is_fitted_at_all_its_qualities(x: torch.Tensor) -> None:
    trainer = _trainer(x, low=2, high=5)
    before = trainer.model.gains.log_gain.detach().clone()
    drawn = [trainer._qualities(BatchPart(0, 4, 4)) for trainer.step in range(20)]
    assert min(map(torch.min, drawn)) < 2.1 and max(map(torch.max, drawn)) > 4.9
    # Every batch has a quality from each quarter of the range, and parts of it are parts.
    assert all(((each - 2) / 0.75).int().tolist() == [0, 1, 2, 3] for each in drawn)
    assert torch.equal(trainer._qualities(BatchPart(1, 2, 4)), drawn[-1][1:3])
    trainer.step = 0
    metrics = _train(trainer, x, 40)
    assert metrics[-1].loss < 0.9 * metrics[0].loss
    after = trainer.model.gains.log_gain.detach()
    assert not torch.equal(after, before)
    assert (after.diff(dim=0) >= 0).all() and (after <= 0).all()


def test_of_a_single_quality_the_loss_is_not_weighted_and_the_gain_is_one(x: torch.Tensor) -> None:
    model = _trainer(x).model
    assert model.gains.log_gain.numel() == 0
    assert torch.equal(model.gains(torch.full((3,), 4.0)), torch.ones(3, 16, 1, 1))


def test_plateau_schedule_divides_by_ten_when_the_loss_stalls() -> None:
    schedule = PlateauSchedule(TrainingConfig(steps=100, learning_rate=1e-4, plateau_window=2))
    for loss in (3.0, 3.0, 2.0, 2.0):
        schedule.observe(loss)
    assert schedule.learning_rate(4) == 1e-4
    for _ in range(2):
        schedule.observe(2.5)
    assert schedule.learning_rate(6) == pytest.approx(1e-5)
    for _ in range(100):
        schedule.observe(2.5)
    assert schedule.learning_rate(0) == MIN_LEARNING_RATE


@pytest.mark.parametrize("settings", [{"lmbda_scale": 0.0}, {"steps": 0}, {"decay_fraction": 1.5}, {"gain_slope": 0.0}])
def test_an_impossible_configuration_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        TrainingConfig(**{"steps": 1, **settings})  # type: ignore[arg-type]
