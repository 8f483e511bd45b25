"""The supervisor's end of its control socket: one request a connection, one answer."""

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

from protocol import messages
from protocol.birth import control_socket

_LONGEST_REQUEST = 65536
_REQUEST = messages.decoder(messages.ControlRequest)


class Asker:
    """A connection that waits for its answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = b""

    def request(self) -> messages.Message | None:
        """The request once it is here whole.

        Raises:
            ConnectionError: the peer is gone, or sends what is no request.
        """
        with contextlib.suppress(BlockingIOError):
            data = self.connection.recv(_LONGEST_REQUEST)
            if not data:
                raise ConnectionResetError
            self._received += data
        if len(self._received) < 4:
            return None
        length = int.from_bytes(self._received[:4], "big")
        if length > _LONGEST_REQUEST:
            raise ConnectionAbortedError
        if len(self._received) < 4 + length:
            return None
        try:
            request: messages.Message = _REQUEST.decode(self._received[4 : 4 + length])
        except msgspec.DecodeError as error:
            raise ConnectionAbortedError from error
        return request

    def answer(self, message: messages.Message) -> None:
        """Send the answer and close; a peer that has gone away gets nothing."""
        data = messages.encode(message)
        with contextlib.suppress(OSError):
            self.connection.settimeout(1.0)
            self.connection.sendall(len(data).to_bytes(4, "big") + data)
        self.connection.close()


class ControlSocket:
    """The bound socket.

    Args:
        runtime: the runtime directory.
        watch: registers a descriptor's callback with the main loop.
        unwatch: forgets it.
        handle: answers a request, at once or later.
    """

    def __init__(
        self,
        runtime: Path,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        handle: Callable[[messages.Message, Asker], None],
    ) -> None:
        path = control_socket(runtime)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        os.chmod(path, 0o600)
        self._socket.listen(64)
        self._socket.setblocking(False)
        self._path = path
        self._watch = watch
        self._unwatch = unwatch
        self._handle = handle
        watch(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening."""
        self._unwatch(self._socket.fileno())
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._socket.accept()
            connection.setblocking(False)
            asker = Asker(connection)
            self._watch(connection.fileno(), lambda: self._read(asker))

    def _read(self, asker: Asker) -> None:
        fd = asker.connection.fileno()
        try:
            request = asker.request()
        except OSError:
            self._unwatch(fd)
            asker.connection.close()
            return
        if request is not None:
            self._unwatch(fd)
            self._handle(request, asker)
