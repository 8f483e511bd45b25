"""A peer's socket in the receive loop: receives, answers that wait until they can be sent, one deadline.

What is on its way from a near peer is kept so small that it is still in the processor's cache when it is received,
until large objects come, which go into their files through a pipe. Where objects are synced, a whole one may be on its
way, which its sender gets rid of while the disk has the one before.
An idle connection costs one timer. The timer is lazy: a deadline that moves away does not touch it; it looks again
when it fires. Only one that comes nearer sets it anew.
"""

import contextlib
import math
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from actors.actor import Actor
from actors.receiver.pipe import Pipe
from protocol.dimse.pdu import HEADER_LENGTH

_EPOLLIN, _EPOLLOUT = select.EPOLLIN, select.EPOLLOUT
_IPPROTO_TCP, _TCP_QUICKACK = socket.IPPROTO_TCP, socket.TCP_QUICKACK
# As tcp(7) has it, the system doubles this. It makes a window of some 128 kB, which on a way of 100 us is 10 Gbit/s.
_NEAR_BUFFER_BYTES = 64 * 1024
_NEAR_SYNCED_BUFFER_BYTES = 512 * 1024  # or what the system allows (net.core.rmem_max)
_NEAR_SECONDS = 100e-6
_SPLICING_BUFFER_BYTES = 256 * 1024  # of large objects more may be on its way: it is not copied out of the socket
_HEADERS_BYTES = 2 * HEADER_LENGTH  # of a P-DATA-TF, and of its first PDV
_ROUND_TRIP = struct.Struct("=68xI")  # tcpi_rtt of struct tcp_info, in us
_QUICK_ACKNOWLEDGEMENTS = 32.0
_STALL_SECONDS = 0.025  # an acknowledgement is delayed by 40 ms or more


class Owner(Protocol):
    """What a connection reports to."""

    def received(self, data: memoryview) -> None:
        """Bytes came; the memory holds until this returns."""

    def spliced(self, count: int) -> None:
        """So many bytes came, as planned by `splice`, and are in the pipe, which the owner empties."""

    def drained(self) -> None:
        """What had to wait was sent."""

    def lost(self, how: str) -> None:
        """The peer closed the connection, or it failed."""

    def time_is_up(self) -> None:
        """The deadline has passed."""


