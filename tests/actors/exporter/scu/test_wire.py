"""What is sent on a connection, and what is not any more."""

import contextlib
import socket
import time

import pytest

from actors.exporter.scu.values import Deadlines, TooSlowError
from actors.exporter.scu.wire import Connection
from protocol.dimse.pdu import encode_abort

LENGTH = 20_000_000
"""More than a connection holds that nobody reads."""


def taken(peer: socket.socket) -> bytes:
    """All that comes until nothing comes any more."""
    pieces = []
    peer.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while piece := peer.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


def test_no_abort_completes_a_pdu_that_was_sent_in_part() -> None:
    """Its bytes would stand for the object's last ones, and a peer that reads late would have it whole."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        deadlines = Deadlines(connect_seconds=5, write_seconds=0.2)
        connection = Connection("127.0.0.1", listener.getsockname()[1], deadlines)
        peer, _ = listener.accept()
        with peer:
            connection.send([b"whole"], time.monotonic() + 20)
            assert peer.recv(5, socket.MSG_WAITALL) == b"whole"
            with pytest.raises(TooSlowError):
                connection.send([bytes(LENGTH)], time.monotonic() + 20)
            arrived = taken(peer)
            connection.try_send(encode_abort(None))
            connection.close()
            arrived += taken(peer)
            assert not any(arrived)
            assert len(arrived) < LENGTH
