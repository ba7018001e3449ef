"""The descent, on a synthesis of a few lines: every latent is a block, and blurred into its neighbours."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bls.refinement.descent import MAX_EFFORT, SCHEDULES, Objective, check_effort, refine, soften
from bls.transforms.quantization import quantize


def synthesis(v: Tensor) -> Tensor:
    blur = functional.conv2d(v, torch.tensor([[[[0.1, 0.2, 0.1], [0.2, 1.0, 0.2], [0.1, 0.2, 0.1]]]]), padding=1)
    return 0.5 + 0.02 * blur.repeat_interleave(16, 2).repeat_interleave(16, 3)


OBJECTIVE = Objective(synthesis, lambda v: 2 * v.abs().log1p(), error_bits=60.0)


def problem(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    truth = 3 * torch.randn(2, 1, height, width)
    x = (255 * synthesis(truth)).round().clamp(0, 255).byte()
    return truth, x, torch.ones(2, 1, 16 * height, 16 * width, dtype=torch.bool)


def loss(symbols: Tensor, x: Tensor, counted: Tensor) -> float:
    return float(OBJECTIVE(symbols, x.float() / 255, counted))


def test_symbols_are_integers_that_cost_less_with_more_effort() -> None:
    v, x, counted = problem(12, 12)
    losses = [loss(quantize(v), x, counted)]
    for effort in SCHEDULES:
        symbols = refine(OBJECTIVE, v, x, counted, effort=effort)
        assert torch.equal(symbols, symbols.round())
        losses.append(loss(symbols, x, counted))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.95 * losses[0]


def test_tiles_lose_nearly_nothing() -> None:
    v, x, counted = problem(16, 16)
    whole = loss(refine(OBJECTIVE, v, x, counted, effort=3), x, counted)
    tiled = loss(refine(OBJECTIVE, v, x, counted, effort=3, tile=8), x, counted)
    rounded = loss(quantize(v), x, counted)
    assert tiled - whole < 0.1 * (rounded - whole)


def test_a_tile_sees_a_bounded_part_of_the_image() -> None:
    v, x, counted = problem(16, 16)
    shapes = set()

    def watched(v: Tensor) -> Tensor:
        shapes.add(tuple(v.shape[2:]))
        return synthesis(v)

    refine(Objective(watched, OBJECTIVE.code_length, 60.0), v, x, counted, effort=1, tile=4)
    assert max(max(shape) for shape in shapes) == 12


def test_pixels_that_do_not_count_have_no_influence() -> None:
    v, x, counted = problem(6, 6)
    counted[:, :, :, 70:] = False
    other = x.clone()
    other[:, :, :, 70:] = 0
    both = [refine(OBJECTIVE, v, pixels, counted, effort=2) for pixels in (x, other)]
    assert torch.equal(*both)


def test_it_is_deterministic_and_leaves_the_random_numbers_of_others_alone() -> None:
    run = partial(refine, OBJECTIVE, *problem(6, 6), effort=3)
    state = torch.get_rng_state()
    assert torch.equal(run(), run())
    assert torch.equal(state, torch.get_rng_state())


def test_softened_rounding_hardens_into_rounding() -> None:
    v = torch.linspace(-2, 2, 401)[1:-1:2]  # neither integers nor halves
    assert (soften(v, 0.01) - v).abs().max() < 1e-3
    assert (soften(v, 2.0) - v.round()).abs().max() < (v - v.round()).abs().max()
    torch.testing.assert_close(soften(v, 5000.0), v.round())
    fixed = torch.tensor([-1.0, -0.5, 0.0, 0.5, 3.0])
    torch.testing.assert_close(soften(fixed, 7.0), fixed)


@pytest.mark.parametrize("effort", [-1, MAX_EFFORT + 1, 1.0, True])
def test_levels_that_do_not_exist_are_refused(effort: int) -> None:
    with pytest.raises(ValueError, match=f"effort is {effort}, expected a whole number from 0 .* to 3"):
        check_effort(effort)


def test_schedules_end_where_all_is_nearly_rounded() -> None:
    for schedule in SCHEDULES.values():
        assert schedule.hardness_at(0) < schedule.hardness_at(1)
        assert schedule.fixed_part(0) == 0
        assert schedule.fixed_part(1) == (schedule.first_fixed < 1)
