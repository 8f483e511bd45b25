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
    """System calls that libc has no functions for."""

    def __init__(self) -> None:
        numbers = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}.get(platform.machine())
        if numbers is None:
            raise OSError(f"the numbers of asynchronous I/O are not known for {platform.machine()}")
        self._setup, self._destroy, self._get_events, self._submit = numbers
        # Declared types spare a wrapper around each argument of each call.
        libc = ctypes.CDLL(None, use_errno=True)
        number, word, pointer = ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p

        def declare(*arguments: type) -> Callable[..., int]:
            return ctypes.CFUNCTYPE(ctypes.c_long, number, *arguments, use_errno=True)(("syscall", libc))

        self._call_setup, self._call_destroy = declare(ctypes.c_uint, pointer), declare(word)
        self._call_submit = declare(word, number, pointer)
        self._call_get_events = declare(word, number, number, pointer, pointer)

    def setup(self, requests: int) -> int:
        """A context for so many requests."""
        context = ctypes.c_ulong(0)
        _checked(self._call_setup(self._setup, requests, ctypes.addressof(context)))
        return context.value

    def destroy(self, context: int) -> None:
        """Waits for its requests."""
        _checked(self._call_destroy(self._destroy, context))

    def submit(self, context: int, requests: int) -> None:
        """One request, from the address of its address."""
        if self._call_submit(self._submit, context, 1, requests) < 0:
            _checked(-1)

    def get_events(self, context: int, most: int, events: int) -> int:
        """How many events were written to that address; it does not wait."""
        count = self._call_get_events(self._get_events, context, 0, most, events, None)
        return count if count >= 0 else _checked(count)


def _checked(result: int) -> int:
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
        self._calls = _Calls()
        self._context = self._calls.setup(_REQUESTS)
        self._request = ctypes.create_string_buffer(_IOCB.size)
        self._requests = (ctypes.c_void_p * 1)(ctypes.addressof(self._request))
        self._requests_at = ctypes.addressof(self._requests)
        self._events = ctypes.create_string_buffer(_EVENT.size * _REQUESTS)
        self._events_at, self._events_view = ctypes.addressof(self._events), memoryview(self._events)
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
            self._calls.submit(self._context, self._requests_at)
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
            self._calls.destroy(self._context)
            os.close(self._wake)

    def _completed(self, _: int) -> None:
        os.eventfd_read(self._wake)
        count = self._calls.get_events(self._context, _REQUESTS, self._events_at)
        # A list: `close` may be called from there, which comes here again.
        for serial, _request, result, _more in list(_EVENT.iter_unpack(self._events_view[: count * _EVENT.size])):
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