class Connection:
    """A connection that was accepted.

    Args:
        loop: watches it and keeps its timer.
        connection: the socket; it becomes non-blocking.
        buffer: receives go there, but those that are spliced.
        owner: what is told.
        seconds: the first deadline.
        synced: whether what comes is synced before it is answered.

    Attributes:
        fd: of the socket.
        failure: why a send failed; "" when none did.
        closed: whether it was closed.
    """

    def __init__(
        self,
        loop: Actor,
        connection: socket.socket,
        buffer: memoryview,
        owner: Owner,
        seconds: float,
        *,
        synced: bool = False,
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._buffer = buffer
        self._owner = owner
        self._out = bytearray()
        self._quick = _QUICK_ACKNOWLEDGEMENTS  # how many are left
        self._amid_since = 0.0  # that more must come; 0 when it need not, or is acknowledged at once
        self._near = False  # and has the small buffer, which large objects make larger
        self._pipe: Pipe | None = None  # the next receive is planned
        self._recall: Callable[[], None] | None = None  # another receives in its place
        self._fragment_left = 0
        self.failure = ""
        self.closed = False
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # it may be gone already, as its first receive will tell
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if _round_trip_seconds(connection) <= _NEAR_SECONDS:
                size = _NEAR_SYNCED_BUFFER_BYTES if synced else _NEAR_BUFFER_BYTES
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
                self._near = not synced
        self._deadline = time.monotonic() + seconds
        self._set_timer()
        self.fd = connection.fileno()
        loop.watch(self.fd, self.ready)

    @property
    def blocked(self) -> bool:
        """Whether the peer has not taken all that was sent; until it has, nothing is read from it."""
        return bool(self._out)

    @property
    def local(self) -> tuple[str, int]:
        """Our address and port."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def expect(self, seconds: float) -> None:
        """Move the deadline."""
        self.expect_at(time.monotonic() + seconds)

    def expect_at(self, deadline: float) -> None:
        """Set the deadline, by time.monotonic()."""
        self._deadline = deadline
        if deadline < self._timer_at:
            self._timer.cancel()
            self._set_timer()

    def expect_more(self, seconds: float) -> None:
        """Move the deadline for what the peer sends next, unless it has another one, for what it must read."""
        if not self._out:
            self.expect(seconds)

    def pause(self) -> None:
        """Read nothing for now."""
        self._loop.rewatch(self.fd, 0)

    def resume(self) -> None:
        """Read again."""
        self._loop.rewatch(self.fd, _EPOLLIN)

    def acknowledge(self) -> None:
        """More must come before there is anything to answer: acknowledge what came, if the peer may wait for that.

        A sender with Nagle's algorithm on holds its next bytes back until then, and the system delays it. So it is
        done at once at first, and again from when a peer that was left to the system made a pause. To others it would
        be work for nothing. The option does not stick.
        """
        if not self._quick:
            self._amid_since = time.monotonic()
            return
        self._quick -= 1.0
        try:  # noqa: SIM105 # it is on the way of each object
            self._socket.setsockopt(_IPPROTO_TCP, _TCP_QUICKACK, 1)
        except OSError:
            pass  # it is gone, as its next receive will tell

    def splice(self, pipe: Pipe, fragment_left: int) -> None:
        """Plan the next receive: what is left of a fragment goes into a pipe.

        Args:
            pipe: of this process.
            fragment_left: bytes; 0 between two fragments: the headers of the next are received, and no more.
        """
        self._pipe, self._fragment_left = pipe, fragment_left
        if self._near:
            self._near = False
            with contextlib.suppress(OSError):  # it is gone, as its next receive will tell
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SPLICING_BUFFER_BYTES)

    def send(self, data: bytes, seconds: float) -> bool:
        """Send, or keep until it can be sent.

        Args:
            data: to be sent.
            seconds: how long the peer may leave it unread.

        Returns:
            Whether it was sent at once.
        """
        if self.failure or self.closed:
            return False
        sent = 0
        if not self._out:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                pass
            except OSError as error:
                self.failure = lost_text(error.errno)
                return False
            if sent == len(data):
                return True
            self._loop.rewatch(self.fd, _EPOLLOUT)
            self.expect(seconds)
        self._out += data[sent:]
        return False

    def half_close(self) -> None:
        """Show the peer that nothing follows."""
        if not self._out:
            with contextlib.suppress(OSError):  # it may be gone already
                self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket."""
        self.closed = True
        self._pipe = None
        self._timer.cancel()
        self._loop.unwatch(self.fd)
        self._socket.close()

    def hand_over(self, ready: Callable[[int], None], recall: Callable[[], None]) -> tuple[float, float]:
        """Let another receive in its place.

        Args:
            ready: called with the events in the socket.
            recall: called before the deadline is judged: all must be given back then.

        Returns:
            How many acknowledgements are to be sent at once, and since when more must come (see `acknowledge`).
        """
        self._recall = recall
        self._loop.redirect(self.fd, ready)
        return self._quick, self._amid_since

    def take_back(self, quick: float, amid_since: float, deadline: float, *, is_amid_pdu: bool) -> None:
        """Receive again.

        Args:
            quick: how many acknowledgements are left to be sent at once.
            amid_since: since when more must come.
            deadline: by time.monotonic().
            is_amid_pdu: whether it is that of a PDU that has begun.
        """
        self._recall = None
        self._loop.redirect(self.fd, self.ready)
        self._quick, self._amid_since = quick, amid_since
        if not self._out:  # it has another deadline, for what the peer must read
            self.expect_at(deadline if is_amid_pdu else max(deadline, self._deadline))

    def ready(self, events: int) -> None:
        """The socket has something to tell, or can be told."""
        if events == _EPOLLIN:
            self._receive()
            return
        if events & _EPOLLOUT:
            self._send_more()
        if events & ~_EPOLLOUT and not self.closed:
            self._receive()

    def _receive(self) -> None:
        if self._pipe is not None:
            self._receive_as_planned()
            return
        try:
            count = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._owner.lost(lost_text(error.errno))
            return
        if self._amid_since:
            self._end_pause()
        if count:
            self._owner.received(self._buffer[:count])
        else:
            self._owner.lost("closed by the peer")

    def _receive_as_planned(self) -> None:
        """Splice, and receive the headers between, while that is planned, but no more than one receive may bring."""
        left = len(self._buffer)
        while left > 0 and (pipe := self._pipe) is not None:
            fragment_left = self._fragment_left
            try:
                if fragment_left:
                    count = pipe.take(self.fd, min(fragment_left, left))
                else:
                    count = self._socket.recv_into(self._buffer, _HEADERS_BYTES)
            except BlockingIOError:
                if left == len(self._buffer):
                    # There is something, and it is not for the pipe: splice(2) does not get past urgent data.
                    self._pipe = None
                return
            except OSError as error:
                self._owner.lost(lost_text(error.errno))
                return
            self._pipe = None
            if self._amid_since:
                self._end_pause()
            if not count:
                self._owner.lost("closed by the peer")
            elif fragment_left:
                self._owner.spliced(count)
            else:
                self._owner.received(self._buffer[:count])
            left -= count

    def _end_pause(self) -> None:
        if time.monotonic() - self._amid_since > _STALL_SECONDS:
            self._quick = math.inf
        self._amid_since = 0.0

    def _send_more(self) -> None:
        try:
            del self._out[: self._socket.send(self._out)]
        except BlockingIOError:
            return
        except OSError as error:
            self._owner.lost(lost_text(error.errno))
            return
        if not self._out:
            self.resume()
            self._owner.drained()

    def _set_timer(self) -> None:
        self._timer = self._loop.at(self._deadline, self._fire)
        self._timer_at = self._deadline

    def _fire(self) -> None:
        if self._recall is not None:
            self._recall()
        if self.closed:
            return
        if time.monotonic() < self._deadline:
            self._set_timer()
        else:
            self._timer_at = math.inf
            self._owner.time_is_up()


def _round_trip_seconds(connection: socket.socket) -> float:
    """Of its first packets.

    Raises:
        OSError: it is gone.
    """
    (microseconds,) = _ROUND_TRIP.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ROUND_TRIP.size))
    return float(microseconds) / 1e6


def lost_text(error: int | None) -> str:
    """How a connection ended.

    Args:
        error: its errno; 0 when the peer has closed it.
    """
    return f"connection lost ({os.strerror(error or 0)})" if error != 0 else "closed by the peer"
