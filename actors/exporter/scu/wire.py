"""A connection to a peer: bytes out and PDUs in, with a deadline on every wait and little memory.

The socket never blocks; a wait is a poll. While the peer takes nothing, what it says is read, so that an abort in the
middle of an object is heard, and two sides that both write do not wait for each other.
"""

import contextlib
import select
import socket
import time
from collections.abc import Sequence

from actors.exporter.scu.negotiation import OUR_MAX_PDU_BYTES
from actors.exporter.scu.values import BrokenError, Deadlines, TooSlowError
from protocol.dimse.pdu import HEADER_LENGTH, PDU_HEADER, AbortReason, PduType, ProtocolError

_MOST_PIECES = 1000  # of one sendmsg; the system takes 1024
_RECEIVE_BYTES = 16 * 1024
_LONGEST_ANSWER_BYTES = 256 * 1024  # an A-ASSOCIATE-AC with 128 contexts has less than 10 kB
_MOST_UNREAD_BYTES = 64 * 1024  # that a peer may say while an object is sent to it
_LONGEST = {
    PduType.A_ASSOCIATE_AC: _LONGEST_ANSWER_BYTES,
    PduType.A_ASSOCIATE_RJ: 4,
    PduType.P_DATA_TF: OUR_MAX_PDU_BYTES,
    PduType.A_RELEASE_RQ: 4,
    PduType.A_RELEASE_RP: 4,
    PduType.A_ABORT: 4,
}
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class Connection:
    """A connection, open from the start.

    Args:
        host, port: of the peer.
        deadlines: of the waits.

    Raises:
        BrokenError: nobody listens there.
        TooSlowError: nobody answers there.
    """

    def __init__(self, host: str, port: int, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        try:
            self._socket = socket.create_connection((host, port), deadlines.connect_seconds)
        except TimeoutError:
            raise TooSlowError(f"no connection within {deadlines.connect_seconds:g} s") from None
        except (OSError, UnicodeError) as error:
            raise BrokenError(f"no connection: {_told(error)}") from None
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = select.poll()
        self._received = bytearray()
        self._ended = False
        self._is_amid = False  # something was sent in part

    def send(self, pieces: Sequence[bytes | memoryview], deadline: float) -> None:
        """Send pieces one behind the other, until the system has taken all of them.

        Args:
            pieces: any number.
            deadline: of the clock `time.monotonic`, for all of them.

        Raises:
            BrokenError: the connection broke, or the peer aborted.
            TooSlowError: the peer took nothing for too long, or all too slowly.
        """
        first, end = 0, len(pieces)
        self._is_amid = True
        while first < end:
            batch = pieces[first : first + _MOST_PIECES]
            first += len(batch)
            while batch:
                try:
                    sent = self._socket.sendmsg(batch)
                except BlockingIOError:
                    self._wait_writable(deadline)
                except OSError as error:
                    raise self._lost(error) from None
                else:
                    batch = _unsent(batch, sent)
        self._is_amid = False

    def receive(self, seconds: float) -> tuple[PduType, bytes]:
        """The next PDU, its type and its body.

        Args:
            seconds: until it has to be complete.

        Raises:
            BrokenError: the connection was closed, or the peer aborted.
            TooSlowError: it did not come in time.
            ProtocolError: it is none that may come.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self._next_pdu()
            if found:
                if found[0] is PduType.A_ABORT:
                    raise BrokenError("it aborted the association")
                return found
            if self._ended:
                raise BrokenError("it closed the connection")
            if not self._wait(select.POLLIN, deadline):
                raise TooSlowError(f"no answer within {seconds:g} s")
            self._read()

    def close(self) -> None:
        """Close it; what was sent still arrives."""
        self._socket.close()

    def try_send(self, data: bytes) -> None:
        """Send the last PDU of a connection, if the peer takes it at once.

        In the middle of another it would be taken for the rest of that one, and an object might be whole by it.
        """
        if self._is_amid:
            return
        with contextlib.suppress(OSError):
            self._socket.send(data)

    def _next_pdu(self) -> tuple[PduType, bytes] | None:
        received = self._received
        if len(received) < HEADER_LENGTH:
            return None
        number, length = PDU_HEADER.unpack_from(received)
        try:
            kind = PduType(number)
            longest = _LONGEST[kind]
        except (ValueError, KeyError):
            raise ProtocolError(AbortReason.UNRECOGNIZED_PDU, "what came is no answer of DICOM") from None
        if length > longest:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "a PDU is longer than it may be")
        if len(received) < HEADER_LENGTH + length:
            return None
        body = bytes(received[HEADER_LENGTH : HEADER_LENGTH + length])
        del received[: HEADER_LENGTH + length]
        return kind, body

    def _read(self) -> None:
        """Take what has come."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            raise BrokenError(f"the connection was lost: {_told(error)}") from None
        self._ended = not data
        self._received += data

    def _wait_writable(self, deadline: float) -> None:
        stalled = time.monotonic() + self._deadlines.write_seconds
        while True:
            events = self._wait(select.POLLOUT | (0 if self._ended else select.POLLIN), min(deadline, stalled))
            if not events:
                raise TooSlowError("it takes what is sent too slowly, or not at all")
            if events & _READABLE and not self._ended:
                self._read()
                self._look_for_abort()
            if events & (select.POLLOUT | select.POLLERR | select.POLLHUP):
                return

    def _look_for_abort(self) -> None:
        """See whether the peer gave up; a response that comes too early is kept for its time."""
        received = self._received
        if received[:1] == bytes([PduType.A_ABORT]):
            raise BrokenError("it aborted the association")
        if len(received) > _MOST_UNREAD_BYTES:
            raise ProtocolError(AbortReason.UNEXPECTED_PDU, "it sends where it has to receive")

    def _lost(self, error: OSError) -> BrokenError:
        """Why a connection broke: what the peer said last tells it better than the system."""
        with contextlib.suppress(OSError, BrokenError):
            self._read()
        if self._received[:1] == bytes([PduType.A_ABORT]):
            return BrokenError("it aborted the association")
        return BrokenError(f"the connection was lost: {_told(error)}")

    def _wait(self, events: int, deadline: float) -> int:
        """Wait for events; returns those that came, 0 when the deadline passed."""
        # Whoever writes its answer in two pieces with Nagle's algorithm on waits for our acknowledgement of the first.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self._poll.register(self._socket, events)
        left = deadline - time.monotonic()
        found = self._poll.poll(max(0.0, left * 1000))
        return found[0][1] if found else 0


def _unsent(pieces: Sequence[bytes | memoryview], sent: int) -> Sequence[bytes | memoryview]:
    for number, piece in enumerate(pieces):
        if sent < len(piece):
            return [memoryview(piece)[sent:], *pieces[number + 1 :]] if sent else pieces[number:]
        sent -= len(piece)
    return ()


def _told(error: Exception) -> str:
    """The system's words for an error."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__).lower()
