"""Results of fixed names in a folder that may hold other people's files too: only what a job wrote is ever replaced.

The names are recorded in `written.json` before the files are written, so a killed job replaces its own files only.
"""

import json
from collections.abc import Collection, Iterable, Mapping

from pipeline.storage.folder import Folder

RECORD = "written.json"


def check_replaceable(folder: Folder, names: Iterable[str], *, ours: Collection[str] = ()) -> None:
    """Refuse to write over files that no job recorded; those of `ours` are known from elsewhere.

    Raises:
        ValueError: names a file that is in the way.
    """
    recorded = _recorded(folder)
    for name in names:
        if name not in recorded and name not in ours and folder.holds(name):
            raise ValueError(
                f"{folder} holds a file {name} that this job did not write and would replace: "
                "use another --output, or move that file away"
            )


def write_results(folder: Folder, files: Mapping[str, bytes], *, ours: Collection[str] = ()) -> None:
    """Record the names of the files, then write the files in their order.

    Raises:
        ValueError: as `check_replaceable`.
    """
    check_replaceable(folder, files, ours=ours)
    recorded = _recorded(folder)
    if not recorded.issuperset(files):
        folder.write(RECORD, (json.dumps({"files": sorted(recorded | files.keys())}, indent=1) + "\n").encode())
    for name, data in files.items():
        folder.write(name, data)


def _recorded(folder: Folder) -> set[str]:
    try:
        return set(json.loads(folder.read(RECORD))["files"])
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}/{RECORD} is not a list of files that a job wrote ({error}): use another --output"
        ) from error
