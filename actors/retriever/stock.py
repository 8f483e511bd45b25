"""What a round keeps: the sink that its sources write to, and what is on record and on disk already.

What is kept is told in batches, each after it is durable; what a killed process has left on disk is found again by the
names of the files.
"""

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from actors.retriever.identity import Identity, NotDicomError, identify
from actors.retriever.outcome import Kept
from actors.retriever.shelf import INSTANCES, RESOURCES, Shelf, instance_path
from actors.retriever.sources.base import PausedError, StoppedError
from protocol.errors import StorageError
from protocol.inference import Selection
from protocol.ledger import Retrieval, pages
from protocol.spool import Part, payload_name

_LARGE_BYTES = 4 * 1024 * 1024 * 1024  # of one instance
_BATCH = 200
_BATCH_SECONDS = 1.0
_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))


class Stock:
    """The files of one request, for the thread of its round.

    Args:
        job_id: the request's job.
        shelf: where they lie.
        tags: elements that are put on record of each instance.
        stopped: whether to stop; asked often.
        has_room: whether new data may come in.
        report: told what is durable.
    """

    def __init__(
        self,
        *,
        job_id: str,
        shelf: Shelf,
        tags: Sequence[str],
        stopped: Callable[[], bool],
        has_room: Callable[[], bool],
        report: Callable[[list[Kept]], None],
    ) -> None:
        self._job_id = job_id
        self._shelf = shelf
        self._tags = tags
        self._stopped = stopped
        self._has_room = has_room
        self._report = report
        self.left_out: Callable[[str], None] = lambda _: None  # told why something that came is not kept
        self._have: set[str] = set()
        self._batch: list[Kept] = []
        self._flushed = time.monotonic()
        self.source = 0
        self.kept = 0
        self.matched = 0  # instances that came and were asked for, those among them that were there already

    def open(self, resources: Collection[str]) -> None:
        """Find what is on disk, and put on record what a killed process could not.

        Args:
            resources: file names of the FHIR resources that are wanted.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
            OSError, StorageError: as the file system says.
        """
        self._shelf.open()
        on_record: set[str] = set()
        for page in pages(
            Retrieval.select(Retrieval.retrieval_id, Retrieval.path).where(Retrieval.job_id == self._job_id),
            Retrieval.retrieval_id,
        ):
            on_record |= {row.path for row in page}
        names = {f"{RESOURCES}/{name}" for name in resources}
        for path, size in self._shelf.files().items():
            if path in on_record:
                self._have.add(path)
            elif path.startswith(INSTANCES):
                try:
                    self._enter(identify(self._shelf.home / path, self._tags), size)
                except NotDicomError:
                    os.unlink(self._shelf.home / path)
            elif path in names:
                self._put(Kept(path=path, name=path, size=size, retrieved_ns=time.time_ns()))
        self.flush()

    def close(self) -> None:
        """Tell what is not told yet, and remove what is in transit.

        Raises:
            StorageError: what is not told may not be durable.
        """
        try:
            self.flush()
        finally:
            self._shelf.close()

    def has_resource(self, name: str) -> bool:
        """Whether a FHIR resource is there already."""
        return f"{RESOURCES}/{name}" in self._have

    def keep_resource(self, name: str, data: bytes) -> None:
        """Keep a FHIR resource. Raises as `take`."""
        path = f"{RESOURCES}/{name}"
        size = self._shelf.keep(self._write([data]), path)
        self._put(Kept(path=path, name=path, size=size, source=self.source, retrieved_ns=time.time_ns()))

    def has(self, sop_instance_uid: str) -> bool:
        """Whether an instance is there already."""
        return instance_path(sop_instance_uid) in self._have

    def check(self) -> None:
        """Look whether to go on."""
        if self._stopped():
            raise StoppedError("the retriever ends, or the request was given up")
        if not self._has_room():
            raise PausedError("intake is paused: there is no space")

    def take(self, chunks: Iterable[bytes], selection: Selection) -> None:
        """Write a DICOM file and keep it, if it is of the selection."""
        self.check()
        part = self._write(chunks)
        try:
            identity = identify(part.path, self._tags)
        except NotDicomError as error:
            self.left_out(f"a part that it sent is left out: {error}")
            part.discard()
            return
        except BaseException:
            part.discard()
            raise
        if not self._wants(identity, selection):
            part.discard()
            return
        self._enter(identity, self._shelf.keep(part, instance_path(identity.sop_instance_uid)))

    def take_file(self, path: Path, selection: Selection, *, counted: bool = False) -> bool:
        """Take over a file that lies in the spool durably."""
        try:
            identity = identify(path, self._tags)
        except NotDicomError as error:
            self.left_out(f"an object that it sent is left out: {error}")
            return False
        if not self._wants(identity, selection):
            return False
        self._enter(identity, self._shelf.adopt(path, instance_path(identity.sop_instance_uid)), counted=counted)
        return True

    def _wants(self, identity: Identity, selection: Selection) -> bool:
        asked_for = (
            identity.study_uid == selection.study_uid
            and selection.series_uid in ("", identity.series_uid)
            and (not selection.sop_instance_uids or identity.sop_instance_uid in selection.sop_instance_uids)
        )
        if not asked_for:
            self.left_out("it sent an instance that was not asked for, which is left out")
        self.matched += asked_for
        return asked_for and not self.has(identity.sop_instance_uid)

    def _write(self, chunks: Iterable[bytes]) -> Part:
        """A part with all that came.

        Raises:
            PausedError, StoppedError, StorageError: and whatever `chunks` raises; nothing is left of it.
        """
        try:
            part = self._shelf.open_part()
        except OSError as error:
            raise _storage_error(error) from error
        try:
            size = 0
            for chunk in chunks:
                if self._stopped() or size > _LARGE_BYTES:
                    self.check()  # what has begun is finished without room for more, if it ends
                _write_all(part.fd, chunk)
                size += len(chunk)
        except OSError as error:
            part.discard()
            raise _storage_error(error) from error
        except BaseException:
            part.discard()
            raise
        return part

    def _enter(self, identity: Identity, size: int, *, counted: bool = False) -> None:
        uid = identity.sop_instance_uid
        self._put(
            Kept(
                path=instance_path(uid),
                name=payload_name(identity.patient_id, identity.study_uid, identity.series_uid, uid),
                size=size,
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                sop_instance_uid=uid,
                attributes=identity.attributes,
                source=self.source,
                retrieved_ns=time.time_ns(),
                counted=counted,
            )
        )

    def _put(self, kept: Kept) -> None:
        self._have.add(kept.path)
        self._batch.append(kept)
        self.kept += 1
        if len(self._batch) >= _BATCH or time.monotonic() - self._flushed >= _BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make durable what was kept, and tell of it.

        Raises:
            StorageError: it may not be durable.
        """
        self._flushed = time.monotonic()
        if self._batch:
            self._shelf.sync()
            batch, self._batch = self._batch, []
            self._report(batch)


def _storage_error(error: OSError) -> PausedError | StorageError:
    if error.errno in _NO_SPACE:
        return PausedError("there is no space")
    return StorageError(f"a retrieved file could not be written: {error.strerror}")


def _write_all(fd: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest) :]
