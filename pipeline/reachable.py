"""Whether anything answers where Ray would look for a cluster: Ray itself goes on trying for a quarter of an hour."""

import os
import re
import socket
from pathlib import Path

SECONDS_TO_CONNECT = 10.0


def check_cluster(address: str | None) -> None:
    """Look whether a cluster answers that Ray would join; `address` is that of RAY_ADDRESS, None if it is not set.

    Without an address, or with `auto`, Ray joins the cluster that was last started on this machine, if any.

    Raises:
        ConnectionError: nothing answers.
    """
    if address and address != "auto":
        where, remedy = f"RAY_ADDRESS={address}", "start it, correct the address, or unset RAY_ADDRESS"
    else:
        temporary = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        file = Path(temporary) / "ray" / "ray_current_cluster"
        if not file.exists():
            return
        address = file.read_text().strip()
        where, remedy = f"{address}, which {file} names", "start it, or delete that file"
    match = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if match is None:
        return
    try:
        socket.create_connection((match[1], int(match[2])), timeout=SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster at {where} ({error}): {remedy}; RAY_ADDRESS=local uses this machine alone"
        ) from error
