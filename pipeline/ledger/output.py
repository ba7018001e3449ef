"""The output folder of a job: its manifest, the files of each shard, and the commit markers that say which files count.

    manifest.json                          what the output is made from; written when the plan is, then frozen
    plan/part-00000.<plan>.parquet         every input with its shard (pipeline/ledger/plan.py)
    plan/append-00001.<output>.json        the first plan that a later run appended; written once, after its parts
    plan/append-00001.part-00000.<plan>.parquet
    <kind>/shard-000042.<attempt>.parquet  one attempt at a shard; kinds: bitstreams, metrics, images (restored)
    images/...                             restored images as files of their own, or in tars
    commits/shard-000042.json              names the attempt that counts, sizes and hashes; written last, once
    commits/shard-000042.retry-1.json      counts in its place, after a retry of quarantined images; and so on
    written/shard-000042/<attempt>.json    restored image files that an attempt is about to write
    verify/shard-000042.<run>.parquet      what the last verify job found wrong with a shard; output.<run>: other

A killed job leaves at most files that no marker names. Readers see committed files only, and a rerun goes on where the
markers end. A marker is never changed: a retry writes files of its own, kept rows included, and the next marker.

The folder may hold other people's files. A file is ours by its name, which carries a random id, or because it was
recorded before it was written; only these files are ever deleted or replaced.
"""

import hashlib
import itertools
import json
import re
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from pipeline.ledger.damage import DamagedFileError, check_committed, parsing
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Committed, CommittedFile, Marker, Stint, marker_name, stem_of
from pipeline.ledger.summary import Summary
from pipeline.storage.folder import (
    TEMPORARY_PREFIX,
    Folder,
    delete_many,
    hold_many,
    is_temporary,
    list_names,
    read_many,
)
from pipeline.storage.hashing import HashingReader, Readable
from pipeline.storage.opening import open_folder
from pipeline.storage.uris import check_name

_MANIFEST = "manifest.json"
ATTEMPT_KINDS = ("bitstreams", "metrics", "images")
"""Folders of what an attempt at a shard writes, as Parquet."""
_KINDS = ("plan", *ATTEMPT_KINDS, "commits", "written", "verify")
_PLAN_FILE = re.compile(r"plan/(?:append-(\d+)\.)?part-\d+\.([0-9a-f]{32})\.parquet")
_APPEND_FILE = re.compile(r"plan/append-(\d+)\.([0-9a-f]{32})\.json")
_RECORD = re.compile(r"[0-9a-f]{32}\.json")
_WRITTEN_FILE = re.compile(rf"written/shard-\d+/{_RECORD.pattern}")
_FINDINGS_FILE = re.compile(r"verify/(?:shard-\d+|output)\.[0-9a-f]{32}\.parquet")
_ATTEMPT_FILE = re.compile(rf"(?:{'|'.join(ATTEMPT_KINDS)})/shard-(\d+)(?:\.retry-(\d+))?\.([0-9a-f]{{32}})\.parquet")
_MARKERS_AT_ONCE = 1024  # are read, whatever their number
_MARKER_FILE = re.compile(r"shard-(\d+)(?:\.retry-(\d+))?\.json")


class OutputError(ValueError):
    """The output folder holds something that this job would not write."""


