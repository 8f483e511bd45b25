"""A request's directory in the spool: what is retrieved takes the durable way of what is received.

    requests/JOB/NUMBER.part      a file that is being retrieved
    requests/JOB/dcm/UID.dcm      an instance: synced, named, and its directory synced
    requests/JOB/ehr/NAME         a FHIR resource

A file's name tells what it is, so that what a killed process left is known without its row.
"""

import contextlib
import os
import shutil
from pathlib import Path

from protocol import killpoints
from protocol.errors import StorageError
from protocol.spool import (
    DIRECTORY_MODE,
    FILE_MODE,
    INSTANCE_SUFFIX,
    PART_SUFFIX,
    REQUEST_DIRECTORIES,
    Part,
    Spool,
    sync_directory,
    sync_file,
)

INSTANCES, RESOURCES = REQUEST_DIRECTORIES


def instance_path(sop_instance_uid: str) -> str:
    """Where an instance is, below its request's directory."""
    return f"{INSTANCES}/{sop_instance_uid}{INSTANCE_SUFFIX}"


def is_instance(path: str) -> bool:
    """Whether a path below a request's directory is an instance's."""
    return path.startswith(f"{INSTANCES}/") and path.endswith(INSTANCE_SUFFIX)


def incoming(spool: Spool) -> Path:
    """Where objects of C-GETs are written before they are taken over."""
    return spool.requests / ".incoming"


def clear_incoming(spool: Spool) -> None:
    """Delete what C-GETs that broke off, or a killed process, have left."""
    shutil.rmtree(incoming(spool), ignore_errors=True)


class Shelf:
    """The directory of one request, for one thread.

    Args:
        spool: where it is.
        job_id: the request's job.
    """

    def __init__(self, spool: Spool, job_id: str) -> None:
        self.home = spool.requests / job_id
        self._parts = 0
        self._unsynced: set[str] = set()

    def open(self) -> None:
        """Make it, or take over what is there, without what was in transit.

        Raises:
            OSError: as the file system says.
        """
        for directory in (self.home, self.home / INSTANCES, self.home / RESOURCES):
            directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            sync_directory(directory.parent)
        for name in os.listdir(self.home):
            if name.endswith(PART_SUFFIX):
                os.unlink(self.home / name)
        # What a killed process has named may not be durable yet.
        self._unsynced = {INSTANCES, RESOURCES}
        self.sync()

    def files(self) -> dict[str, int]:
        """What is there: paths below the directory, and sizes."""
        found: dict[str, int] = {}
        for kind in (INSTANCES, RESOURCES):
            with os.scandir(self.home / kind) as entries:
                found |= {f"{kind}/{entry.name}": entry.stat(follow_symlinks=False).st_size for entry in entries}
        return found

    def open_part(self) -> Part:
        """A new file in transit.

        Raises:
            OSError: as the file system says.
        """
        self._parts += 1
        name = f"{self._parts:06d}"
        path = f"{self.home}/{name}{PART_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        return Part(fd, path, "", name)

    def keep(self, part: Part, path: str) -> int:
        """Sync a complete file and give it its name, which stands after `sync`; returns its size.

        Raises:
            StorageError: it is not kept.
        """
        killpoints.reach("retriever.part-written")
        try:
            sync_file(part.fd)
            size = os.fstat(part.fd).st_size
            fd, part.fd = part.fd, -1
            os.close(fd)
            self._name(part.path, path)
        except OSError as error:
            part.discard()
            raise StorageError(f"a retrieved file could not be kept: {error.strerror}") from error
        return size

    def adopt(self, source: Path, path: str) -> int:
        """Take a file over that is durable elsewhere in the spool, by its name; returns its size.

        Raises:
            OSError: as the file system says.
        """
        size = os.stat(source).st_size
        self._name(source, path)
        return size

    def _name(self, source: str | Path, path: str) -> None:
        os.rename(source, self.home / path)
        self._unsynced.add(path.partition("/")[0])
        killpoints.reach("retriever.named")

    def sync(self) -> None:
        """Make the names durable that were given since the last time.

        Raises:
            StorageError: they may not be.
        """
        try:
            for directory in self._unsynced:
                sync_directory(self.home / directory)
        except OSError as error:
            raise StorageError(f"retrieved files could not be kept: {error.strerror}") from error
        self._unsynced.clear()

    def close(self) -> None:
        """Remove what is in transit."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.home):
                if name.endswith(PART_SUFFIX):
                    os.unlink(self.home / name)
