"""The differentiable code length: that of the stored probabilities, and causal as the coder's contexts are."""

import numpy as np
import pytest
import torch

from bls.entropy.adaptive.coder import count_decisions
from bls.entropy.adaptive.fitting import fit_adaptive_model
from bls.entropy.adaptive.model import AdaptiveModel
from bls.entropy.estimates import yes_and_total
from bls.refinement.rate import REACH, CodeLength
from tests.reference_coders import draw, laplacian, with_random_integers

CPU = torch.device("cpu")


def stored_bits(symbols: np.ndarray, model: AdaptiveModel) -> float:
    """Return what the decisions of symbols cost under the stored probabilities, as the coder walks through them."""
    counts = np.zeros(model.probabilities.shape, np.uint64)
    count_decisions(symbols, model, counts)
    yes, total = yes_and_total(counts)
    p = model.probabilities / 65536
    return float(-(yes * np.log2(p) + (total - yes) * np.log2(1 - p)).sum())


def bits(symbols: np.ndarray, model: AdaptiveModel) -> float:
    return float(CodeLength(model, CPU)(torch.from_numpy(symbols)[None].float()).sum())


def test_in_one_context_it_is_what_the_decisions_cost() -> None:
    table = laplacian(0.3, 2.0, 9.0)
    symbols = np.stack([draw(table, (8, 9), seed=seed)[seed] for seed in range(3)])
    model = AdaptiveModel.from_table(table)
    assert bits(symbols, model) == pytest.approx(stored_bits(symbols, model), rel=1e-5)


def test_contexts_are_those_of_the_coder() -> None:
    rng = np.random.default_rng(0)
    table = laplacian(*[3.0] * 8)

    def image() -> np.ndarray:  # loud and quiet regions, alike in all channels
        scale = np.kron(np.exp(1.2 * rng.normal(size=(4, 4))), np.ones((8, 8)))
        return np.clip(np.rint(rng.laplace(scale=scale, size=(8, 32, 32))), -60, 60).astype(np.int32)

    model = fit_adaptive_model(table, [image() for _ in range(4)])
    symbols = image()
    real, without_contexts = stored_bits(symbols, model), stored_bits(symbols, AdaptiveModel.from_table(table))
    assert real < 0.9 * without_contexts
    # Interpolated between the contexts, so not quite the same.
    assert bits(symbols, model) == pytest.approx(real, rel=0.04)


def test_far_symbols_go_on_costing_more() -> None:
    model = AdaptiveModel.from_table(laplacian(2.0))
    v = torch.tensor([REACH - 1.0, REACH, REACH + 1, REACH + 30]).reshape(4, 1, 1, 1)
    lengths = CodeLength(model, CPU)(v).flatten()
    assert (lengths.diff() > 0).all()


def test_it_depends_on_what_is_coded_before_alone() -> None:
    model = with_random_integers(AdaptiveModel.from_table(laplacian(*[2.0] * 20)), seed=0)
    torch.manual_seed(0)
    v = (2 * torch.randn(1, 20, 5, 6)).requires_grad_()
    channel, row, column = 18, 2, 3
    (gradient,) = torch.autograd.grad(CodeLength(model, CPU)(v)[0, channel, row, column], v)
    c, y, x = (index.numpy() for index in gradient[0].nonzero(as_tuple=True))
    own = c == channel
    assert own.sum() > 3 and (~own).sum() > 3
    assert (c <= channel).all()
    assert ((y[~own] == row) & (x[~own] == column)).all()
    assert ((y[own] < row) | ((y[own] == row) & (x[own] <= column))).all()


def test_the_gradient_is_the_slope() -> None:
    model = with_random_integers(AdaptiveModel.from_table(laplacian(*[2.0] * 4)), seed=1)
    torch.manual_seed(0)
    v = 2 * torch.randn(1, 4, 4, 4)
    code_length = CodeLength(model, CPU)

    def total(v: torch.Tensor) -> torch.Tensor:
        return code_length(v).double().sum()

    (gradient,) = torch.autograd.grad(total(v.requires_grad_()), v)
    step = 1e-3
    slopes = torch.zeros_like(v)
    for place in np.ndindex(*v.shape):
        moved = torch.zeros_like(v)
        moved[place] = step
        slopes[place] = (total(v.detach() + moved) - total(v.detach() - moved)) / (2 * step)
    is_smooth = (slopes - gradient).abs() < 0.05 * (1 + gradient.abs())
    assert is_smooth.float().mean() > 0.9  # a corner may lie within a step
