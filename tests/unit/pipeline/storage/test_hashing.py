import hashlib
import io
import shutil

import pytest

from pipeline.storage.hashing import HashingReader


@pytest.mark.parametrize("num_bytes", [0, 1, 10_000, 10_001])
def test_what_is_read_is_counted_and_hashed(num_bytes: int) -> None:
    content = bytes(n % 251 for n in range(num_bytes))
    file = io.BytesIO(b"before" + content)
    file.seek(6)
    reader, copy = HashingReader(file), io.BytesIO()
    shutil.copyfileobj(reader, copy, 1000)
    assert copy.getvalue() == content
    assert (reader.num_bytes, reader.sha256) == (num_bytes, hashlib.sha256(content).hexdigest())
