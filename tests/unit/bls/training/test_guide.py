"""The loops of docs/training.md, as printed but for the number of steps."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bls import Codec
from bls.bundle import save_bundle
from bls.measures.images import mse_255, psnr_db
from tests.images import random_fields

GUIDE = Path(__file__).parents[4] / "docs" / "training.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_loops_fit_a_network_that_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    fields = (random_fields(4, 160, seed=5) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for number, field in enumerate(fields):
        Image.fromarray(np.ascontiguousarray(field[: 130 + 10 * number])).save(f"photos/{number}.png")
    whole, thumbnails, step = (block.replace("num_filters=64", "num_filters=16") for block in blocks())
    assert "steps = 3000\n" in whole
    names: dict[str, object] = {}
    exec(whole.replace("steps = 3000\n", "steps = 100\n"), names)
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("100: loss ")
    codec, x = Codec.load("my-bundle"), fields[0][:130]
    quality_db = psnr_db(mse_255(x, codec.decompress(codec.compress(x, quality=4))))
    assert told[-1].endswith(f"{quality_db:.2f} dB") and quality_db > 20
    save_bundle(Path("my-bundle"), [replace(network, thumbnails=None) for network in codec.bundle.networks])
    exec(thumbnails, names)
    small = Codec.load("my-bundle").thumbnail(codec.compress(x, quality=4), scale=8)
    means = x[:128].reshape(16, 8, 20, 8, 3).mean((1, 3))
    assert psnr_db(float(np.square(small[:16] - means).mean())) > 24
    exec(step, {**names, "steps": 3})
