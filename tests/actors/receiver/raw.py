"""A peer that speaks the upper layer byte by byte, so that it can also speak it wrongly."""

import contextlib
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pynetdicom.pdu import A_ASSOCIATE_AC

from protocol.access import AccessFile, AccessList, AeTitleRule, SourceRule
from protocol.spool import Spool

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"

RQ, AC, RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
C_STORE, C_ECHO = 0x0001, 0x0030
HAS_DATASET, NO_DATASET = 0x0000, 0x0101


def allow(spool: Spool, *titles: str | AeTitleRule, calling: str = "TESTER", host: str = "127.0.0.1") -> None:
    """Write an access list of some AE titles and one source."""
    rules = tuple(t if isinstance(t, AeTitleRule) else AeTitleRule(ae_title=t) for t in titles)
    AccessFile(spool.access).replace(AccessList(ae_titles=rules, sources=(SourceRule(ae_title=calling, host_ip=host),)))


def stored_files(spool: Spool) -> list[Path]:
    """The instances in the spool."""
    return sorted(spool.instances.glob("*/*.dcm"))


def all_files(spool: Spool) -> list[Path]:
    """Everything in the shards, files in transit included."""
    return sorted(spool.instances.glob("*/*"))


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A PDU, with another length than its own if so wanted."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """An item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(body) if length is None else length) + body


def context(context_id: int, abstract: str = CT_IMAGE, *transfers: str) -> bytes:
    """A presentation context as proposed; explicit VR little endian by default."""
    syntaxes = b"".join(item(0x40, syntax.encode()) for syntax in transfers or (EXPLICIT,))
    return item(0x20, struct.pack("B3x", context_id) + item(0x30, abstract.encode()) + syntaxes)


def user_information(*more: bytes, max_pdu: int = 16384) -> bytes:
    """A user information item."""
    return item(0x50, item(0x51, struct.pack(">I", max_pdu)) + item(0x52, b"1.2.3.4") + b"".join(more))


def associate_rq(
    *contexts: bytes,
    called: bytes = b"CT",
    calling: bytes = b"TESTER",
    application: str = APPLICATION_CONTEXT,
    user: bytes | None = None,
    version: int = 1,
) -> bytes:
    """An A-ASSOCIATE-RQ PDU; CT storage by default."""
    body = struct.pack(">Hxx16s16s32x", version, called.ljust(16), calling.ljust(16))
    items = item(0x10, application.encode()) + b"".join(contexts or (context(1),))
    return pdu(RQ, body + items + (user_information() if user is None else user))


def pdv(context_id: int, control: int, data: bytes, length: int | None = None) -> bytes:
    """A presentation data value item; control 1 is a command, 2 the last fragment."""
    return struct.pack(">IBB", len(data) + 2 if length is None else length, context_id, control) + data


def element(number: int, value: bytes | int) -> bytes:
    """An element of group 0000."""
    data = struct.pack("<H", value) if isinstance(value, int) else value + b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(data)) + data


def store_rq(
    uid: str | bytes, sop_class: str = CT_IMAGE, *, message_id: int = 1, dataset_type: int = HAS_DATASET
) -> bytes:
    """The command set of a C-STORE-RQ."""
    raw = uid.encode() if isinstance(uid, str) else uid
    elements = (
        element(0x0002, sop_class.encode())
        + element(0x0100, C_STORE)
        + element(0x0110, message_id)
        + element(0x0700, 0)
        + element(0x0800, dataset_type)
        + element(0x1000, raw)
    )
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def echo_rq(message_id: int = 1) -> bytes:
    """The command set of a C-ECHO-RQ."""
    return (
        element(0x0002, VERIFICATION.encode())
        + element(0x0100, C_ECHO)
        + element(0x0110, message_id)
        + element(0x0800, NO_DATASET)
    )


def dataset(uid: str, sop_class: str = CT_IMAGE, *, padding: int = 2000) -> bytes:
    """A dataset in explicit VR little endian."""
    elements = b""
    for tag, vr, value in (
        ((0x0008, 0x0016), b"UI", sop_class.encode()),
        ((0x0008, 0x0018), b"UI", uid.encode()),
        ((0x0010, 0x0020), b"LO", b"PAT-1"),
        ((0x0020, 0x000D), b"UI", b"1.2.3"),
    ):
        even = value + b"\0" * (len(value) % 2)
        elements += struct.pack("<HH2sH", *tag, vr, len(even)) + even
    return elements + struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OW", padding) + bytes(padding)


