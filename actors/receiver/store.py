"""The durable write: complete objects become instances, several at a time, before they are answered.

A few threads wait for the disk, so that the receive loop does not. Whoever comes next takes all objects that are
pending (group commit): each file is synced, each is renamed, and each directory is synced once. Then, and not before,
the loop is told.
"""

import ctypes
import threading
from collections.abc import Callable, Sequence

from protocol import clock
from protocol.logs import EventLogger
from protocol.spool import Part, ShardWriter, sync_file

_THREADS = 3
_SYNC_FILE_RANGE_WRITE = 2

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
        self.error: Exception | None = None

    def answer(self) -> None:
        """Called in the loop when it was `stored`, or could not be (`error`)."""
        raise NotImplementedError


class Store:
    """Publishes complete objects.

    Args:
        writer: of this process.
        post: calls back in the receive loop; safe from any thread.
        log: told of what no part can be told.
    """

    def __init__(self, writer: ShardWriter, post: Callable[[Callable[[], None]], None], log: EventLogger) -> None:
        self._writer = writer
        self._post = post
        self._log = log
        self._pending: list[Complete] = []
        self._some = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, daemon=True, name=f"store {number}") for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def commit(self, complete: Complete, *, sync: bool) -> None:
        """Make an object an instance; its `answer` is called when it is one, or cannot be.

        Args:
            complete: the object.
            sync: whether it must be on stable storage first; without, it is answered before this returns.
        """
        if sync:
            with self._some:
                self._pending.append(complete)
                self._some.notify()
        else:
            self._publish([complete], sync=False)
            complete.answer()

    def close(self, seconds: float) -> None:
        """Commit what is pending, and end.

        Args:
            seconds: how long to wait for a disk that does not answer.
        """
        with self._some:
            self._closed = True
            self._some.notify_all()
        for thread in self._threads:
            thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._some:
                while not self._pending and not self._closed:
                    self._some.wait()
                if not self._pending:
                    return
                group, self._pending = self._pending, []
            self._commit_group(group)

    def _commit_group(self, group: Sequence[Complete]) -> None:
        for complete in group:
            assert complete.part
            try:
                sync_file(complete.part.fd)
            except OSError as error:
                complete.error = error
        self._publish([complete for complete in group if complete.error is None], sync=True)
        self._post(lambda: _answer(group))

    def _publish(self, group: Sequence[Complete], *, sync: bool) -> None:
        try:
            self._writer.publish([complete.part for complete in group if complete.part], sync=sync)
        except Exception as error:
            # Whatever it was: these are not stored, their senders must hear it, and this thread must live on.
            if not isinstance(error, OSError):
                self._log.unexpected("publishing_failed")
            for complete in group:
                complete.error = error
            return
        now = clock.now()
        for complete in group:
            complete.stored = now


def _answer(group: Sequence[Complete]) -> None:
    for complete in group:
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