class Output:
    """The output folder of a job."""

    def __init__(self, uri: str) -> None:
        self.folder: Folder = open_folder(uri)
        self._commits = self.folder.child("commits")

    def __str__(self) -> str:
        return str(self.folder)

    def manifest(self) -> Manifest | None:
        """Read the manifest, or None if no job has begun.

        Raises:
            DamagedFileError: the file is not a manifest.
        """
        try:
            data = self.folder.read(_MANIFEST)
        except FileNotFoundError:
            return None
        with parsing(self, _MANIFEST):
            manifest = Manifest.from_json(data)
        return replace(manifest, plans=(*manifest.plans, *self._appended(manifest.id)))

    def begin(self, manifest: Manifest) -> Manifest:
        """Write the manifest unless another run did; return the one that is stored.

        Raises:
            OutputError: there are markers but no manifest that says of what, or files that no job wrote.
        """
        self.check_free()
        self.folder.create(_MANIFEST, _to_json(manifest.to_json()))
        return self._stored_manifest()

    def append(self, manifest: Manifest, plan: Plan) -> Manifest:
        """Write a plan behind those of a manifest unless another run did; return the manifest that is stored."""
        self.folder.create(f"plan/append-{len(manifest.plans):05d}.{manifest.id}.json", _to_json(asdict(plan)))
        return self._stored_manifest()

    def check_free(self) -> None:
        """Refuse to begin among other people's files: readers would take them for ours.

        Raises:
            OutputError: names a file that is in the way.
        """
        if self.manifest() is not None:
            return
        if self.committed():
            raise OutputError(f"{self} has commits but no {_MANIFEST}: empty the folder or use another")
        ours = self._written_names()
        foreign = next((name for name in self._files() if not self._is_ours(name, ours)), None)
        if foreign is not None:
            raise OutputError(
                f"{self} holds files that this job did not write, {foreign} for example: "
                "use another --output, or move them away"
            )

    def check_writable(self) -> None:
        """Write and delete a file, before a job does what takes long.

        Raises:
            OutputError: it cannot be written.
        """
        name = f"plan/{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            self.folder.write(name, b"")
        except OSError as error:
            raise OutputError(f"{self} cannot be written ({error}): use another --output, or see who may") from error
        with suppress(OSError):  # where nothing may be deleted the file stays: it is one of ours
            self.folder.delete(name)

    def committed(self) -> set[int]:
        """List the shards that are done."""
        return set(self._last_retries())

    def marker(self, shard: int, *, retry: int = 0) -> Marker | None:
        """Read the marker of a shard and retry, or None if that is not done."""
        name = marker_name(shard, retry)
        try:
            return self._parse_marker(name, self._commits.read(name))
        except FileNotFoundError:
            return None

    def markers(self) -> list[Marker]:
        """Read the markers that count of all shards that are done, in order."""
        return list(self.iter_markers())

    def iter_markers(self) -> Iterator[Marker]:
        """Read the same markers without holding them all."""
        for _, _, marker in self.try_markers():
            if isinstance(marker, DamagedFileError):
                raise marker
            yield marker

    def try_markers(self) -> Iterator[tuple[int, int, Marker | DamagedFileError]]:
        """Read the same markers, and the errors of damaged ones, each with its shard and retry."""
        numbers = iter(sorted(self._last_retries().items()))
        while group := list(itertools.islice(numbers, _MARKERS_AT_ONCE)):
            names = [marker_name(*number) for number in group]
            for number, name, data in zip(group, names, read_many(self._commits, names), strict=True):
                try:
                    yield *number, self._parse_marker(name, data)
                except DamagedFileError as error:
                    yield *number, error

    def give_back(self, shard: int, retry: int) -> None:
        """Delete the markers of a shard up to a retry: the next run of the job does the shard again.

        The last one goes last. Were it gone before the others, one of these would count, whose files are deleted.
        """
        for each in range(retry + 1):
            self._commits.delete(marker_name(shard, each))

    def clear_findings(self) -> None:
        """Delete what earlier verify jobs found."""
        delete_many(self.folder, filter(_FINDINGS_FILE.fullmatch, self._files(("verify",))))

    def up_to_date(self, seen: Committed) -> Committed:
        """Return what is committed by now: what was seen, or, where there is anything else, all of it read anew."""
        if seen.last_retries == self._last_retries():
            return seen
        anew = Committed()
        for marker in self.iter_markers():
            anew.add(marker)
        return anew

    def commit(
        self,
        shard: int,
        files: Mapping[str, bytes | Readable],
        summary: Summary,
        *,
        retry: int = 0,
        began: float | None = None,
        earlier: Sequence[Stint] = (),
    ) -> Marker:
        """Write the files of an attempt (kind -> content or open file), then its marker; return the stored marker.

        Where another attempt was faster its marker stands, and the files of this one are deleted. `began` is when this
        process took up the shard, by `time.monotonic`; `earlier` is the work in rows that were kept.
        """
        attempt = uuid.uuid4().hex
        stem = f"{stem_of(shard, retry)}.{attempt}"
        written = {kind: self._write(f"{kind}/{stem}.parquet", content) for kind, content in files.items()}
        stint = Stint.since(time.monotonic() if began is None else began)
        stored = self._create_marker(Marker(shard, attempt, written, summary, retry, (*earlier, stint)))
        if stored.attempt != attempt:
            delete_many(self.folder, (file.name for file in written.values()))
        return stored

    def sweep(self, committed: Committed) -> None:
        """Delete what killed runs left behind: attempts at committed shards that no marker names, temporary files.

        Attempts at shards without a marker stay: another run may be about to commit them.
        """
        manifest = self._stored_manifest()
        self._close_abandoned_retries(committed)
        left = (name for name in self._files() if self._is_left_behind(name, manifest, committed))
        delete_many(self.folder, itertools.chain(left, self._temporary_manifests()))

    def check_complete(self, committed: Committed) -> None:
        """Notice that files of committed shards are not there any more.

        Raises:
            DamagedFileError: names one.
        """
        left = dict(committed.num_files)
        for attempt in filter(None, map(_ATTEMPT_FILE.fullmatch, self._files(ATTEMPT_KINDS))):
            shard = int(attempt[1])
            if committed.attempts.get(shard, (0, ""))[1] == attempt[3]:
                left[shard] -= 1
        for shard in (shard for shard, num_files in left.items() if num_files > 0):
            if (marker := self.marker(shard, retry=committed.attempts[shard][0])) is not None:
                check_committed(self.folder, marker.files.values())

    def _close_abandoned_retries(self, committed: Committed) -> None:
        """Take the number of each retry that left files but no marker, so that its run, if it lives, comes too late.

        The marker that counts is written again under that number. One that another run has changed meanwhile is left
        alone, and so are the files.
        """
        for name in self._files(ATTEMPT_KINDS):
            attempt = _ATTEMPT_FILE.fullmatch(name)
            if attempt is None or (shard := int(attempt[1])) not in committed.attempts:
                continue
            last, counting = committed.attempts[shard]
            if int(attempt[2] or 0) <= last or attempt[3] == counting:
                continue
            marker = self.marker(shard, retry=last)
            if marker is not None and marker.attempt == counting:
                stored = self._create_marker(replace(marker, retry=last + 1))
                committed.attempts[shard] = stored.retry, stored.attempt

    def _is_left_behind(self, name: str, manifest: Manifest, committed: Committed) -> bool:
        """Return whether a file can be deleted: no marker or manifest names it and none ever will.

        Parts of an append whose number is not taken stay: another run may be about to write its plan.
        """
        if part := _PLAN_FILE.fullmatch(name):
            return int(part[1] or 0) < len(manifest.plans) and all(part[2] != plan.id for plan in manifest.plans)
        if append := _APPEND_FILE.fullmatch(name):
            return append[2] != manifest.id
        if is_temporary(name):
            return True
        attempt = _ATTEMPT_FILE.fullmatch(name)
        if attempt is None or (shard := int(attempt[1])) not in committed.attempts:
            return False
        last, counting = committed.attempts[shard]
        if attempt[3] == counting or int(attempt[2] or 0) > last:
            return False
        marker = self.marker(shard, retry=last)
        return marker is not None and marker.attempt == counting  # else another run began anew: the file may be its own

    def clear(self, job: str) -> None:
        """Delete all that an earlier run of this job wrote; the markers first, so that no half is taken for a whole.

        Files that no run wrote stay. The records of what was written go last: a killed deletion can be repeated.

        Raises:
            OutputError: the folder holds the output of another job.
        """
        stored = self.manifest()
        if stored is None:
            return
        if stored.job != job:
            raise OutputError(
                f"{self} holds the output of a {stored.job} job, which is not overwritten: use another folder"
            )
        delete_many(self._commits, filter(_MARKER_FILE.fullmatch, list_names(self._commits)))
        self.folder.delete(_MANIFEST)
        ours = self._written_names()
        delete_many(
            self.folder,
            (name for name in self._files() if self._is_ours(name, ours) and not _WRITTEN_FILE.fullmatch(name)),
        )
        delete_many(self.folder, filter(_WRITTEN_FILE.fullmatch, self._files(("written",))))

    def record_written(self, shard: int, names: Sequence[str]) -> set[str]:
        """Record restored files (names below `images/`) before they are written; return those that are foreign.

        A file is foreign that is there already and was not recorded by an earlier attempt at the shard.
        """
        records, images = self.folder.child(f"written/shard-{shard:06d}"), self.folder.child("images")
        ours = set(_read_records(records, filter(_RECORD.fullmatch, list_names(records))))
        unknown = [name for name in names if name not in ours]
        foreign = {name for name, is_there in zip(unknown, hold_many(images, unknown), strict=True) if is_there}
        if new := [name for name in unknown if name not in foreign]:
            records.write(f"{uuid.uuid4().hex}.json", json.dumps(new).encode())
        return foreign

    def _appended(self, output: str) -> list[Plan]:
        """Read the plans that later runs appended, in order."""
        found = filter(None, map(_APPEND_FILE.fullmatch, self._files(("plan",))))
        names = sorted(append[0] for append in found if append[2] == output)
        plans = []
        for number, (name, data) in enumerate(zip(names, read_many(self.folder, names), strict=True), start=1):
            with parsing(self, name):
                if not name.startswith(f"plan/append-{number:05d}."):
                    raise ValueError(f"append {number} is missing")
                plans.append(Plan.from_json(json.loads(data)))
        return plans

    def _stored_manifest(self) -> Manifest:
        if (stored := self.manifest()) is None:
            raise self._deleted()
        return stored

    def _last_retries(self) -> dict[int, int]:
        """List the shards that are done, each with the number of its last retry."""
        last: dict[int, int] = {}
        for match in filter(None, map(_MARKER_FILE.fullmatch, list_names(self._commits))):
            shard, retry = int(match[1]), int(match[2] or 0)
            last[shard] = max(retry, last.get(shard, 0))
        return last

    def _write(self, name: str, content: bytes | Readable) -> CommittedFile:
        """Write a file of an attempt; return what it holds."""
        if isinstance(content, bytes):
            self.folder.write(name, content)
            return CommittedFile(name, len(content), hashlib.sha256(content).hexdigest())
        file = HashingReader(content)
        self.folder.write_from(name, file)
        return CommittedFile(name, file.num_bytes, file.sha256)

    def _create_marker(self, marker: Marker) -> Marker:
        """Write a marker unless there is one of this shard and retry; return the one that is stored."""
        self._commits.create(marker_name(marker.shard, marker.retry), _to_json(asdict(marker)))
        if (stored := self.marker(marker.shard, retry=marker.retry)) is None:
            raise self._deleted()
        return stored

    def _parse_marker(self, name: str, data: bytes) -> Marker:
        with parsing(self, f"commits/{name}"):
            marker = Marker.from_json(data)
            if marker.name != name:
                raise ValueError(f"is of shard {marker.shard}, retry {marker.retry}")
            return marker

    def _deleted(self) -> OutputError:
        return OutputError(
            f"{self} was deleted or moved while the job wrote to it: what it wrote there is lost. Give the command "
            "again to begin anew, and leave the folder alone while a job runs"
        )

    def _files(self, kinds: Iterable[str] = _KINDS) -> Iterator[str]:
        for folder in kinds:
            for name in list_names(self.folder.child(folder)):
                yield f"{folder}/{name}"

    def _temporary_manifests(self) -> Iterator[str]:
        """Return what killed writes of the manifest left beside it."""
        beside = next(iter(self.folder.walk(enter=lambda _: False)), ())
        return filter(is_temporary, beside)

    def _written_names(self) -> set[str]:
        """Return the names of all restored image files that attempts recorded."""
        written = self.folder.child("written")
        records = (name for name in list_names(written) if _WRITTEN_FILE.fullmatch(f"written/{name}"))
        return {f"images/{name}" for name in _read_records(written, records)}

    @staticmethod
    def _is_ours(name: str, written: Collection[str]) -> bool:
        """Return whether a file was written by a run: by its name, or because it was recorded."""
        patterns = (_PLAN_FILE, _APPEND_FILE, _ATTEMPT_FILE, _WRITTEN_FILE, _FINDINGS_FILE)
        return name in written or is_temporary(name) or any(pattern.fullmatch(name) for pattern in patterns)


