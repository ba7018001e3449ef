"""What a compress job aims at: a quality for all images, a target for each, or a size for all together."""

import re
from dataclasses import dataclass

from bls.ladder import index_of
from bls.targets import Kind, Target

DEFAULT_QUALITY = 4
_UNITS = {"": 1, **{f"{name}b": 1000**power for power, name in enumerate(("", "k", "m", "g", "t", "p"))}}
_UNITS |= {f"{name}ib": 1024**power for power, name in enumerate(("k", "m", "g", "t", "p"), start=1)}


@dataclass(frozen=True)
class GoalOptions:
    """The quality of the images, or what it is searched for: one of these."""

    quality: float | None = None
    """From 1 (smallest files) to 8 (best images), any number between; whole numbers are the field's usual ladder.
    Default: 4, if there is no target."""
    target_psnr_db: float | None = None
    """Give each image the lowest quality that reaches this PSNR, in dB."""
    target_ms_ssim: float | None = None
    """Give each image the lowest quality that reaches this MS-SSIM."""
    target_bpp: float | None = None
    """Give each image the highest quality whose bitstream has no more bits per pixel than this."""
    target_num_bytes: int | None = None
    """Give each image the highest quality whose bitstream has no more bytes than this."""
    max_total_bytes: str | None = None
    """Give all images the highest quality at which they fit into this size together, such as 2TB or 500MB (or TiB,
    MiB). See docs/targets.md."""

    def __post_init__(self) -> None:
        given = [name for name in ("quality", *self._flags, "max_total_bytes") if getattr(self, name) is not None]
        if len(given) > 1:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{flags} are given: give one of them")
        if self.quality is not None:
            index_of(self.quality)
        _ = self.target, self.budget

    @property
    def target(self) -> Target | None:
        """What each image is to reach; None where there is one quality for all.

        Raises:
            ValueError: its value is out of range.
        """
        for name, kind in self._flags.items():
            if (value := getattr(self, name)) is not None:
                return Target(kind, value)
        return None

    @property
    def common_quality(self) -> float | None:
        """The quality of all images; None if it is searched for."""
        return None if self.target or self.budget else self.quality or DEFAULT_QUALITY

    @property
    def budget(self) -> int | None:
        """The size for all images together, in bytes.

        Raises:
            ValueError: it is not a size.
        """
        return None if self.max_total_bytes is None else parse_size(self.max_total_bytes)

    @property
    def _flags(self) -> dict[str, Kind]:
        kinds: list[Kind] = ["psnr_db", "ms_ssim", "bpp", "num_bytes"]
        return {f"target_{kind}": kind for kind in kinds}


def parse_size(text: str) -> int:
    """Return a size such as 2TB, 1.5 GiB or 40000 in bytes.

    Raises:
        ValueError: it is not a size above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match and match[2] in _UNITS and (num_bytes := int(float(match[1]) * _UNITS[match[2]])) > 0:
        return num_bytes
    raise ValueError(f"--max-total-bytes is {text}, expected a size above 0 such as 2TB, 500MB or 1.5GiB")
