"""What became of an image, and why: the column `status` of every table."""

from enum import StrEnum


class Status(StrEnum):
    """`ok`, `kept`, or the reason for which an image is quarantined; docs/metrics.md says what to do about each."""

    OK = "ok"
    """The image was compressed and verified, or restored, or measured."""
    KEPT = "kept"
    """The original file is stored, or restored, as it was: its bitstream would be larger (--keep-smaller)."""
    EMPTY = "empty"
    """The file has no bytes."""
    NOT_AN_IMAGE = "not_an_image"
    """The file is not an image of a format that is read."""
    TOO_LARGE = "too_large"
    """The image has more pixels than --max-pixels, or a side of more than 65,535."""
    UNSUPPORTED = "unsupported"
    """The image is of a kind that is not coded: several frames, more than 8 bits a sample, an alpha plane for JPEG."""
    TRUNCATED = "truncated"
    """The file ends before the image does."""
    CORRUPT = "corrupt"
    """The file or the bitstream is damaged, or was changed after it was listed."""
    UNREADABLE = "unreadable"
    """The file could not be read from the storage."""
    NO_IMAGE = "no_image"
    """The row of a Parquet file has no image."""
    AMBIGUOUS = "ambiguous"
    """The sample of a tar has several images."""
    LOW_PSNR = "low_psnr"
    """The decoded image has a lower PSNR than --min-psnr-db asks for."""
    NAME_CLASH = "name_clash"
    """The restored image would have the name of something else."""
    UNSAFE_NAME = "unsafe_name"
    """The name would lead out of the output folder."""
    UNWRITABLE = "unwritable"
    """A file of this name cannot be written, or one that the job did not write is there."""
    FAILED = "failed"
    """An error that has no status of its own; `error_class` and `error_message` say which."""
    CRASHED = "crashed"
    """The process that worked on the image died, each time that it was tried."""


GOOD = (Status.OK, Status.KEPT)
"""Statuses of images that are not quarantined."""
