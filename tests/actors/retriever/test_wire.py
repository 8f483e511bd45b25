"""Archives that send more than anybody can take, or half of something: the association ends."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE

from actors.retriever.sources import dimse, wire
from actors.retriever.sources.base import AwayError
from actors.retriever.sources.dimse import Dimse
from protocol.inference import DimseSource, PatientStudies
from tests.actors.launcher import wait_until
from tests.peers import storescp


def _read_pdu(connection: socket.socket) -> bytes:
    head = connection.recv(6, socket.MSG_WAITALL)
    return head + connection.recv(struct.unpack(">I", head[2:])[0], socket.MSG_WAITALL)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _accept(request: bytes) -> bytes:
    """An A-ASSOCIATE-AC that takes the first context, in implicit VR little endian."""
    context = _item(0x21, b"\1\0\0\0" + _item(0x40, b"1.2.840.10008.1.2"))
    user = _item(0x50, _item(0x51, struct.pack(">I", 131072)) + _item(0x52, b"1.2.3"))
    body = struct.pack(">Hxx", 1) + request[10:74] + _item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BxI", 2, len(body)) + body


def _half_a_header(connection: socket.socket) -> None:
    connection.sendall(b"\4\0\0")


def _huge_pdu(connection: socket.socket) -> None:
    connection.sendall(struct.pack(">BxI", 4, 0xFFFFFFF0))
    while True:
        connection.sendall(bytes(65536))


def _endless_identifier(connection: socket.socket) -> None:
    _read_pdu(connection)
    fragment = struct.pack(">IBB", 60002, 1, 0) + bytes(60000)
    while True:
        connection.sendall(struct.pack(">BxI", 4, len(fragment)) + fragment)


@pytest.mark.parametrize("behave", [_half_a_header, _huge_pdu, _endless_identifier])
def test_bounds(behave: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_PDU_SECONDS", 1.0)
    monkeypatch.setattr(dimse, "_MOST_BYTES", 5_000_000)
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(_accept(_read_pdu(connection)))
            try:
                behave(connection)
                over.wait(30)
            except OSError:
                return

    anybody: Any = None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        source = DimseSource(ae_title="ARCHIVE", host="127.0.0.1", port=listener.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(AwayError):
            Dimse(source, "OURS", anybody, anybody).studies_of(PatientStudies(patient_id="P"))
    over.set()
    assert time.monotonic() - started < 15


def test_an_answer_is_for_who_waits_for_it(tmp_path: Path) -> None:
    """pynetdicom's thread looks for requests all the time; what it would find is left alone."""
    with storescp(tmp_path / "peer") as peer:
        entity = AE(ae_title="OURS")
        entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
        association = entity.associate("127.0.0.1", peer.port)
        assert association.is_established
        wire.keep_answers(association)
        take, looks, answer = association.dimse.get_msg, list[bool](), C_STORE()

        def counted(block: bool = False) -> Any:
            looks.append(block)
            return take(block)

        association.dimse.get_msg = counted  # type: ignore[method-assign]
        wait_until(lambda: looks, "a look of the thread")
        association.dimse.msg_queue.put((1, answer))
        looks.clear()
        wait_until(lambda: len(looks) >= 3, "more looks of the thread")
        assert association.dimse.get_msg(block=True) == (1, answer)
        association.release()
