"""What the integer models of a bundle share: dataclasses of arrays, stored by name and checked when they come back."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

Expected = Mapping[str, tuple[tuple[int, ...], type]]
"""Shape and type of every array."""


def to_arrays(model: Any) -> dict[str, np.ndarray]:
    """Return a dataclass's arrays by name."""
    return {f.name: getattr(model, f.name) for f in fields(model)}


def pick_arrays(arrays: Mapping[str, np.ndarray], cls: type, *, name: str) -> dict[str, np.ndarray]:
    """Return the arrays that a dataclass is made of.

    Raises:
        ValueError: one is missing.
    """
    names = [f.name for f in fields(cls)]
    missing = set(names) - arrays.keys()
    if missing:
        raise ValueError(f"{name} lacks {', '.join(sorted(missing))}: write the bundle again")
    return {name: arrays[name] for name in names}


def check_shapes(model: Any, expected: Expected, *, name: str) -> None:
    """Do nothing if every array has its shape and type.

    Raises:
        ValueError: names the first that has not.
    """
    for array_name, (shape, dtype) in expected.items():
        array = getattr(model, array_name)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{name} has {array_name} of {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}: "
                "write the bundle again"
            )


def are_coded_before(sources: np.ndarray, weights: np.ndarray) -> bool:
    """Tell whether each channel's sources exist, and those of some weight are coded before it.

    The coders read them unchecked, and at decoding only what was decoded before is known.
    """
    c = len(sources)
    is_before = sources < np.arange(c)[:, None]
    return bool((sources < c).all() and (is_before | (weights == 0)).all())
