"""Syncs files without waiting for them: the kernel's asynchronous I/O, or threads where that is missing.

The receive loop asks for a sync and goes on; it is called back when the disk has answered. The kernel's own queue
(io_submit(2), since Linux 4.18 for syncs) is worth its few lines: threads that come back from the disk take the
interpreter's lock from the loop several times an object.
"""

import ctypes
import os
import platform
import queue
import select
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from actors.actor import Actor

Done = Callable[[OSError | None], None]

_REQUESTS = 256  # in the kernel at a time
_THREADS = 4


class Syncer(Protocol):
    """Brings files to stable storage."""

    def sync(self, fd: int, done: Done, *, data_only: bool) -> None:
        """Sync a file or directory; it stays open until `done` was called in the loop, with an error or None.

        Args:
            fd: of the file or directory.
            done: told of the end.
            data_only: as fdatasync(2) does, and not fsync(2).
        """

    def close(self, seconds: float) -> None:
        """Wait for what was asked for, but not longer than so many seconds, and end."""


def open_syncer(loop: Actor) -> Syncer:
    """The best that this system has.

    Args:
        loop: calls back in its turns.
    """
    try:
        return KernelSyncer(loop)
    except OSError:
        return ThreadSyncer(loop)


# linux/aio_abi.h: struct iocb and struct io_event.
_IOCB = struct.Struct("=QIIHhIQQqQII")
_EVENT = struct.Struct("=QQqq")
_FSYNC, _FDSYNC, _WITH_EVENTFD = 2, 3, 1


class _Calls:
    """Numbers of the system calls, by machine: libc has no functions for them."""

    def __init__(self) -> None:
        numbers = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}.get(platform.machine())
        if numbers is None:
            raise OSError(f"the numbers of asynchronous I/O are not known for {platform.machine()}")
        self.setup, self.destroy, self.get_events, self.submit = numbers
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def __call__(self, number: int, *arguments: object) -> int:
        result: int = self._syscall(ctypes.c_long(number), *arguments)
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result


class KernelSyncer:
    """Syncs by asynchronous I/O of the kernel; an event descriptor wakes the loop.

    Args:
        loop: see `open_syncer`.

    Raises:
        OSError: this system has none, or no more of it.
    """

    def __init__(self, loop: Actor) -> None:
        self._loop = loop
        self._call = _Calls()
        context = ctypes.c_ulong(0)
        self._call(self._call.setup, ctypes.c_uint(_REQUESTS), ctypes.byref(context))
        self._context = context
        self._request = ctypes.create_string_buffer(_IOCB.size)
        self._requests = (ctypes.c_void_p * 1)(ctypes.addressof(self._request))
        self._events = ctypes.create_string_buffer(_EVENT.size * _REQUESTS)
        self._running: dict[int, Done] = {}
        self._waiting: deque[tuple[int, Done, bool]] = deque()
        self._serial = 0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.watch(self._wake, self._completed)

    def sync(self, fd: int, done: Done, *, data_only: bool) -> None:
        """See `Syncer`."""
        if len(self._running) >= _REQUESTS:
            self._waiting.append((fd, done, data_only))
            return
        self._serial += 1
        operation = _FDSYNC if data_only else _FSYNC
        # data, key, flags, operation, priority, file, buffer, length, offset, reserved, flags, event descriptor
        _IOCB.pack_into(self._request, 0, self._serial, 0, 0, operation, 0, fd, 0, 0, 0, 0, _WITH_EVENTFD, self._wake)
        self._running[self._serial] = done
        try:
            self._call(self._call.submit, self._context, ctypes.c_long(1), self._requests)
        except OSError as error:
            failure = error
            del self._running[self._serial]
            self._loop.post(lambda: done(failure))

    def close(self, seconds: float) -> None:
        """See `Syncer`."""
        deadline = time.monotonic() + seconds
        while self._running and (left := deadline - time.monotonic()) > 0:
            if select.select([self._wake], [], [], left)[0]:
                self._completed(0)
        self._loop.unwatch(self._wake)
        if not self._running:
            self._call(self._call.destroy, self._context)
            os.close(self._wake)

    def _completed(self, _: int) -> None:
        os.eventfd_read(self._wake)
        count = self._call(
            self._call.get_events,
            self._context,
            ctypes.c_long(0),
            ctypes.c_long(_REQUESTS),
            self._events,
            ctypes.c_void_p(None),
        )
        for serial, _request, result, _more in list(_EVENT.iter_unpack(self._events.raw[: count * _EVENT.size])):
            done = self._running.pop(serial)
            done(OSError(-result, os.strerror(-result)) if result < 0 else None)
        while self._waiting and len(self._running) < _REQUESTS:
            fd, done, data_only = self._waiting.popleft()
            self.sync(fd, done, data_only=data_only)


class ThreadSyncer:
    """Syncs by a few threads.

    Args:
        loop: see `open_syncer`.
    """

    def __init__(self, loop: Actor) -> None:
        self._loop = loop
        self._tasks: queue.SimpleQueue[tuple[int, Done, bool] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, daemon=True, name="sync") for _ in range(_THREADS)]
        self._running = 0
        for thread in self._threads:
            thread.start()

    def sync(self, fd: int, done: Done, *, data_only: bool) -> None:
        """See `Syncer`."""
        self._running += 1
        self._tasks.put((fd, done, data_only))

    def close(self, seconds: float) -> None:
        """See `Syncer`."""
        deadline = time.monotonic() + seconds
        while self._running and (left := deadline - time.monotonic()) > 0:
            self._loop.turn(left)
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            fd, done, data_only = task
            error = None
            try:
                (os.fdatasync if data_only else os.fsync)(fd)
            except OSError as caught:
                error = caught
            self._loop.post(self._ended(done, error))

    def _ended(self, done: Done, error: OSError | None) -> Callable[[], None]:
        def end() -> None:
            self._running -= 1
            done(error)

        return end
