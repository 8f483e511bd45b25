"""The durable write: complete objects become instances before they are answered.

A file is synced, renamed, and its directory synced; then, and not before, its sender hears of it. Many objects share a
directory's sync: while one runs, all that are renamed wait for the next, which takes them together (group commit).
"""

import ctypes
import os
from collections.abc import Sequence
from functools import partial

from actors.receiver.syncer import Syncer
from protocol import clock, killpoints
from protocol.spool import Part, ShardWriter

_SYNC_FILE_RANGE_WRITE = 2
_MOST_PIECES = 512  # of one writev; the system takes 1024

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Complete:
    """An object whose every byte was written, on its way to be an instance.

    Args:
        part: its file.
        size: bytes of the file.
    """

    __slots__ = ("error", "part", "size", "stored")

    def __init__(self, part: Part | None = None, size: int = 0) -> None:
        self.part = part
        self.size = size
        self.stored: clock.Moment | None = None
        self.error: OSError | None = None

    def answer(self) -> None:
        """Called in the loop when it was `stored`, or could not be (`error`)."""
        raise NotImplementedError


class Store:
    """Publishes complete objects.

    Args:
        writer: of this process.
        syncer: syncs files and directories.
    """

    def __init__(self, writer: ShardWriter, syncer: Syncer) -> None:
        self._writer = writer
        self._syncer = syncer
        self._named: dict[str, list[Complete]] = {}  # by shard: renamed, and waiting for the directory's next sync
        self._syncing: set[str] = set()  # shards whose directory is being synced
        self._directories: dict[str, int] = {}  # descriptors of the shard that is written to, and of those being synced

    def commit(self, complete: Complete, *, sync: bool) -> None:
        """Make an object an instance; its `answer` is called when it is one, or cannot be.

        Args:
            complete: the object.
            sync: whether it must be on stable storage first; without, it is answered before this returns.
        """
        assert complete.part
        if sync:
            self._syncer.sync(complete.part.fd, partial(self._data_synced, complete), data_only=True)
        elif self._name(complete):
            _answer([complete], None)

    def close(self, seconds: float) -> None:
        """Wait for what is under way, but not longer than so many seconds."""
        self._syncer.close(seconds)

    def _data_synced(self, complete: Complete, error: OSError | None) -> None:
        assert complete.part
        if error is not None:
            _answer([complete], error)
            return
        killpoints.reach("receiver.data-synced")
        if self._name(complete):
            killpoints.reach("receiver.renamed")
            shard = complete.part.shard
            self._named.setdefault(shard, []).append(complete)
            if shard not in self._syncing:
                self._sync_directory(shard)

    def _name(self, complete: Complete) -> bool:
        assert complete.part
        try:
            self._writer.name(complete.part)
        except OSError as error:
            _answer([complete], error)
            return False
        return True

    def _sync_directory(self, shard: str) -> None:
        group = self._named.pop(shard)
        fd = self._directories.get(shard)
        if fd is None:
            try:
                fd = self._open_directory(shard)
            except OSError as error:
                _answer(group, error)
                return
        self._syncing.add(shard)
        self._syncer.sync(fd, partial(self._directory_synced, shard, group), data_only=False)

    def _open_directory(self, shard: str) -> int:
        """Open a shard that will be synced many times; it stays open until there is another."""
        fd = self._writer.open_directory(shard)
        for past in [other for other in self._directories if other not in self._syncing]:
            os.close(self._directories.pop(past))
        self._directories[shard] = fd
        return fd

    def _directory_synced(self, shard: str, group: list[Complete], error: OSError | None) -> None:
        self._syncing.discard(shard)
        killpoints.reach("receiver.directory-synced")
        if shard in self._named:
            self._sync_directory(shard)
        elif shard != next(reversed(self._directories)):
            os.close(self._directories.pop(shard))  # another is written to by now
        _answer(group, error)


def _answer(group: list[Complete], error: OSError | None) -> None:
    now = clock.now()
    for complete in group:
        if error is None:
            complete.stored = now
        else:
            complete.error = error
        complete.answer()


def start_write_back(fd: int, offset: int, count: int) -> None:
    """Have the kernel begin to write some of a file to the disk, so that the sync at its end is short.

    It is a hint: a file system that cannot do it is as good.

    Args:
        fd: of the file.
        offset: where the range begins, in bytes.
        count: its length in bytes.
    """
    _libc.sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)


def write_all(fd: int, pieces: Sequence[memoryview | bytes]) -> int:
    """Write pieces one behind the other.

    Args:
        fd: of the file.
        pieces: what is written.

    Returns:
        How many bytes that was.

    Raises:
        OSError: as the file system says.
    """
    total = sum(map(len, pieces))
    written = os.writev(fd, pieces[:_MOST_PIECES]) if pieces else 0
    if written < total:
        # Full disks and interrupted calls end in the middle; what is left tells which it was.
        rest = memoryview(b"".join(pieces))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]
    return total
