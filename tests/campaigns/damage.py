"""Decode damaged bitstreams and image files, as many as are asked for; what does harm is kept.

    python -m tests.campaigns.damage --count 300000
    python -m tests.campaigns.damage --count 20000 --kind images

Streams are those of tests/golden, of all coders, with their checksum computed again: the damage reaches the coders.
Whatever ends in anything but symbols or a BitstreamError (images: a row) is written to tests/golden/found, where a test
decodes it from then on. With --processes the inputs are shared out; they are the same whatever the number.
"""

import argparse
import hashlib
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

from bls.codec import Codec
from tests.damaging import MAX_PIXELS, damaged, image_files, outcome_of_image, outcome_of_stream, with_checksum

GOLDEN = Path(__file__).parents[1] / "golden"
SLOW_SECONDS = 5.0
Case = tuple[bytes, Callable[[bytes], str]]


def golden_codec() -> Codec:
    """Return the codec of the golden streams."""
    return Codec.load(GOLDEN / "v1" / "bundle", precision="float32", max_pixels=MAX_PIXELS)


def main() -> int:
    """Run a campaign; return how many inputs did harm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("streams", "images"), default="streams")
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    shares = [range(first, options.count, options.processes) for first in range(options.processes)]
    outcomes: Counter[str] = Counter()
    start = time.monotonic()
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as executor:
        for counted in executor.map(partial(_try_all, options.kind, options.seed), shares):
            outcomes += counted
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(f"{options.count} {options.kind}, seed {options.seed}, {time.monotonic() - start:.0f} s: {counts}")
    return outcomes["harm"]


def _try_all(kind: str, seed: int, numbers: range) -> Counter[str]:
    """Return how many of the inputs of these numbers came to each outcome."""
    warnings.simplefilter("ignore")
    make = _streams() if kind == "streams" else _images()
    return Counter(_try(*make(Random(f"{seed}/{number}")), kind) for number in numbers)


def _streams() -> Callable[[Random], Case]:
    codec = golden_codec()
    streams = [path.read_bytes() for path in sorted((GOLDEN / "v1").glob("*.bin"))]
    decode = partial(outcome_of_stream, codec=codec)
    for stream in streams:  # compiles the coders: that is not to count as slow
        decode(stream)
    return lambda random: (with_checksum(damaged(random.choice(streams), random), codec), decode)


def _images() -> Callable[[Random], Case]:
    files = list(image_files().values())
    return lambda random: (
        damaged(random.choice(files), random, within=random.choice((64, 512, None))),
        outcome_of_image,
    )


def _try(data: bytes, outcome: Callable[[bytes], str], kind: str) -> str:
    start = time.thread_time()
    try:
        found = outcome(data)
    except Exception as error:
        what = repr(error)
    else:
        if (seconds := time.thread_time() - start) < SLOW_SECONDS:
            return found
        what = f"{seconds:.1f} s"
    path = GOLDEN / "found" / f"{hashlib.sha256(data).hexdigest()[:16]}.{kind}"
    path.write_bytes(data)
    print(f"{path}: {what}")
    return "harm"


if __name__ == "__main__":
    raise SystemExit(min(main(), 1))
