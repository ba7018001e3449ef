from dataclasses import replace
from pathlib import Path

import pytest

from bls.bundle import save_bundle
from pipeline.work.codec import BATCH_PIXELS, CodecSpec
from tests.bundles import small_network


def test_the_codec_is_that_of_the_job_or_an_error(tmp_path: Path) -> None:
    save_bundle(tmp_path, [small_network(4)])
    spec = CodecSpec.of(str(tmp_path), 4)
    assert spec.load_and_try().model_fingerprint(4).hex() == spec.model_fingerprint
    save_bundle(tmp_path, [small_network(4, seed=1)])
    with pytest.raises(ValueError, match=f"the job began with {spec.model_fingerprint}: give all nodes the same"):
        spec.load()


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_every_device_has_a_batch_size(device: str) -> None:
    spec = replace(CodecSpec(None, 4, "0"), device=device)
    assert spec.batch_pixels == BATCH_PIXELS[device[:4].rstrip(":")]
