"""`--keep-smaller`: an original is kept, byte for byte, where its bitstream and what is stored beside it are larger."""

from typing import Any

from bls.measures import images as measures
from bls.targets import Target
from pipeline.compress.coding import CodedItem
from pipeline.status import Status


def is_to_be_kept(item: CodedItem, num_bytes: int, target: Target | None) -> bool:
    """Return whether an image that was coded is better kept as its original of this size.

    It is not if the bitstream meets a target of size and the original, with EXIF and ICC inside, does not.
    """
    assert item.image is not None
    if num_bytes >= len(item.bitstream) + item.image.beside_num_bytes:
        return False
    return not item.row.get("target_met") or _meets(item, num_bytes, target)


def keep(item: CodedItem, num_bytes: int, target: Target | None) -> None:
    """Put what is known of a kept original into the row of its image: there is no error, and no bitstream.

    Quality, coder and effort stay: they are those of the bitstream that would be larger.
    """
    is_met = {"target_met": _meets(item, num_bytes, target)} if "target_met" in item.row else {}
    item.row.update(
        status=Status.KEPT,
        num_bytes=num_bytes,
        beside_num_bytes=0,
        bpp=_bpp(item, num_bytes),
        mse_255=0.0,
        **dict.fromkeys(("psnr_db", "ms_ssim", "estimated_bpp", "verified")),
        **is_met,
    )
    item.decoded = item.symbols = item.x_hat = None


def _meets(item: CodedItem, num_bytes: int, target: Target | None) -> bool:
    """Return whether an original of this size meets a target, as it does every target of quality."""
    if target is None or not target.is_size:
        return True
    sizes: dict[str, Any] = {"num_bytes": num_bytes, "bpp": _bpp(item, num_bytes)}
    return bool(sizes[target.kind] <= target.value)


def _bpp(item: CodedItem, num_bytes: int) -> float:
    return measures.bpp(num_bytes, height=item.row["height"], width=item.row["width"])
