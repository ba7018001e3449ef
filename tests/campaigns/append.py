"""Grow a compressed dataset day by day, kill the job on some days: every image must be in it exactly once.

    python -m tests.campaigns.append --days 50 --images 100 --kills 10

The days' jobs are `bls-compress --append` with their one worker in this process. On a day with a kill one of the job's
calls to the disk, a random one, is the last of the process or of the machine; then the same command is given again.
"""

import argparse
import io
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.bundle import save_bundle
from jobs import compress_dataset, verify_dataset
from pipeline.ledger.output import Output
from tests.bundles import small_network
from tests.datasets import pixels
from tests.faulty_disk import DeathError, Fault, FaultyDisk
from tests.inline import run_inline

SHARD_SIZE = 16
_NEVER = 2**62


class Growth:
    """A folder of images that grows, and its compressed dataset."""

    def __init__(self, root: Path) -> None:
        self.images, self.output, self._bundle = root / "in", root / "out", root / "bundle"
        self.output.mkdir()
        self.images.mkdir()
        save_bundle(self._bundle, [small_network(4, num_filters=16)])

    def add(self, day: int, num_images: int) -> None:
        """Add the images of a day, with names that sort among those of earlier days."""
        for number in range(num_images):
            name = f"{(number * 7919) % 10:d}-{day:03d}-{number:05d}.png"
            Image.fromarray(pixels(16, 16 + number % 5, seed=number)).save(self.images / name)

    def compress(self, fails_at: int = _NEVER, fault: Fault = Fault.DEATH) -> tuple[int | None, int]:
        """Run the job, whose call of a number suffers a fault; return its exit code and how many calls it made."""
        disk = FaultyDisk(self.output, fails_at, fault)
        command = [*self._folders(), "--append", "--coder", "static", "--ms-ssim", "none"]
        command += ["--input", str(self.images), "--shard-size", str(SHARD_SIZE)]
        with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            run_inline(patch, compress_dataset)
            disk.install(patch)
            try:
                return compress_dataset.main(command), disk.num_calls
            except DeathError:
                return None, disk.num_calls

    def verify(self) -> int:
        """Run the verify job, which compares all committed files with the plans and decodes every bitstream."""
        with pytest.MonkeyPatch.context() as patch, redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            run_inline(patch, verify_dataset)
            return verify_dataset.main(["--input", str(self.output), *self._folders()[2:]])

    def stored(self, kind: str) -> list[str]:
        """Return the keys in all committed files of a kind, sorted."""
        files = (marker.files[kind].name for marker in Output(str(self.output)).iter_markers())
        tables = (pq.read_table(self.output / name, columns=["key"]) for name in files)
        return sorted(key for table in tables for key in table["key"].to_pylist())

    def check(self) -> None:
        """Assert that every image is in the dataset once."""
        expected = sorted(path.name for path in self.images.iterdir())
        assert self.stored("metrics") == expected
        assert self.stored("bitstreams") == expected

    def _folders(self) -> list[str]:
        return ["--output", str(self.output), "--bundle", str(self._bundle)]


def grow(root: Path, *, days: int, num_images: int, num_kills: int, seed: int) -> str:
    """Run a campaign; return its figures in words."""
    random, growth = Random(seed), Growth(root)
    killed = set(random.sample(range(1, days), num_kills))
    num_calls = 0
    for day in range(days):
        growth.add(day, num_images)
        if day in killed:
            code, _ = growth.compress(random.randint(1, num_calls), random.choice((Fault.DEATH, Fault.POWER_CUT)))
            assert code is None, "the job was to be killed"
            keys = growth.stored("metrics")
            assert len(keys) == len(set(keys)) >= day * num_images, "what was committed stays"
        code, calls = growth.compress()
        assert code == 0
        num_calls = num_calls if day in killed else calls
        growth.check()
    assert growth.verify() == 0
    manifest = Output(str(growth.output)).manifest()
    assert manifest is not None and manifest.num_images == days * num_images
    return (
        f"{days} days of {num_images} images, seed {seed}, {num_kills} jobs killed: {manifest.num_images} images in "
        f"{manifest.num_shards} shards of {len(manifest.plans)} plans, each exactly once, all verified"
    )


def main() -> None:
    """Run a campaign and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=50)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = grow(
            Path(folder), days=options.days, num_images=options.images, num_kills=options.kills, seed=options.seed
        )
    print(f"{told}; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
