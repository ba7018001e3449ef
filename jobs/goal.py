"""What a compress job aims at: a quality for all images, or a target for each."""

from dataclasses import dataclass

from bls.ladder import index_of
from bls.targets import Kind, Target

DEFAULT_QUALITY = 4


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

    def __post_init__(self) -> None:
        given = [name for name in ("quality", *self._flags) if getattr(self, name) is not None]
        if len(given) > 1:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{flags} are given: give one of them")
        if self.quality is not None:
            index_of(self.quality)
        _ = self.target

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
        """The quality of all images; None if it is searched for each."""
        return None if self.target else self.quality or DEFAULT_QUALITY

    @property
    def _flags(self) -> dict[str, Kind]:
        kinds: list[Kind] = ["psnr_db", "ms_ssim", "bpp", "num_bytes"]
        return {f"target_{kind}": kind for kind in kinds}