def patterned_dataset(uid: str, padding: int) -> bytes:
    """A dataset no two blocks of which are alike, so that none can be lost, moved or doubled unseen."""
    words = struct.pack(f"<{padding // 4 + 1}I", *range(padding // 4 + 1))
    return dataset(uid, padding=padding)[:-padding] + words[:padding] if padding else dataset(uid, padding=0)


class Response:
    """A response's command set."""

    def __init__(self, data: bytes) -> None:
        self.values: dict[int, bytes] = {}
        at = 0
        while at < len(data):
            group, number, length = struct.unpack_from("<HHI", data, at)
            assert group == 0
            self.values[number] = data[at + 8 : at + 8 + length]
            at += 8 + length
        assert struct.unpack("<I", self.values[0])[0] == len(data) - 12

    def number(self, tag: int) -> int:
        """An element's value."""
        value: int = struct.unpack("<H", self.values[tag])[0]
        return value

    @property
    def status(self) -> int:
        return self.number(0x0900)

    @property
    def comment(self) -> str:
        return self.values.get(0x0902, b"").decode().strip()


class Peer:
    """A connection to a receiver.

    Args:
        port: on 127.0.0.1.
    """

    def __init__(self, port: int, seconds: float = 20.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_for_ever(self, data: bytes) -> None:
        """Send until the connection fails, or a gigabyte was taken."""
        for _ in range(1_000_000_000 // len(data)):
            self.send(data)

    def associate(self, *contexts: bytes, **more: object) -> A_ASSOCIATE_AC:
        """Open an association that must be accepted."""
        self.send(associate_rq(*contexts, **more))  # type: ignore[arg-type]
        kind, body = self.receive()
        assert kind == AC, (kind, body)
        answer = A_ASSOCIATE_AC()
        answer.decode(pdu(kind, body))
        return answer

    def receive(self) -> tuple[int, bytes]:
        """The next PDU: type and body; type 0 when the connection was closed."""
        header = self._exactly(6)
        if not header:
            return 0, b""
        kind, length = struct.unpack(">BxI", header)
        return kind, self._exactly(length)

    def response(self) -> Response:
        """The next PDU must be a P-DATA-TF with a response, in one fragment or several."""
        command = b""
        while True:
            kind, body = self.receive()
            assert kind == P_DATA, (kind, body)
            length, _, control = struct.unpack_from(">IBB", body)
            assert length == len(body) - 4
            command += body[6:]
            if control == 3:
                return Response(command)
            assert control == 1

    def command(self, data: bytes, context_id: int = 1) -> None:
        """Send a command set."""
        self.send(pdu(P_DATA, pdv(context_id, 3, data)))

    def dataset(self, data: bytes, context_id: int = 1, step: int = 8000) -> None:
        """Send a dataset in PDUs."""
        for start in range(0, max(1, len(data)), step):
            last = 2 if start + step >= len(data) else 0
            self.send(pdu(P_DATA, pdv(context_id, last, data[start : start + step])))

    def store(self, uid: str, data: bytes | None = None, **more: object) -> Response:
        """Send an object; its response."""
        self.command(store_rq(uid, **more))  # type: ignore[arg-type]
        self.dataset(dataset(uid) if data is None else data)
        return self.response()

    def release(self) -> None:
        """Release; the receiver must agree."""
        self.send(pdu(RELEASE_RQ, bytes(4)))
        kind, body = self.receive()
        assert (kind, body) == (RELEASE_RP, bytes(4)), (kind, body)

    def expect_abort(self, source: int = 2, reasons: Sequence[int] = (0, 1, 2, 4, 5, 6)) -> None:
        """The next PDU must be an A-ABORT, and then the end."""
        kind, body = self.receive()
        assert kind == ABORT, (kind, body)
        assert body[2] == source
        assert body[3] in reasons
        self.expect_end()

    def expect_rejection(self, *expected: int) -> None:
        """The next PDU must be an A-ASSOCIATE-RJ with this result, source and reason."""
        kind, body = self.receive()
        assert (kind, tuple(body[1:])) == (RJ, expected)
        self.expect_end()

    def expect_end(self) -> None:
        """The receiver must have closed its side."""
        with contextlib.suppress(ConnectionResetError):
            assert self.receive() == (0, b"")

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                assert not data, f"closed in the middle of a PDU, after {data!r}"
                return b""
            data += piece
        return data
