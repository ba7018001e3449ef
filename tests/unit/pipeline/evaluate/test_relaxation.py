from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bls.bundle import Bundle, load_bundle
from bls.codec import Codec
from bls.entropy.coders import CODERS
from pipeline.evaluate.relaxation import RelaxationCheck, markdown, summary_rows
from pipeline.ledger.schema import RELAXATION
from tests.bundles import small_network
from tests.images import random_fields


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


def images(count: int = 4) -> list[np.ndarray]:
    fields = (random_fields(count, 96, seed=5) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [fields[0, :70], fields[1, :, :, 0], *fields[2:]]


def measured(bundle: Bundle, quality: int, *, seed: int = 0) -> list[dict[str, object]]:
    check = RelaxationCheck(bundle, quality, seed=seed)
    for x in images():
        check.fit(x)
    return [check.measure(x) for x in images()]


def test_noise_and_rounding_give_about_the_same_error_and_rate(bundle: Bundle) -> None:
    for row in measured(bundle, 4):
        assert row["noisy_mse_255"] == pytest.approx(row["rounded_mse_255"], rel=0.25)
        # 16 latents for 256 pixels: a bias of 0.15 bits each is the most that narrow densities give.
        assert -0.01 < float(str(row["noisy_bpp"])) - float(str(row["rounded_bpp"])) < 0.15 * 16 / 256 + 0.01
        assert row["noisy_bpp"] != row["rounded_bpp"]


def test_a_network_of_a_range_is_measured_at_each_quality() -> None:
    bundle = Bundle([small_network(4, 6)])
    low, high = measured(bundle, 4), measured(bundle, 6)

    def mean(rows: list[dict[str, object]], name: str) -> float:
        return float(np.mean([float(str(row[name])) for row in rows]))

    assert mean(high, "rounded_bpp") > 1.2 * mean(low, "rounded_bpp")
    assert mean(high, "rounded_mse_255") < mean(low, "rounded_mse_255")
    for x, row in zip(images(), high, strict=True):
        num_bytes = len(Codec(bundle).compress(x, quality=6))
        assert row[f"{CODERS[0]}_bpp"] == 8 * num_bytes / (x.shape[0] * x.shape[1])


def test_bitstreams_are_those_of_the_codec(bundle: Bundle, tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle)
    for x, row in zip(images(), measured(bundle, 2), strict=True):
        for coder in CODERS:
            num_bytes = len(codec.compress(x, quality=2, coder=coder))
            assert row[f"{coder}_bpp"] == 8 * num_bytes / (x.shape[0] * x.shape[1])


def test_noise_is_that_of_its_seed(bundle: Bundle) -> None:
    first, again, other = (measured(bundle, 4, seed=seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert first["noisy_mse_255"] != other["noisy_mse_255"] and first["rounded_mse_255"] == other["rounded_mse_255"]


def test_summary_and_markdown() -> None:
    def row(key: str, noisy_mse_255: float, noisy_bpp: float) -> dict[str, object]:
        rates = {f"{coder}_bpp": 0.9 for coder in CODERS}
        errors = {"noisy_mse_255": noisy_mse_255, "rounded_mse_255": 10.0}
        return {"key": key, "status": "ok", "quality": 4, "noisy_bpp": noisy_bpp, "rounded_bpp": 1.0, **errors, **rates}

    table = pa.Table.from_pylist([row("a", 100.0, 1.2), row("b", 10.0, 1.1)], schema=RELAXATION)
    (found,) = summary_rows(table)
    assert (found["quality"], found["num_images"]) == (4, 2)
    assert (found["mse_bias_db"], found["mse_spread_db"]) == (5, 5)
    assert (found["bpp_bias"], found["bpp_spread"]) == pytest.approx((0.15, 0.05))
    assert found["noisy_percent"] == pytest.approx(15)
    assert found[f"{CODERS[0]}_percent"] == pytest.approx(-10)
    text = markdown(table, name="kodak", provenance={"commit": "abc", "nothing": None})
    assert "| 4 | 2 | +5.00 ± 5.00 dB | +0.150 ± 0.050 bpp, +15.0 % | -10.0 % |" in text
    assert "- commit: abc" in text and "nothing" not in text
