"""Speed of the codec on one thread, beside CompressAI and the encoders of Pillow, in one run.

    python -m benchmarks.codec_speed --images KODAK --compressai VENV/bin/python

Compressing is from pixels to a bitstream, decompressing back to pixels; nothing is measured or verified. CompressAI's
`bmshj2018_factorized` of quality 4 is the nearest model there is elsewhere: the same transforms at 128 filters, a
factorised density, a range coder. It runs in an environment of its own, without trained weights, which changes what
is coded and hardly how fast; as it comes, and with the huge pages that `bls` takes (docs/decisions/0012-huge-pages.md).
Writes benchmarks/results/codec_speed.json.
"""

import io
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from benchmarks.provenance import write_result
from benchmarks.timing import median_seconds
from bls.codec import Codec
from bls.entropy.coders import CODERS
from pipeline.baselines import BASELINES, encode

COMPRESSAI = """
import sys, time, json, numpy, torch
from statistics import median
from PIL import Image
from compressai.zoo import bmshj2018_factorized
torch.set_num_threads(1)
torch.manual_seed(0)
net = bmshj2018_factorized(quality=4, pretrained=False).eval()
net.update()
images = [numpy.array(Image.open(path).convert("RGB")) for path in sys.argv[2:]]
seconds = {"compress": [], "decompress": []}
with torch.inference_mode():
    for repeat in range(int(sys.argv[1]) + 1):
        total = dict.fromkeys(seconds, 0.0)
        for image in images:
            x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
            start = time.perf_counter()
            code = net.compress(x)
            middle = time.perf_counter()
            net.decompress(code["strings"], code["shape"])
            total["compress"] += middle - start
            total["decompress"] += time.perf_counter() - middle
        if repeat:
            for name in seconds:
                seconds[name].append(total[name])
print(json.dumps({name: median(values) for name, values in seconds.items()}))
"""


@dataclass(frozen=True)
class CodecSpeed:
    """Time codecs over a folder of images whose sides are multiples of 16."""

    images: Path
    """Folder of PNG images."""
    compressai: Path | None = None
    """Python of an environment with CompressAI; without it the comparison is left out."""
    quality: float = 4
    repeats: int = 3


def main(config: CodecSpeed) -> None:
    """Time all, print and write megapixels per second and ratios."""
    torch.set_num_threads(1)
    paths = sorted(config.images.glob("*.png"))
    images = [np.array(Image.open(path).convert("RGB")) for path in paths]
    megapixels = sum(image[..., 0].size for image in images) / 1e6
    result: dict[str, float] = {"quality": config.quality}
    for name, seconds in (_ours(images, config) | _pillow(images, config)).items():
        result[f"{name}_mp_per_second"] = megapixels / seconds
    if config.compressai is not None:
        coder = CODERS[0]
        ours = {direction: result[f"{coder}_{direction}_mp_per_second"] for direction in ("compress", "decompress")}
        command = list(map(str, [config.compressai, "-c", COMPRESSAI, config.repeats, *paths]))
        for name, huge_pages in (("compressai", "0"), ("compressai_huge_pages", "1")):
            environment = os.environ | {"THP_MEM_ALLOC_ENABLE": huge_pages}
            output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            for direction, seconds in json.loads(output.splitlines()[-1]).items():
                result[f"{name}_{direction}_mp_per_second"] = megapixels / seconds
                result[f"{direction}_to_{name}"] = ours[direction] * seconds / megapixels
    for key, value in result.items():
        print(f"{key:45} {value:.3g}")
    print(write_result("codec_speed", dict(result)))


def _ours(images: Sequence[np.ndarray], config: CodecSpeed) -> dict[str, float]:
    seconds = {}
    for precision in ("auto", "float32"):
        codec = Codec.load(precision=precision)
        for coder in CODERS:
            data = [codec.compress(x, quality=config.quality, coder=coder) for x in images]
            name = coder if precision == "auto" else f"{coder}_{precision}"

            def compress(codec: Codec = codec, coder: str = coder) -> None:
                for x in images:
                    codec.compress(x, quality=config.quality, coder=coder)

            def decompress(codec: Codec = codec, data: list[bytes] = data) -> None:
                for bitstream in data:
                    codec.decompress(bitstream)

            seconds[f"{name}_compress"] = median_seconds(compress, config.repeats, warm_up=1)
            seconds[f"{name}_decompress"] = median_seconds(decompress, config.repeats, warm_up=1)
    return seconds


def _pillow(images: Sequence[np.ndarray], config: CodecSpeed) -> dict[str, float]:
    """Return the times at the middle of each codec's ladder of settings."""
    seconds = {}
    for name in ("jpeg-420", "jpeg2000", "webp", "avif-444-iq"):
        setting = BASELINES[name].settings[len(BASELINES[name].settings) // 2]
        data = [encode(x, name, setting) for x in images]

        def compress(name: str = name, setting: float = setting) -> None:
            for x in images:
                encode(x, name, setting)

        def decompress(data: list[bytes] = data) -> None:
            for file in data:
                Image.open(io.BytesIO(file)).load()

        seconds[f"{name}_compress"] = median_seconds(compress, config.repeats, warm_up=1)
        seconds[f"{name}_decompress"] = median_seconds(decompress, config.repeats, warm_up=1)
    return seconds


if __name__ == "__main__":
    main(tyro.cli(CodecSpeed))
