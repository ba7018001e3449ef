"""A budget of bytes for a whole dataset: the quality of each shard, chosen so that the total comes close from below.

One quality for all images is best: where all slopes of rate and distortion are equal, no byte does more good elsewhere.
The quality is chosen from the curve of a sample, then corrected by what is committed. Shards form waves. The quality of
a wave follows from the sizes of all earlier waves but the last one, whatever the order in which workers finish: a run
that was killed, and one with other workers, choose the same. A wave has shards from all over the dataset. The first
waves are small, so that they correct the sample early; the last ones are small, so that little is left to chance.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bls.ladder import QualityRange
from pipeline.compress.curve import Curve
from pipeline.console.exits import WorkError
from pipeline.console.text import num_bytes_text
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard

AIM = 0.99
"""The part of the budget that the job aims at; the rest is for errors of the last predictions."""
MIN_SHARDS = 64
"""Shards of a dataset that has enough images for them: with fewer there is little to steer."""
_FIRST_PART, _LEAST_PART, _LAST_PART = 1 / 16, 1 / 100, 1 / 3
MAX_FALL, MAX_RISE = 0.5, 1.0
"""How far the quality of a wave of the second half may be below and above the mean of all shards before it."""
_LOWERED_PART = 0.2
"""The part of their size by which shards shrink at most if they are done again, unless that is not enough."""

Planned = Callable[[set[int]], Iterator[Shard]]
"""The shards of a plan, without those of the given numbers."""


def waves(num_shards: int) -> list[list[int]]:
    """Divide shards into waves: as many as in all waves before, but no more than a third of what is left."""
    order = sorted(range(num_shards), key=lambda shard: (zlib.crc32(str(shard).encode()), shard))
    result: list[list[int]] = []
    done = 0
    while done < num_shards:
        most = max(round(num_shards * _FIRST_PART), done)
        size = max(min(round((num_shards - done) * _LAST_PART), most), round(num_shards * _LEAST_PART), 1)
        result.append(order[done : done + size])
        done += len(result[-1])
    return result


class Steering:
    """What is known of the shards of a dataset with a budget, and the qualities that follow from it."""

    def __init__(
        self, max_num_bytes: int, curve: Curve, manifest: Manifest, served: Sequence[QualityRange], planned: Planned
    ) -> None:
        shard_size = manifest.plans[0].shard_size
        self._max_num_bytes = max_num_bytes
        self._curve = curve
        self._served = served
        self._planned = planned
        self._waves = [np.array(wave) for wave in waves(manifest.num_shards)]
        self._num_images = np.full(manifest.num_shards, shard_size)
        self._num_images[-1] = manifest.num_images - shard_size * (manifest.num_shards - 1)
        self._num_bytes = np.full(manifest.num_shards, -1)  # -1 until a shard is committed
        self._qualities = np.full(manifest.num_shards, np.nan)  # of committed shards and of decided waves

    def saw(self, marker: Marker) -> None:
        """Take note of a shard that is committed, for the first time or again."""
        self._num_bytes[marker.shard] = marker.summary.num_bytes_out
        if (quality := marker.summary.quality.value) is not None:
            self._qualities[marker.shard] = quality

    def shards(self, done: set[int]) -> Iterator[Shard | None]:
        """Give out the shards that are not done, each with its quality, or None while that depends on running ones."""
        for number, wave in enumerate(self._waves):
            left = set(wave.tolist()) - done
            if not left:
                continue
            while (self._num_bytes[self._earlier(number)] < 0).any():
                yield None
            self.quality(number)
            for shard in self._shards_of(left):
                yield replace(shard, quality=float(self._qualities[shard.index]))

    def quality(self, number: int) -> float:
        """Return the quality of a wave: that of its committed shards, or else the one that fits the budget."""
        qualities = self._qualities[self._waves[number]]
        is_open = np.isnan(qualities)
        quality = self._fitting_quality(number) if is_open.all() else float(qualities[~is_open][0])
        self._qualities[self._waves[number]] = np.where(is_open, quality, qualities)
        return quality

    def lowered(self) -> dict[int, float]:
        """Return which shards are to be done again, at which qualities: none if the total is within the budget.

        Raises:
            WorkError: the total exceeds the budget at the lowest quality.
        """
        excess = int(self._num_bytes.sum()) - self._max_num_bytes
        if (self._num_bytes < 0).any() or excess <= 0:
            return {}
        order = np.concatenate(self._waves[::-1])
        order = order[self._qualities[order] > self._served[0].low]
        if not len(order):
            raise WorkError(
                f"the images take {num_bytes_text(excess)} more than --max-total-bytes at the lowest quality: "
                "give a larger budget, and --overwrite"
            )
        sizes = np.cumsum(self._num_bytes[order])
        chosen = order[: np.searchsorted(sizes, excess / _LOWERED_PART) + 1]
        kept = max(1 - 1.25 * excess / self._num_bytes[chosen].sum(), 0)
        wanted = self._curve.num_bytes(self._qualities[chosen]) * kept
        return {
            int(shard): self._curve.highest_quality(float(num_bytes), self._served)
            for shard, num_bytes in zip(chosen, wanted, strict=True)
        }

    def lowered_shards(self, qualities: dict[int, float], done: set[int]) -> Iterator[Shard]:
        """Give out those of the shards that are not done, with their qualities."""
        for shard in self._shards_of(set(qualities) - done):
            yield replace(shard, quality=qualities[shard.index])

    def _shards_of(self, wanted: set[int]) -> Iterator[Shard]:
        return self._planned(set(range(len(self._num_bytes))) - wanted)

    def _earlier(self, number: int) -> npt.NDArray[np.int64]:
        """Return the shards whose sizes decide the quality of a wave."""
        return np.concatenate([np.array([], np.int64), *self._waves[: max(number - 1, 0)]])

    def _fitting_quality(self, number: int) -> float:
        earlier = self._earlier(number)
        running = self._waves[number - 1] if number else earlier
        if number:
            self.quality(number - 1)
        spent = self._num_bytes[earlier].sum()
        # The sample counts as so many images that were as large as the curve says.
        prior = self._curve.num_images * self._max_num_bytes / self._num_images.sum()
        correction = (spent + prior) / (self._predicted(earlier) + prior)
        left = AIM * self._max_num_bytes - spent - correction * self._predicted(running)
        num_left = sum(self._num_images[wave].sum() for wave in self._waves[number:])
        within = self._near_the_mean(np.concatenate([earlier, running]))
        return self._curve.highest_quality(float(left / num_left / correction), self._served, within=within)

    def _near_the_mean(self, shards: npt.NDArray[np.int64]) -> tuple[float, float]:
        """Return bounds of quality for the wave after these shards: a small wave is not to make up for all errors."""
        shards = shards[~np.isnan(self._qualities[shards])]
        num_images = self._num_images[shards]
        if 2 * num_images.sum() < self._num_images.sum():
            return 0.0, np.inf
        mean = float(np.average(self._qualities[shards], weights=num_images))
        return mean - MAX_FALL, mean + MAX_RISE

    def _predicted(self, shards: npt.NDArray[np.int64]) -> float:
        """Return the size of shards by the curve; one without a quality has no image that could be compressed."""
        shards = shards[~np.isnan(self._qualities[shards])]
        return float((self._curve.num_bytes(self._qualities[shards]) * self._num_images[shards]).sum())
