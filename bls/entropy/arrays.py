"""What the integer models of a bundle share: dataclasses of arrays, stored by name and checked when they are loaded."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np

Expected = Mapping[str, tuple[tuple[int, ...], type]]
"""Shape and type of every array."""


class StoredArrays:
    """A dataclass of arrays that a bundle stores by their names; `stored_name` is what messages call it."""

    stored_name: ClassVar[str]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what `from_arrays` takes."""
        return {name: getattr(self, name) for name in _names(type(self))}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Rebuild the model from stored arrays.

        Raises:
            ValueError: an array is missing, or they do not belong together.
        """
        names = _names(cls)
        missing = set(names) - arrays.keys()
        if missing:
            raise ValueError(f"{cls.stored_name} lacks {', '.join(sorted(missing))}: write the bundle again")
        return cls(**{name: arrays[name] for name in names})

    def check_shapes(self, expected: Expected) -> None:
        """Do nothing if every array has its shape and type.

        Raises:
            ValueError: names the first array that differs.
        """
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{self.stored_name} has {name} of {array.dtype} {array.shape}, expected {np.dtype(dtype)} "
                    f"{shape}: write the bundle again"
                )


def _names(cls: Any) -> list[str]:
    return [field.name for field in fields(cls)]


def are_coded_before(sources: np.ndarray, weights: np.ndarray) -> bool:
    """Return whether each channel's sources exist, and those with a weight are coded before it.

    The coders read them unchecked, and at decoding only what was decoded before is known.
    """
    c = len(sources)
    is_before = sources < np.arange(c)[:, None]
    return bool((sources < c).all() and (is_before | (weights == 0)).all())
