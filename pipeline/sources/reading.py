"""The bytes of an image by its reference, errors as reasons."""

from pipeline.images import ImageError
from pipeline.sources.reference import ImageReference, Sample, Source
from pipeline.status import Status


def read_encoded(source: Source, reference: ImageReference) -> bytes:
    """Read the encoded bytes of an image; raises as `read_sample`."""
    return read_sample(source, reference).data


def read_sample(source: Source, reference: ImageReference) -> Sample:
    """Read an image with what is carried beside it.

    Raises:
        ImageError: what the source says of the image, else `unreadable`, whatever the file system raised.
    """
    try:
        return source.read_sample(reference)
    except ImageError:
        raise
    except FileNotFoundError as error:  # a web server's has its address alone
        raise ImageError(Status.UNREADABLE, f"cannot be read, it is not there: {error}") from error
    except Exception as error:  # file systems raise more than OSError
        raise ImageError(Status.UNREADABLE, f"cannot be read: {error}") from error
