"""Servers that keep an exchange alive and send nothing: it ends, however they do it."""

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from protocol.dicomweb.http import open_client
from protocol.dicomweb.leash import Leash

_SECONDS = 0.5
_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _header_by_byte() -> Iterator[bytes]:
    return itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"a"))


def _interim_responses() -> Iterator[bytes]:
    return itertools.repeat(b"HTTP/1.1 102 Processing\r\n\r\n")


def _chunk_extension() -> Iterator[bytes]:
    return itertools.chain([_HEAD + b"1\r\na\r\n5;"], itertools.repeat(b"x"))


def _pieces() -> Iterator[bytes]:
    return itertools.chain([_HEAD], itertools.repeat(b"1\r\na\r\n", 12), [b"0\r\n\r\n"])


def serve(said: Callable[[], Iterator[bytes]]) -> tuple[str, socket.socket]:
    """A server that says something every 0.1 s, until nobody listens."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            try:
                for piece in said():
                    connection.sendall(piece)
                    time.sleep(0.1)  # the pace of this peer
            except OSError:
                return

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/", listener


class Reader:
    """Reads one answer on a leash."""

    def __init__(self) -> None:
        self.leash = Leash(_SECONDS)
        self.is_cut = False

    def read(self, url: str) -> bytes:
        body, extensions = b"", self.leash.extensions
        with (
            open_client({}) as client,
            self.leash.hold() as hold,
            contextlib.ExitStack() as stack,
        ):
            stack.callback(lambda: setattr(self, "is_cut", hold.is_cut))
            answer = stack.enter_context(client.stream("GET", url, extensions=extensions))
            for chunk in answer.iter_bytes():
                hold.extend()
                body += chunk
        return body


@pytest.mark.parametrize("said", [_header_by_byte, _interim_responses, _chunk_extension])
def test_nothing_of_use(said: Callable[[], Iterator[bytes]]) -> None:
    url, listener = serve(said)
    reader, started = Reader(), time.monotonic()
    with listener, pytest.raises(httpx.HTTPError):
        reader.read(url)
    assert reader.is_cut
    assert _SECONDS <= time.monotonic() - started < 10


def test_what_comes_slowly_comes_to_its_end() -> None:
    url, listener = serve(_pieces)
    reader = Reader()
    with listener:
        assert reader.read(url) == b"a" * 12
    assert not reader.is_cut
