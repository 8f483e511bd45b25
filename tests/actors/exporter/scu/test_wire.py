"""Pieces of files on a connection: out of the system's memory, or read where a file system cannot give them so.

`/proc/self/mem` is such a file: its bytes are this process's own, at their addresses, and no page is at the lowest.
"""

import ctypes
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.exporter.scu.values import BrokenError, Deadlines, FileChangedError, TooSlowError
from actors.exporter.scu.wire import Connection

DEADLINES = Deadlines(connect_seconds=5, write_seconds=0.3)
LENGTH = 20_000_000
"""More than a connection holds that nobody reads."""


class Reader:
    """The other end, which reads all there is until its end."""

    def __init__(self, peer: socket.socket) -> None:
        self.data = b""
        self._peer = peer
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        pieces = []
        while piece := self._peer.recv(1 << 20):
            pieces.append(piece)
        self.data = b"".join(pieces)

    def whole(self) -> bytes:
        """All that came, once the connection is closed."""
        self._thread.join()
        return self.data


@contextmanager
def connected() -> Iterator[tuple[Connection, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection("127.0.0.1", listener.getsockname()[1], DEADLINES)
        peer, _ = listener.accept()
        with peer:
            yield connection, peer
            connection.close()


@contextmanager
def opened(path: Path | str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def soon() -> float:
    return time.monotonic() + 20


@pytest.mark.parametrize("is_sent_by_copy", [False, True])
def test_a_piece_arrives_in_its_place(tmp_path: Path, *, is_sent_by_copy: bool) -> None:
    data = os.urandom(LENGTH)
    path, start = tmp_path / "file", 0
    path.write_bytes(data)
    memory = ctypes.create_string_buffer(data, len(data))
    if is_sent_by_copy:
        path, start = Path("/proc/self/mem"), ctypes.addressof(memory)
    with connected() as (connection, peer), opened(path) as fd:
        reader = Reader(peer)
        connection.send([b"before"], soon(), is_amid=True)
        connection.send_piece(fd, start + 1000, LENGTH - 3000, soon())
        connection.send([b"behind"], soon())
        connection.close()
        assert reader.whole() == b"before" + data[1000:-2000] + b"behind"


def test_the_header_of_a_piece_does_not_wait_for_another(tmp_path: Path) -> None:
    """Held back for its piece, it leaves with it."""
    path = tmp_path / "file"
    path.write_bytes(b"piece")
    with connected() as (connection, peer), opened(path) as fd:
        connection.send([b"header"], soon(), is_amid=True)
        connection.send_piece(fd, 0, 5, soon())
        peer.settimeout(0.15)  # what is only held back leaves after 0.2 s
        assert peer.recv(11, socket.MSG_WAITALL) == b"headerpiece"


def test_a_file_that_ends_before_its_piece(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(5000))
    with connected() as (connection, _), opened(path) as fd, pytest.raises(FileChangedError, match="shorter"):
        connection.send_piece(fd, 0, 5001, soon())


def test_a_file_that_cannot_be_read() -> None:
    with (
        connected() as (connection, _),
        opened("/proc/self/mem") as fd,
        pytest.raises(FileChangedError, match="cannot be read: input/output error"),
    ):
        connection.send_piece(fd, 0, 1000, soon())


def test_a_peer_that_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(LENGTH))
    with connected() as (connection, peer), opened(path) as fd:
        peer.close()
        with pytest.raises(BrokenError, match="connection was lost"):
            connection.send_piece(fd, 0, LENGTH, soon())


def test_a_peer_that_does_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(LENGTH))
    with connected() as (connection, _), opened(path) as fd, pytest.raises(TooSlowError):
        connection.send_piece(fd, 0, LENGTH, soon())
