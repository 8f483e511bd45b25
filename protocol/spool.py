"""What lies on disk: the spool's directories and names, the durable write, and the scan that finds it again.

    access.json                        the AE titles and sources that receivers admit by
    instances/SHARD/STEM.part          an object in transit
    instances/SHARD/STEM.dcm           an instance: synced, named, and its directory synced
    writers/WRITER.lock                held by a living process that may have .part files
    arrivals/SHARD/STEM.dcm            an instance that a C-MOVE of ours brought, until the retriever takes it
    moves.json                         the C-MOVEs from which receivers expect instances
    requests/JOB/dcm/UID.dcm           an instance that was retrieved for the job of an inference request
    requests/JOB/ehr/NAME              a FHIR resource
    platform/PAYLOAD/...               payloads and runs of the embedded platform

A shard is a directory that one writer fills for a short time; a stem is `{association}-{position}`. An
instance's identifier everywhere is `SHARD/STEM`.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from protocol.errors import CannotCreateError, ConfigurationError

FILE_MODE = 0o440
DIRECTORY_MODE = 0o750
UMASK = 0o027
SHARD_SECONDS = 60
SHARD_FILES = 4096
_FLOOR_SHARE = 0.01
_FLOOR_BYTES = 16 * 1024 * 1024
INSTANCE_SUFFIX = ".dcm"
REQUEST_DIRECTORIES = ("dcm", "ehr")  # of a request: instances, and FHIR resources
PART_SUFFIX = ".part"
_PART_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def floor_bytes(total_bytes: int) -> int:
    """How much of a file system stays free whatever is configured.

    Without it neither a directory nor a commit of the ledger finds room, so that what frees space could not go on.

    Args:
        total_bytes: of the file system, or of the quota.
    """
    return min(int(total_bytes * _FLOOR_SHARE), _FLOOR_BYTES)


def new_association_id() -> str:
    """A name for an association that sorts by time: 12 hexadecimal digits of milliseconds, 8 of chance."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(4)}"


def stem(association: str, position: int) -> str:
    """The file name, without suffix, of an association's object number `position` (from 1)."""
    return f"{association}-{position:06d}"


def association_of(name: str) -> str:
    """The association that a stem or a file name tells."""
    return name.partition("-")[0]


class Spool:
    """The paths below one root directory.

    Args:
        root: `storage.temporary`; must be one file system.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.instances = self.root / "instances"
        self.writers = self.root / "writers"
        self.platform = self.root / "platform"
        self.requests = self.root / "requests"
        self.access = self.root / "access.json"
        self.moves = self.root / "moves.json"

    def arrivals(self) -> "Spool":
        """What C-MOVEs of ours brought, as a spool whose instances these are."""
        spool = Spool(self.root)
        spool.instances = self.root / "arrivals"
        return spool

    def create(self) -> None:
        """Make the directories that are missing.

        Raises:
            CannotCreateError: one cannot be made or written.
        """
        arrivals = self.arrivals().instances
        for directory in (self.root, self.instances, self.writers, self.platform, self.requests, arrivals):
            try:
                directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
                if not os.access(directory, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except OSError as error:
                raise CannotCreateError(
                    f"the storage directory {directory} cannot be used ({error.strerror}): make it writable for "
                    "the user that runs dicom-adapter, or set DicomAdapter.storage.temporary to another place"
                ) from error
        sync_directory(self.root)

    def lock(self) -> int:
        """Claim the spool for one supervisor; returns the descriptor that holds the claim.

        Raises:
            ConfigurationError: another supervisor has it.
        """
        fd = os.open(self.root / "spool.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise ConfigurationError(
                f"the storage directory {self.root} is in use by another dicom-adapter (process {holder}): stop "
                "that one, or set DicomAdapter.storage.temporary to another place"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd

    def instance_path(self, identifier: str) -> str:
        """The file of the instance `SHARD/STEM`."""
        return f"{self.instances}/{identifier}{INSTANCE_SUFFIX}"

    def open_shards(self, sealed: Collection[str]) -> list[str]:
        """Names of the shards that are not in `sealed`, oldest first."""
        return sorted(name for name in os.listdir(self.instances) if name not in sealed)

    def list_shard(self, shard: str) -> tuple[list[str], list[str]]:
        """Identifiers of the instances of a shard, and of what is in transit there; both empty when it is gone."""
        instances: list[str] = []
        transit: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.instances / shard):
                if name.endswith(INSTANCE_SUFFIX):
                    instances.append(f"{shard}/{name[: -len(INSTANCE_SUFFIX)]}")
                elif name.endswith(PART_SUFFIX):
                    transit.append(f"{shard}/{name[: -len(PART_SUFFIX)]}")
        return instances, transit

    def remove_dead_parts(self) -> int:
        """Delete what dead writers had in transit; several processes may do so at once. Returns how many files."""
        # Who lives is asked after the listing: a shard of a writer that is born meanwhile is not in it.
        shards = os.listdir(self.instances)
        return self.remove_parts(self.living_writers(), shards)

    def remove_parts(self, alive: Collection[str], shards: Iterable[str] | None = None) -> int:
        """Delete what was in transit in shards whose writer is not in `alive`; returns how many files."""
        removed = 0
        for shard in os.listdir(self.instances) if shards is None else shards:
            if writer_of(shard) in alive:
                continue
            for identifier in self.list_shard(shard)[1]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.instances}/{identifier}{PART_SUFFIX}")
                    removed += 1
        return removed

    def living_writers(self) -> set[str]:
        """Writers whose process is alive; the lock files of dead ones are deleted on the way."""
        alive = set()
        for name in os.listdir(self.writers):
            path = self.writers / name
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            except BlockingIOError:
                alive.add(name.removesuffix(".lock"))
            finally:
                os.close(fd)
        return alive


def writer_of(shard: str) -> str:
    """The writer that a shard's name tells."""
    return shard.split("-", 2)[1] if shard.count("-") == 2 else ""


