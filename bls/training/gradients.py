"""Gradients of convolutions in bfloat16, several times as fast on hardware that multiplies it.

A fit in bfloat16 adapts itself to the rounding of its values and is tied to it (docs/decisions/0005-precision.md). The
rounding of a gradient is another matter: it is small beside the noise that comes from the choice of patches. So values
stay in float32, and only the products of the backward pass, two thirds of a step's, take rounded factors. Their sums
are in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CONVOLUTION, CONVOLUTION_BACKWARD = torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default


def bfloat16_gradients() -> AbstractContextManager[object]:
    """Return a context within which backward passes of float32 convolutions round their factors to bfloat16."""
    mode: AbstractContextManager[object] = _RoundedBackward()  # type: ignore[no-untyped-call]
    return mode


class _RoundedBackward(TorchDispatchMode):
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not CONVOLUTION_BACKWARD or any(tensor.dtype != torch.float32 for tensor in args[:3]):
            return func(*args, **(kwargs or {}))
        return _convolution_backward(*args)


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias_sizes: list[int] | None, *geometry: Any
) -> tuple[Tensor | None, ...]:
    """Return the gradients of input, weight and bias, as far as they are wanted."""
    stride, padding, dilation, transposed, _, groups, wanted = geometry
    of_input, of_weight, of_bias = wanted
    rounded = [tensor.bfloat16() for tensor in (gradient, x, weight)]
    if not transposed:
        gradients = CONVOLUTION_BACKWARD(*rounded, bias_sizes, *geometry)
        return tuple(None if each is None else each.float() for each in gradients)
    # A transposed convolution's gradients are those of the convolution that it is the adjoint of, which is faster.
    forward = (stride, padding, dilation, False, [0] * len(stride), groups)
    of_x = CONVOLUTION(rounded[0], rounded[2], None, *forward).float() if of_input else None
    swapped = (rounded[1], rounded[0], rounded[2])
    _, of_w, _ = CONVOLUTION_BACKWARD(*swapped, None, *forward, [False, of_weight, False])
    return of_x, of_w.float() if of_weight else None, gradient.sum((0, 2, 3)) if of_bias else None
