"""An SCP of the tests' own, which speaks DICOM as far as a test wants it to, and then says whatever else it wants."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

from tests.actors.receiver.raw import (
    APPLICATION_CONTEXT,
    EXPLICIT,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    element,
    item,
    pdu,
    pdv,
    user_information,
)

AC = 0x02


def acceptance(*contexts: bytes, user: bytes | None = None) -> bytes:
    """An A-ASSOCIATE-AC PDU; context 1 is accepted by default."""
    body = struct.pack(">Hxx16s16s32x", 1, b"STORESCP".ljust(16), b"OURSELVES".ljust(16))
    items = item(0x10, APPLICATION_CONTEXT.encode()) + b"".join(contexts or (result(1),))
    return pdu(AC, body + items + (user_information() if user is None else user))


def result(context_id: int, number: int = 0, syntax: str = EXPLICIT) -> bytes:
    """What is said of a presentation context."""
    return item(0x21, struct.pack("BxBx", context_id, number) + item(0x40, syntax.encode()))


def store_rsp(
    message_id: int, status: int = 0, *, field: int = 0x8001, dataset_type: int = 0x0101, comment: bytes = b""
) -> bytes:
    """The command set of a C-STORE-RSP."""
    body = element(0x0100, field) + element(0x0120, message_id) + element(0x0800, dataset_type)
    body += element(0x0900, status) + (element(0x0902, comment) if comment else b"")
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


class Session:
    """One connection to the peer.

    Args:
        connection: accepted.
        number: how many came before it.
        over: set when the test is.
    """

    def __init__(self, connection: socket.socket, number: int, over: threading.Event) -> None:
        self.connection = connection
        self.number = number
        self.over = over

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def pdu(self) -> tuple[int, bytes]:
        """The next PDU; type 0 at the end."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, self._exactly(length)

    def accept(self, *contexts: bytes, user: bytes | None = None) -> None:
        """Take the request, and answer it."""
        assert self.pdu()[0] == 1
        self.send(acceptance(*contexts, user=user))

    def message(self) -> bytes:
        """A C-STORE-RQ and its dataset, whose bytes are returned; b"" when the association was released instead."""
        command = self._fragments()
        return self._fragments() if command else b""

    def respond(self, message_id: int, status: int = 0, context_id: int = 1, **more: int) -> None:
        self.send(pdu(P_DATA, pdv(context_id, 3, store_rsp(message_id, status, **more))))

    def serve(self, statuses: Callable[[int], int] = lambda _: 0, most: int = 1 << 30) -> None:
        """Answer objects until the release, or until so many were answered."""
        for number in range(1, most + 1):
            if not self.message():
                return
            self.respond(number, statuses(number))

    def _fragments(self) -> bytes:
        data = b""
        while True:
            kind, body = self.pdu()
            if kind == RELEASE_RQ:
                self.send(pdu(RELEASE_RP, bytes(4)))
            if kind != P_DATA:
                return b""
            while body:
                length, _, control = struct.unpack_from(">IBB", body)
                data += body[6 : 4 + length]
                body = body[4 + length :]
            if control & 2:
                return data

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.connection.recv(count - len(data))
            if not piece:
                return data
            data += piece
        return data


class BadPeer:
    """Listens until its block ends, and does with each connection what a test says.

    Args:
        serve: is given each connection, in a thread of its own.
    """

    def __init__(self, serve: Callable[[Session], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._serve = serve
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._over = threading.Event()
        self._accepting = threading.Thread(target=self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                session = Session(connection, self.connections, self._over)
                self.connections += 1
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._one, args=(session,)))
                self._threads[-1].start()

    def _one(self, session: Session) -> None:
        with contextlib.suppress(OSError), session.connection:
            self._serve(session)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(10)
            assert not thread.is_alive()