class Part:
    """An object in transit: its open descriptor, and where it will stand."""

    __slots__ = ("fd", "identifier", "path", "shard")

    def __init__(self, fd: int, path: str, shard: str, identifier: str) -> None:
        self.fd = fd
        self.path = path
        self.shard = shard
        self.identifier = identifier

    def discard(self) -> None:
        """Close and delete it; nothing was promised about it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class ShardWriter:
    """Makes new files in the spool for one process, and publishes them.

    `open_part` belongs to one thread; `sync` and `publish` may run in others.

    Args:
        spool: where.
        kind: a short word for the process, in the names (letters and digits only).
    """

    def __init__(self, spool: Spool, kind: str) -> None:
        self._spool = spool
        self._instances = str(spool.instances)
        self.writer = f"{kind}_{secrets.token_hex(4)}"
        if not re.fullmatch(r"[a-z0-9_]+", self.writer):
            raise ValueError(f"a writer's kind is letters and digits, not {kind!r}")
        self._lock_fd = self._hold_lock()
        self._shard = ""
        self._shard_ends = 0.0
        self._shard_files = 0
        self._serial = 0

    def _hold_lock(self) -> int:
        path = self._spool.writers / f"{self.writer}.lock"
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # A sweep of dead writers may have unlinked it between the two calls.
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(fd).st_ino == os.stat(path).st_ino:
                    return fd
            os.close(fd)

    def open_part(self, association: str, position: int) -> Part:
        """Open a new object in transit.

        Raises:
            OSError: as the file system says (no space, no inodes, an input/output error).
        """
        clock = time.monotonic()
        if clock >= self._shard_ends or self._shard_files >= SHARD_FILES:
            self._new_shard(clock)
        identifier = f"{self._shard}/{stem(association, position)}"
        path = f"{self._instances}/{identifier}{PART_SUFFIX}"
        try:
            fd = os.open(path, _PART_FLAGS, FILE_MODE)
        except FileNotFoundError:
            # The shard was empty long enough to be reclaimed.
            self._new_shard(clock)
            return self.open_part(association, position)
        self._shard_files += 1
        return Part(fd, path, self._shard, identifier)

    def _new_shard(self, clock: float) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self._serial += 1
        shard = f"{stamp}-{self.writer}-{self._serial:04d}"
        os.mkdir(self._spool.instances / shard, DIRECTORY_MODE)
        sync_directory(self._spool.instances)
        self._shard, self._shard_ends, self._shard_files = shard, clock + SHARD_SECONDS, 0

    def publish(self, parts: Iterable[Part], *, sync: bool = True) -> None:
        """Give synced objects their names and sync the directories that hold them.

        When it returns, each has its final name durably. Their descriptors are closed.

        Args:
            parts: objects whose data was synced (see `sync_file`).
            sync: False leaves the directories to the kernel (`storage.syncOnStore` off).

        Raises:
            OSError: none of these may be acknowledged; they are left to the recovery scan.
        """
        shards = set()
        for part in parts:
            self.name(part)
            shards.add(part.shard)
        if sync:
            for shard in shards:
                sync_directory(self._spool.instances / shard)

    def name(self, part: Part) -> None:
        """Close an object and give it its name, which stands only when its directory has been synced.

        Raises:
            OSError: it may not be acknowledged.
        """
        fd, part.fd = part.fd, -1
        os.close(fd)
        os.rename(part.path, f"{self._instances}/{part.identifier}{INSTANCE_SUFFIX}")

    def open_directory(self, shard: str) -> int:
        """A descriptor of a shard, to sync it.

        Raises:
            OSError: there are no more descriptors.
        """
        return os.open(f"{self._instances}/{shard}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Say that this writer has nothing in transit any more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._spool.writers / f"{self.writer}.lock")
        os.close(self._lock_fd)


def sync_file(fd: int) -> None:
    """Bring a file's data to stable storage.

    Raises:
        OSError: the data may be lost; never sync again and call it success (the kernel forgets the error).
    """
    os.fdatasync(fd)


def sync_directory(path: str | Path) -> None:
    """Bring a directory's entries to stable storage."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, data: bytes, mode: int = 0o640) -> None:
    """Replace a small file so that a reader, or a power cut, finds the old or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_directory(path.parent)


_UNSAFE = re.compile(r"[^A-Za-z0-9._^=+@ -]")


def clean_component(value: str) -> str:
    """One path component made from a value that a stranger chose: never empty, `.`, `..`, or a separator.

    Letters, digits and `. _ ^ = + @ -` stay, so that UIDs and most patient IDs are kept as they are.
    """
    cleaned = _UNSAFE.sub("_", value).strip(" ")[:128]
    if cleaned.strip(".") == "":
        return "_" * max(1, len(cleaned))
    return cleaned.lstrip("-") or "_"


def payload_name(patient_id: str, study_uid: str, series_uid: str, sop_uid: str) -> str:
    """The name of an instance in a payload: `dcm/{PatientID}/{StudyUID}/{SeriesUID}/{SOPUID}.dcm`."""
    parts = (clean_component(part) for part in (patient_id, study_uid, series_uid, sop_uid))
    return "dcm/" + "/".join(parts) + INSTANCE_SUFFIX


def walk_files(directory: Path) -> Iterator[Path]:
    """The files below a directory, in the order of their names; links are not followed."""
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False):
            yield from walk_files(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