def findings_name(run: str, shard: int | None = None) -> str:
    """Return the name of the file of what a run of the verify job found wrong with a shard, or beside the shards."""
    return f"verify/{'output' if shard is None else stem_of(shard, 0)}.{run}.parquet"


def check_same(stored: Manifest, now: Manifest, *, output: Output) -> None:
    """Refuse to mix rows: what is stored must come from the same job with the same settings.

    Raises:
        OutputError: says what differs.
    """
    if stored.job != now.job:
        raise OutputError(
            f"{output} holds the output of a {stored.job} job, this is a {now.job} job: use another folder"
        )
    different = [
        f"{name} was {stored.settings.get(name)}, now {now.settings.get(name)}"
        for name in sorted({*stored.settings, *now.settings}, key=lambda name: (name.endswith("fingerprint"), name))
        if stored.settings.get(name) != now.settings.get(name)
    ]
    if different:
        raise OutputError(
            f"{output} was begun with other settings: {'; '.join(different)}. "
            "Use another --output, or --overwrite to delete what is there and begin again"
        )


def _read_records(folder: Folder, names: Iterable[str]) -> Iterator[str]:
    """Read the names of image files that records hold."""
    names = list(names)
    for name, data in zip(names, read_many(folder, names), strict=True):
        with parsing(folder, name):
            yield from map(check_name, json.loads(data))


def _to_json(value: Mapping[str, Any]) -> bytes:
    # A path that is not UTF-8 has surrogates, which JSON can escape.
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
