"""Speed of the transforms, and their share of the machine's matrix-product rate.

    python -m benchmarks.transforms --threads 1

Shares compare the multiplications of the convolutions and GDNs with what one large matrix product of the same type
reaches in the same run. Writes benchmarks/results/transforms-THREADS.json.
"""

from dataclasses import dataclass

import torch
import tyro

from benchmarks.provenance import write_result
from benchmarks.timing import median_seconds
from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig

HEIGHT, WIDTH = 512, 768


@dataclass(frozen=True)
class Transforms:
    """Time analysis and synthesis of one image of Kodak's size."""

    threads: int = 1
    num_filters: int = 128
    repeats: int = 15


def main(config: Transforms) -> None:
    """Time the transforms in float32 and bfloat16."""
    torch.set_num_threads(config.threads)
    transform_config = TransformConfig(num_filters=config.num_filters)
    analysis, synthesis = AnalysisTransform(transform_config), SynthesisTransform(transform_config)
    for transform in (analysis, synthesis):
        transform.to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]
    x = torch.rand(1, 3, HEIGHT, WIDTH).contiguous(memory_format=torch.channels_last)
    y = torch.randn(1, config.num_filters, HEIGHT // 16, WIDTH // 16).contiguous(memory_format=torch.channels_last)
    result: dict[str, float | int] = {"threads": config.threads, "num_filters": config.num_filters}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a = torch.randn(2048, 2048).to(dtype)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            seconds = {
                "matrix_product": median_seconds(lambda a=a: a @ a, config.repeats, warm_up=2),  # type: ignore[misc]
                "analysis": median_seconds(lambda: analysis(x), config.repeats, warm_up=2),
                "synthesis": median_seconds(lambda: synthesis(y), config.repeats, warm_up=2),
            }
        peak = 2 * 2048**3 / seconds["matrix_product"]
        result[f"{name}_matrix_product_gflops"] = peak / 1e9
        for transform_name in ("analysis", "synthesis"):
            operations = 2 * _multiplications_per_pixel(config.num_filters) * HEIGHT * WIDTH
            result[f"{name}_{transform_name}_mp_per_second"] = HEIGHT * WIDTH / seconds[transform_name] / 1e6
            result[f"{name}_{transform_name}_share"] = operations / seconds[transform_name] / peak
    for key, value in result.items():
        print(f"{key:40} {value:.3g}")
    print(write_result(f"transforms-{config.threads}", result))


def _multiplications_per_pixel(n: int) -> float:
    """Return those of the three filters and the two GDNs between them, alike for analysis and synthesis."""
    filters = 9 * 9 * 3 * n / 4**2 + 5 * 5 * n * n / 8**2 + 5 * 5 * n * n / 16**2
    return filters + n * n / 4**2 + n * n / 8**2


if __name__ == "__main__":
    main(tyro.cli(Transforms))
