"""A host process in the actor's main loop: requests go out and answers come in without anything waiting for them."""

import contextlib
import logging
import os
import select
import socket
from collections.abc import Callable
from typing import Protocol

import msgspec

from protocol import messages
from protocol.logs import EventLogger
from protocol.messages import Message
from protocol.plugins import limits
from protocol.plugins.calls import Frames, FromHost, Load, frame
from protocol.plugins.process import HostProcess

_READ_BYTES = 1 << 18
_OUTPUT_BYTES = 1 << 16


class Timed(Protocol):
    """Something that will happen."""

    def cancel(self) -> None:
        """Not any more."""


class Loop(Protocol):
    """What is needed of the actor."""

    def watch(self, fd: int, callback: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call back when a descriptor is ready."""

    def rewatch(self, fd: int, events: int) -> None:
        """Wait for other events of it."""

    def unwatch(self, fd: int) -> None:
        """Forget it."""

    def after(self, seconds: float, callback: Callable[[], None]) -> Timed:
        """Call once after so many seconds."""


class Hosted:
    """One host, from its start to its end.

    Args:
        load: what it is asked first.
        loop: the actor.
        log: where what it prints is told, at Debug.
        heard: called with each message of it.
        failed: called once, with the reason, when it ends before `close`, or is late; it is of no use after that.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(
        self,
        load: Load,
        loop: Loop,
        log: EventLogger,
        *,
        heard: Callable[[Message], None],
        failed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._heard = heard
        self._failed = failed
        self._frames = Frames(messages.decoder(FromHost))
        self._outgoing = bytearray()
        self._deadline: Timed | None = None
        self._over = False
        self._output = -1
        self._process = self._start(load.name, load.ae_title)
        self._connection = self._process.connection
        self._connection.setblocking(False)
        loop.watch(self._connection.fileno(), self._ready)
        loop.watch(self._process.pidfd, self._ended)
        self.ask(load, limits.LOAD_SECONDS)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, request: Message, seconds: float) -> None:
        """Send a request; it fails when there was no `progress`, `answered` or `close` for so many seconds."""
        self.send(request)
        self.progress(seconds)

    def send(self, message: Message) -> None:
        """Send something that has no time limit of its own."""
        self._outgoing += frame(message)
        self._flush()

    def progress(self, seconds: float) -> None:
        """It has so many seconds from now."""
        self.answered()
        self._deadline = self._loop.after(seconds, lambda: self._late(seconds))

    def answered(self) -> None:
        """Nothing is waited for."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def close(self) -> None:
        """End it; `failed` is not called."""
        if not self._over:
            self._over = True
            self._hang_up()

    def _start(self, name: str, ae_title: str) -> HostProcess:
        """What it prints is read only when somebody wants to see it, so that it cannot flood this process."""
        if not self._log.enabled(logging.DEBUG):
            return HostProcess(name, ae_title)
        self._output, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(writing, True)
            process = HostProcess(name, ae_title, writing)
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(writing)
        self._loop.watch(self._output, self._printed)
        return process

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT and not self._read():
            # Ending, or as good as: then its pidfd tells how.
            self._hang_up()

    def _flush(self) -> None:
        try:
            del self._outgoing[: self._connection.send(self._outgoing, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            pass
        except OSError:
            return  # it is ending, which its pidfd tells
        if not self._over:
            more = select.EPOLLOUT if self._outgoing else 0
            self._loop.rewatch(self._connection.fileno(), select.EPOLLIN | more)

    def _read(self) -> bool:
        """Take what has come; False when nothing will come any more."""
        try:
            data = self._connection.recv(_READ_BYTES)
            heard = list(self._frames.feed(data))
        except BlockingIOError:
            return True
        except OSError:
            return False
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._fail("it said what nobody understands")
            return True
        for message in heard:
            if not self._over:
                self._heard(message)
        return bool(data)

    def _late(self, seconds: float) -> None:
        self._fail(f"it did not answer in {seconds:g} s")

    def _ended(self, _: int) -> None:
        with contextlib.suppress(OSError):
            while not self._over and self._connection.recv(1, socket.MSG_PEEK):
                self._read()  # what it said last
        was_over, self._over = self._over, True
        self._hang_up()
        self._loop.unwatch(self._process.pidfd)
        how = self._process.reap()
        if self._output >= 0:
            self._printed(0)
            self._loop.unwatch(self._output)
            os.close(self._output)
        if not was_over:
            self._failed(f"it {how}")

    def _fail(self, reason: str) -> None:
        if not self._over:
            self.close()
            self._failed(reason)

    def _hang_up(self) -> None:
        """What it started goes with it; its end is collected when its pidfd tells of it."""
        self.answered()
        self._loop.unwatch(self._connection.fileno())
        self._process.kill()

    def _printed(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            printed = os.read(self._output, _OUTPUT_BYTES)
            if not printed:
                self._loop.unwatch(self._output)  # its end would be told for ever
            for line in printed.decode("utf-8", "replace").splitlines():
                self._log.debug("job_processor_printed", pid=self.pid, text=line)
