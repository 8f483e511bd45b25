"""The durable write: complete objects become instances before they are answered.

A file is synced, renamed, and its directory synced; then, and not before, its sender hears of it. Many objects share a
directory's sync (group commit), in one of two ways. Small ones that were completed in one turn of the loop are synced
when it ends, while the loop waits: their writes are under way by then, and they share blocks. Others, and all on a disk
that takes its time (`pace.py`), are synced beside each other: while a directory's sync runs, all that are renamed wait
for the next, which takes them together.
"""

import ctypes
import os
import time
from collections.abc import Sequence
from functools import partial

from actors.actor import Actor
from actors.receiver.pace import Pace
from actors.receiver.syncer import Syncer
from protocol import clock, killpoints
from protocol.spool import Part, ShardWriter

_SYNC_FILE_RANGE_WRITE = 2
_MOST_PIECES = 512  # of one writev; the system takes 1024
_SMALL_BYTES = 64 * 1024  # as LEAST_DIRECT of native/lane.h: what is larger is worth the kernel's threads
_MOST_TOGETHER = 32  # after so many, other work of the loop has its turn

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
        syncer: syncs files and directories beside the loop.
        loop: whose turns end; see `Actor.post`.
        pace: tells whether it may wait for the disk.
    """

    def __init__(self, writer: ShardWriter, syncer: Syncer, loop: Actor, pace: Pace) -> None:
        self._writer = writer
        self._syncer = syncer
        self._loop = loop
        self._pace = pace
        self._turn: list[Complete] = []  # small ones, completed in this turn
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
        if not sync:
            if self._name(complete):
                _answer([complete], None)
        elif complete.size < _SMALL_BYTES and self._pace.may_wait:
            start_write_back(complete.part.fd, 0, complete.size)
            if not self._turn:
                self._loop.post(self._end_turn)
            self._turn.append(complete)
        else:
            self._syncer.sync(complete.part.fd, partial(self._data_synced, complete), data_only=True)

    def close(self, seconds: float) -> None:
        """Wait for what is under way, but not longer than so many seconds."""
        while self._turn:
            self._end_turn()
        self._syncer.close(seconds)

    def _end_turn(self) -> None:
        """Sync together what was completed in it."""
        group, self._turn = self._turn[:_MOST_TOGETHER], self._turn[_MOST_TOGETHER:]
        if self._turn:
            self._loop.post(self._end_turn)
        start = time.monotonic()
        # All files before the first name: a name between two of them would be written twice.
        synced = [complete for complete in group if _has_data(complete, _sync_data(complete))]
        named: dict[str, list[Complete]] = {}
        for complete in synced:
            self._name_among(named, complete)
        failures = {shard: self._sync_directory_now(shard) for shard in named}
        waited = time.monotonic() - start
        for _ in group:
            self._pace.waited(waited / len(group))
        for shard, those in named.items():
            _answer_named(those, failures[shard])

    def _sync_directory_now(self, shard: str) -> OSError | None:
        try:
            os.fsync(self._directory(shard))
        except OSError as error:
            return error
        return None

    def _data_synced(self, complete: Complete, error: OSError | None) -> None:
        assert complete.part
        if _has_data(complete, error) and self._name_among(self._named, complete):
            shard = complete.part.shard
            if shard not in self._syncing:
                self._sync_directory(shard)

    def _name_among(self, named: dict[str, list[Complete]], complete: Complete) -> bool:
        """Name an object whose data is on the disk, and note it by its shard; False when it got no name."""
        assert complete.part
        if not self._name(complete):
            return False
        killpoints.reach("receiver.renamed")
        named.setdefault(complete.part.shard, []).append(complete)
        return True

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
        try:
            fd = self._directory(shard)
        except OSError as error:
            _answer(group, error)
            return
        self._syncing.add(shard)
        self._syncer.sync(fd, partial(self._directory_synced, shard, group), data_only=False)

    def _directory(self, shard: str) -> int:
        """A descriptor of a shard, which will be synced many times; it stays open until there is another."""
        if shard in self._directories:
            return self._directories[shard]
        fd = self._writer.open_directory(shard)
        for past in [other for other in self._directories if other not in self._syncing]:
            os.close(self._directories.pop(past))
        self._directories[shard] = fd
        return fd

    def _directory_synced(self, shard: str, group: list[Complete], error: OSError | None) -> None:
        self._syncing.discard(shard)
        if shard in self._named:
            self._sync_directory(shard)
        elif shard != next(reversed(self._directories)):
            os.close(self._directories.pop(shard))  # another is written to by now
        _answer_named(group, error)


def _sync_data(complete: Complete) -> OSError | None:
    assert complete.part
    try:
        os.fdatasync(complete.part.fd)
    except OSError as error:
        return error
    return None


def _has_data(complete: Complete, error: OSError | None) -> bool:
    """Whether its data is on the disk; otherwise it is answered so."""
    if error is not None:
        _answer([complete], error)
        return False
    killpoints.reach("receiver.data-synced")
    return True


def _answer_named(group: list[Complete], error: OSError | None) -> None:
    """Their directory's sync has ended."""
    killpoints.reach("receiver.directory-synced")
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
