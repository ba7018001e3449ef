"""The train job as its users run it: a folder of images in, a bundle out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bls.bundle import load_bundle
from bls.codec import Codec
from tests.images import random_fields

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SMALL = ("--steps", 6, "--batch-size", 2, "--patches.patch-size", 64, "--model.num-filters", 8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    fields = (random_fields(6, 96, seed=3) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for index, pixels in enumerate(fields):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def train(photographs: Path, output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    folders = ("--data", photographs, "--output", output / "bundle", "--checkpoints", output / "checkpoints")
    command = [sys.executable, ROOT / "jobs" / "train.py", *folders, *SMALL, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)


def test_a_folder_of_images_becomes_a_bundle(photographs: Path, tmp_path: Path) -> None:
    done = train(photographs, tmp_path, "--lmbda", 0.0035, 0.013)
    assert done.returncode == 0, done.stderr
    assert "6 images" in done.stdout and "step 6/6" in done.stdout and "not_an_image" in done.stdout
    codec = Codec.load(tmp_path / "bundle")
    assert codec.qualities == (2, 4)
    x = np.asarray(Image.open(photographs / "0.png"))
    x_hat = codec.decompress(codec.compress(x, quality=4))
    assert np.square(x - x_hat.astype(float)).mean() < 0.5 * x.var()
    # Again: the checkpoints are at their last step, and give the same models.
    fingerprint = load_bundle(tmp_path / "bundle").fingerprint
    assert "going on from step 6" in train(photographs, tmp_path, "--lmbda", 0.0035, 0.013).stdout
    assert load_bundle(tmp_path / "bundle").fingerprint == fingerprint
    # A model of another quality joins them, from a start that is fitted already.
    done = train(photographs, tmp_path, "--lmbda", 0.0067, "--init", f"{tmp_path / 'bundle'}#4")
    assert done.returncode == 0, done.stderr
    assert Codec.load(tmp_path / "bundle").qualities == (2, 3, 4)


def test_wrong_usage_is_refused(photographs: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--lmbda", 0.5), "number the models with --quality"),
        (("--init", "nowhere#4"), "nowhere"),
        (("--model.channels", 1), "give --patches.channels and --model.channels the same value"),
    ):
        done = train(photographs, tmp_path, *arguments)
        # tyro draws a frame around messages and breaks lines where it likes
        said = " ".join((done.stderr + done.stdout).replace("│", " ").split())
        assert done.returncode == 2 and message in said, said
