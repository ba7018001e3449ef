"""Where the transforms may run in bfloat16: twice as fast on hardware that has it, with 8 bits of mantissa.

Latents, density, loss and pixels stay in float32; only what happens inside the transforms is rounded. How much that
costs a fitted model depends on how fine its latents are quantised (docs/decisions/0008-bfloat16.md).
"""

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]

MAX_BFLOAT16_LMBDA = 0.02
"""Up to here `auto` takes bfloat16: lmbda * 255^2 * mse + bpp rises by less than 0.1 %, above by up to 0.4 %."""


def has_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 products are done in hardware; emulated products are slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    if hasattr(torch.cpu, "get_capabilities"):  # from PyTorch 2.13 on
        return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return bool(torch.cpu._is_avx512_bf16_supported())


def takes_bfloat16(precision: Precision, device: torch.device, *, lmbda: float) -> bool:
    """Return whether a model of this lambda runs in bfloat16."""
    if precision == "auto":
        return lmbda <= MAX_BFLOAT16_LMBDA and has_bfloat16(device)
    return precision == "bfloat16"
