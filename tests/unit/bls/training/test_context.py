"""The rate with contexts: causal, a probability, and lower than the density's where latents depend on one another."""

import pytest
import torch

from bls.training.context import GROUP_CHANNELS, ContextRate
from bls.training.density import Density

CHANNELS = 20  # a group and a part of one


@pytest.fixture
def context() -> ContextRate:
    torch.manual_seed(0)
    return ContextRate(CHANNELS)


def probability(context: ContextRate, symbols: torch.Tensor, v: torch.Tensor, static: float = 0.1) -> torch.Tensor:
    spread = torch.full((1, CHANNELS, 1, 1), 2.0)
    result: torch.Tensor = context(
        symbols, v, spread=spread, static=torch.full_like(v, static), quality=torch.zeros(len(v))
    )
    return result


@pytest.mark.parametrize("place", [(0, 0, 0), (3, 2, 3), (15, 4, 6), (17, 1, 2), (19, 4, 6)])
def test_a_symbol_changes_no_probability_before_it(context: ContextRate, place: tuple[int, int, int]) -> None:
    """The order: groups of channels; within a group rows, columns, channels."""

    def turn(channel: int, row: int, column: int) -> tuple[int, int, int, int]:
        return channel // GROUP_CHANNELS, row, column, channel

    symbols = torch.randn(1, CHANNELS, 5, 7, generator=torch.Generator().manual_seed(1)).mul(2).round()
    other = symbols.clone()
    other[(0, *place)] += 3
    # What is coded stays the same: only contexts change.
    changed = probability(context, symbols, symbols) != probability(context, other, symbols)
    places = [turn(*each) for each in changed[0].nonzero().tolist()]
    assert all(each > turn(*place) for each in places)
    assert places or place == (19, 4, 6)


def test_probabilities_of_all_integers_sum_to_one(context: ContextRate) -> None:
    symbols = torch.randn(1, CHANNELS, 3, 4, generator=torch.Generator().manual_seed(1)).mul(2).round()
    reach = 60
    total = torch.zeros_like(symbols)
    with torch.no_grad():
        for value in range(-reach, reach + 1):
            # Spread evenly over all values, the static probability itself sums to one.
            total += probability(context, symbols, torch.full_like(symbols, value), 1 / (2 * reach + 1))
    # Each value is charged at least the floor, so a little more.
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=0.01)


def test_what_the_past_tells_costs_fewer_bits_than_by_the_density() -> None:
    """Every second channel repeats the one before it, whose symbols are independent."""
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(0)
    context, density = ContextRate(CHANNELS), Density(CHANNELS, momentum=1.0)
    optimizer = torch.optim.Adam(context.parameters(), lr=3e-3)
    for _ in range(120):
        source = torch.randn(4, CHANNELS // 2, 6, 6, generator=generator).mul(3).round()
        symbols = source.repeat_interleave(2, dim=1)
        density.update(symbols)
        spread = density.spread()[:, None, None].expand(4, -1, 1, 1)
        static = density(symbols)
        p = context(symbols, symbols, spread=spread, static=static, quality=torch.zeros(4))
        optimizer.zero_grad()
        bits = -p.log2().mean()
        bits.backward()
        optimizer.step()
    assert bits.item() < 0.8 * -static.log2().mean().item()
