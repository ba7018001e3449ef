import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pipeline
from bls.bitstream import BitstreamError
from bls.bundle import shipped_bundle
from bls.codec import Codec
from tests.datasets import STRUCT, Sample, pixels, write_dataset

ROOT = Path(__file__).parents[4]


def test_bitstreams_of_a_batch_become_images(tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle)
    images = [pixels(16, 20), pixels(30, 17, gray=True)]
    bitstreams = [codec.compress(x, quality=quality) for x, quality in zip(images, (2, 4), strict=True)]
    decode = pipeline.DecompressImages(bundle=str(tiny_bundle))
    for function in (decode, pickle.loads(pickle.dumps(decode))):
        batch = function({"label": [0, 1], "bitstream": bitstreams})
        assert list(batch) == ["label", "image"] and batch["label"] == [0, 1]
        for x_hat, bitstream in zip(batch["image"], bitstreams, strict=True):
            assert x_hat.dtype == np.uint8
            np.testing.assert_array_equal(x_hat.squeeze(), codec.decompress(bitstream))
        assert [x_hat.shape for x_hat in batch["image"]] == [(16, 20, 3), (30, 17, 1)]
    assert len(pickle.dumps(decode)) < 1000
    sizes = pipeline.DecompressImages(bundle=str(tiny_bundle), column="b", transform=np.size)({"b": bitstreams})
    assert sizes == {"image": [960, 510]}
    with pytest.raises(ValueError, match="the batch has no column 'bitstream', expected it among label"):
        decode({"label": [0]})
    with pytest.raises(BitstreamError):
        decode({"bitstream": [bitstreams[0][:-1]]})


def test_the_example_reads_what_is_committed(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="pip install datasets")
    statuses = ["ok", "kept", "ok"]
    samples = [
        Sample(f"{n}.png", pixels(20 + n, 30), carried={"label": n}, status=status) for n, status in enumerate(statuses)
    ]
    output = write_dataset(tmp_path / "compressed", shipped_bundle(), [samples[:2], samples[2:]], carried=STRUCT)
    output.folder.write(f"bitstreams/shard-000000.{'0' * 32}.parquet", b"half a file")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "hugging_face.py", tmp_path / "compressed"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(line.partition(" and ")[0] for line in done.stdout.splitlines())
    assert lines == [f"{n}.png has shape ({20 + n}, 30, 3)" for n in range(3)]
