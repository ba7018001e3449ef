from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from bls.ladder import QualityRange
from pipeline.compress.budget import Steering, waves
from pipeline.compress.curve import Curve, Point
from pipeline.console.exits import WorkError
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Mean, Summary

SERVED = [QualityRange(1, 4.5), QualityRange(4.6, 8)]
SHARD_SIZE = 16


class Dataset:
    """Images whose sizes differ as those of photographs do, in shards; a curve from 32 of them."""

    def __init__(self, *, seed: int, num_images: int = 1000, is_sorted: bool = False, jump: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.scales = rng.lognormal(0, 0.7, num_images)  # the standard deviation is 0.8 of the mean
        self.scales = np.sort(self.scales) if is_sorted else self.scales
        self.slopes = rng.normal(0.42, 0.05, num_images)
        self.jump = jump
        self.manifest = Manifest(plans=(Plan("", num_images, -(-num_images // SHARD_SIZE), SHARD_SIZE),))
        sample = rng.choice(num_images, 32, replace=False)
        points = [Point(q, float(self.sizes(q)[sample].mean()), None) for q in (*range(1, 5), 4.5, 4.6, *range(5, 9))]
        self.curve = Curve(32, points)
        self.qualities: dict[int, float] = {}

    def sizes(self, quality: float) -> np.ndarray:
        exponents = self.slopes * (quality - 4) + self.jump * (quality > 4.5)
        return 20_000 * self.scales * np.exp(exponents)

    def budget(self, part: float) -> int:
        """Return a budget between those of the ends of the range."""
        low, high = (np.log(self.sizes(quality).sum()) for quality in (1, 8))
        return int(np.exp(low + part * (high - low)))

    def steering(self, budget: int) -> Steering:
        return Steering(budget, self.curve, self.manifest, SERVED, self.planned)

    def planned(self, skip: set[int]) -> Iterator[Shard]:
        for index in range(self.manifest.num_shards):
            if index not in skip:
                keys = range(index * SHARD_SIZE, min((index + 1) * SHARD_SIZE, self.manifest.num_images))
                yield Shard(index, tuple(keys))

    def marker(self, shard: Shard) -> Marker:
        assert shard.quality is not None
        self.qualities[shard.index] = shard.quality
        size = int(self.sizes(shard.quality)[list(shard.items)].sum())
        count = len(shard.items)
        return Marker(
            shard.index, "", {}, Summary(count, num_bytes_out=size, quality=Mean(count * shard.quality, count))
        )

    @property
    def total(self) -> int:
        return sum(int(self.sizes(self.qualities[each.index])[list(each.items)].sum()) for each in self.planned(set()))


def run(
    dataset: Dataset, steering: Steering, *, order: int = 0, done: dict[int, Marker], num_shards: int = 10**9
) -> None:
    """Do shards with several of them running at a time, which end in some order."""
    rng = np.random.default_rng(order)
    shards = steering.shards(set(done))
    running: list[Shard] = []
    while len(done) < num_shards:
        while len(running) < 4 and (shard := next(shards, None)) is not None:
            running.append(shard)
        if not running:
            break
        marker = dataset.marker(running.pop(rng.integers(len(running))))
        done[marker.shard] = marker
        steering.saw(marker)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 63, 64, 1000])
def test_every_shard_is_in_one_wave_and_the_ends_are_small(num_shards: int) -> None:
    found = waves(num_shards)
    assert sorted(shard for wave in found for shard in wave) == list(range(num_shards))
    if num_shards >= 63:
        assert len(found[0]) <= num_shards / 15 and len(found[-1]) <= max(num_shards / 90, 1)
        assert abs(np.mean(found[3]) / num_shards - 0.5) < 0.2  # from everywhere


@pytest.mark.parametrize("kind", [{}, {"is_sorted": True}, {"jump": 0.3}])
@pytest.mark.parametrize("seed", range(10))
def test_the_total_is_within_the_budget_and_uses_it(seed: int, kind: dict[str, float]) -> None:
    dataset = Dataset(seed=seed, **kind)  # type: ignore[arg-type]
    budget = dataset.budget(0.15 + 0.07 * seed)
    steering = dataset.steering(budget)
    done: dict[int, Marker] = {}
    run(dataset, steering, done=done)
    for _ in range(8):
        if not (lowered := steering.lowered()):
            break
        for shard in steering.lowered_shards(lowered, set(range(dataset.manifest.num_shards)) - set(lowered)):
            steering.saw(dataset.marker(shard))
    assert 0.97 * budget <= dataset.total <= budget
    qualities = list(dataset.qualities.values())
    assert np.mean(qualities) - 1.25 < min(qualities)  # no shard pays for all errors


def test_neither_order_nor_kills_change_the_qualities() -> None:
    plain = Dataset(seed=1)
    budget = plain.budget(0.5)
    run(plain, plain.steering(budget), done={})
    for order in (1, 2, 3):
        killed = Dataset(seed=1)
        done: dict[int, Marker] = {}
        for num_shards in (3, 17, 40, 10**9):
            steering = killed.steering(budget)  # a new process
            for marker in done.values():
                steering.saw(marker)
            run(killed, steering, order=order, done=done, num_shards=num_shards)
        assert killed.qualities == plain.qualities
    assert len(set(plain.qualities.values())) > 1


def test_a_total_over_the_budget_is_brought_down_from_the_end() -> None:
    dataset = Dataset(seed=2, num_images=160)
    steering = dataset.steering(10**12)
    for shard in dataset.planned(set()):
        assert steering.lowered() == {}
        steering.saw(dataset.marker(replace(shard, quality=5.0)))
    steering._max_num_bytes = int(dataset.total / 1.01)
    lowered = steering.lowered()
    last = [shard for wave in reversed(waves(10)) for shard in wave]
    assert set(lowered) == set(last[: len(lowered)]) and len(lowered) < 5
    assert all(3 < quality < 5 for quality in lowered.values())
    (shard,) = steering.lowered_shards(lowered, set(last) - {last[0]})
    assert shard.quality == lowered[shard.index]


def test_a_budget_that_the_lowest_quality_exceeds_ends_in_an_error() -> None:
    dataset = Dataset(seed=2, num_images=160)
    steering = dataset.steering(1000)
    for shard in dataset.planned(set()):
        steering.saw(dataset.marker(replace(shard, quality=1.0)))
    with pytest.raises(WorkError, match="more than --max-total-bytes at the lowest quality"):
        steering.lowered()
