import io
import tarfile

import pytest

from pipeline.decompress.tar_writer import END, member
from pipeline.storage.uris import UnsafeNameError


def test_members_are_read_back_and_tell_no_time_or_owner() -> None:
    contents = {"a b/ü.png": b"x" * 1000, "long/" + "n" * 200 + ".json": b"", "c.cls": b"7" * 512}
    data = b"".join(part for name, content in contents.items() for part in member(name, content)) + END
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
        for info, (name, content) in zip(archive, contents.items(), strict=True):
            file = archive.extractfile(info)
            assert file is not None and (info.name, file.read()) == (name, content)
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png", "", "a//b", "a\0b"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(UnsafeNameError, match="would not stay inside"):
        member(name, b"")
