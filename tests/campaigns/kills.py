"""Kill compress jobs at random moments, as many as are asked for, and look at what the same command makes of it.

    python -m tests.campaigns.kills --kills 50

Each kill has an output of its own: a job is begun, and at some moment its driver, a worker or the raylet gets a
SIGKILL, or the whole of it a Ctrl-C, in half of the cases two. Then the same command is given again. Harm is an output
in which an image is missing, is there twice, or differs from that of an undisturbed run; a run that hangs; and a
process that outlives its job by a minute and a half. The same seed draws the same kills.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from bls.bundle import save_bundle
from pipeline.ledger.output import Output
from tests.bundles import small_network
from tests.images import random_fields
from tests.jobs import committed_rows, job, started_under, wait_until

NUM_IMAGES, NUM_SHARDS = 24, 12
SECONDS_TO_END = 300.0  # of a run; more is a run that hangs
SECONDS_TO_VANISH = 90.0  # of a job's processes after its end; Ray's agents outlive a killed driver by 63
EXIT_CODE = 3  # one of the images is broken
KINDS = ("driver", "worker", "raylet", "Ctrl-C")
_PROCESSES = {"worker": "ray::_Host", "raylet": "/raylet/raylet"}  # in the command of a process


@dataclass(frozen=True)
class Kill:
    """What is killed, and when: so many seconds after the start of the job, or after so many shards were committed."""

    kind: str
    num_committed: int
    seconds: float
    is_repeated: bool

    @classmethod
    def draw(cls, number: int, *, seed: int, seconds: float) -> "Kill":
        """Draw one, where an undisturbed run takes so many seconds; the kinds take turns."""
        random = Random(f"{seed}/{number}")
        num_committed = random.choice((0, *range(NUM_SHARDS - 3)))
        longest = 0.3 if num_committed else seconds
        return cls(KINDS[number % len(KINDS)], num_committed, random.uniform(0, longest), random.random() < 0.5)

    def __str__(self) -> str:
        after = f"{self.num_committed} shards and " if self.num_committed else ""
        kind = "two Ctrl-C" if self.kind == "Ctrl-C" and self.is_repeated else self.kind
        return f"{kind} after {after}{self.seconds:.2f} s"


@dataclass(frozen=True)
class Run:
    """A job that runs: its driver, and the mark that all of its processes inherit."""

    driver: subprocess.Popen[bytes]
    mark: str

    @property
    def is_running(self) -> bool:
        return self.driver.poll() is None

    def suffer(self, kill: Kill) -> bool:
        """Kill; return whether there was anything to kill before the job came to its end."""
        if kill.kind == "Ctrl-C":
            for _ in range(1 + kill.is_repeated):
                if self.is_running:
                    os.killpg(self.driver.pid, signal.SIGINT)
                    time.sleep(0.5)
            return True
        if kill.kind == "driver":
            self.driver.kill()
            return True
        while self.is_running:
            if victims := [pid for pid, name in started_under(self.mark).items() if _PROCESSES[kill.kind] in name]:
                with suppress(ProcessLookupError):
                    os.kill(min(victims), signal.SIGKILL)
                    return True
            time.sleep(0.01)
        return False

    def end(self) -> list[str]:
        """Wait for the end; return the processes that are still there a minute and a half later.

        Raises:
            AssertionError: it does not come.
        """
        wait_until(lambda: not self.is_running, "the end of a run", seconds=SECONDS_TO_END)
        deadline = time.monotonic() + SECONDS_TO_VANISH
        while (left := started_under(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [name[:60] for name in left.values()]


@dataclass(frozen=True)
class Campaign:
    """The images, the bundle and the undisturbed output, all in one folder."""

    folder: Path

    def prepare(self) -> None:
        """Write images, each of another size, one of them broken, and a bundle."""
        (self.folder / "photographs").mkdir()
        for index, field in enumerate((random_fields(NUM_IMAGES, 16 * NUM_IMAGES + 16, seed=2) * 255).round().byte()):
            pixels = field[:, : 16 * index + 16, :40].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(self.folder / "photographs" / f"{index:02}.png")
        (self.folder / "photographs" / "05.png").write_bytes(b"")
        save_bundle(self.folder / "bundle", [small_network(4, num_filters=16)])

    @contextmanager
    def running(self, output: Path) -> Iterator[Run]:
        """Begin a job, or go on with it; what is left of it at the end is killed."""
        mark = f"BLS_TEST_MARK={uuid.uuid4().hex}"
        environment = {**os.environ, "RAY_ADDRESS": "", "RAY_AUTH_MODE": "disabled", "BLS_TEST_MARK": mark[14:]}
        given = ("--input", self.folder / "photographs", "--output", output, "--bundle", self.folder / "bundle")
        command = job("compress_dataset", *given, "--shard-size", NUM_IMAGES // NUM_SHARDS, "--num-workers", 2)
        with (self.folder / "log").open("ab") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            yield Run(driver, mark)
        finally:
            for pid in started_under(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            driver.wait()

    def finish(self, output: Path) -> float:
        """Run a job to its end; return how long it took."""
        start = time.monotonic()
        with self.running(output) as run:
            left = run.end()
        assert not left, f"processes outlive their job: {left}"
        assert run.driver.returncode == EXIT_CODE, f"exit code {run.driver.returncode}, see {self.folder / 'log'}"
        return time.monotonic() - start

    def disturb(self, output: Path, kill: Kill) -> str:
        """Run a job that is killed, and once more; return what happened."""
        with self.running(output) as run:
            while run.is_running and len(list(output.glob("commits/*.json"))) < kill.num_committed:
                time.sleep(0.01)
            with suppress(subprocess.TimeoutExpired):
                run.driver.wait(kill.seconds)
            has_come = run.is_running and run.suffer(kill)
            left = run.end()
        num_done = len(Output(str(output)).committed())
        self.finish(output)
        assert committed_rows(output) == committed_rows(self.folder / "undisturbed"), "the rows differ"
        assert not left, f"the rows are equal, but processes outlive their job: {left}"
        if not has_come:
            return "too late"
        return f"exit code {run.driver.returncode} with {num_done} of {NUM_SHARDS} shards"


def main() -> int:
    """Run a campaign; return whether a kill did harm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bls-kills-"))
    campaign, outcomes, start = Campaign(folder), Counter[str](), time.monotonic()
    campaign.prepare()
    seconds = campaign.finish(folder / "undisturbed")
    keys = [row["key"] for row in committed_rows(folder / "undisturbed")["metrics"]]
    assert keys == [f"{index:02}.png" for index in range(NUM_IMAGES)]
    print(f"undisturbed: {NUM_IMAGES} images in {seconds:.1f} s; outputs and a log are in {folder}", flush=True)
    for number in range(options.kills):
        kill = Kill.draw(number, seed=options.seed, seconds=seconds)
        try:
            happened = campaign.disturb(folder / str(number), kill)
            outcomes["too late" if happened == "too late" else kill.kind] += 1
        except AssertionError as error:
            happened = f"HARM: {error}"
            outcomes["harm"] += 1
        print(f"{number + 1} of {options.kills}: {kill}: {happened}", flush=True)
    counts = ", ".join(f"{outcomes[kind]} {kind}" for kind in (*KINDS, "too late", "harm"))
    print(f"{options.kills} kills, seed {options.seed}, {time.monotonic() - start:.0f} s: {counts}")
    return min(outcomes["harm"], 1)


if __name__ == "__main__":
    raise SystemExit(main())
