"""Senders that know what was acknowledged: a small, fast Storage SCU on bare sockets that repeats until it is heard."""

import hashlib
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

from tests.actors.receiver.raw import (
    AC,
    CT_IMAGE,
    P_DATA,
    RELEASE_RP,
    RELEASE_RQ,
    RJ,
    Response,
    associate_rq,
    pdu,
    pdv,
    store_rq,
)
from tests.patients import PATIENT_ID_PREFIX

_PDV_BYTES = 16_000
_LARGE_BYTES = 200_000
_NOISE_BYTES = 400_000
_REPEAT_PAUSE_SECONDS = 0.1
SUCCESS = 0x0000


class RejectedError(Exception):
    """The association was rejected: result, source and reason."""


class BrokenError(Exception):
    """The connection broke before it was an association.

    Args:
        local_port: of the connection.
    """

    def __init__(self, local_port: int) -> None:
        super().__init__(f"connection from port {local_port}")
        self.local_port = local_port


def digest(dataset: bytes) -> str:
    """What an object's bytes are compared by."""
    return hashlib.sha256(dataset).hexdigest()


def make_dataset(sop_uid: str, study_uid: str, patient_id: str, pixels: bytes) -> bytes:
    """A CT object, as it travels in explicit VR little endian."""
    elements = b""
    for group, number, vr, text in (
        (0x0008, 0x0016, b"UI", CT_IMAGE),
        (0x0008, 0x0018, b"UI", sop_uid),
        (0x0008, 0x0060, b"CS", "CT"),
        (0x0010, 0x0020, b"LO", patient_id),
        (0x0020, 0x000D, b"UI", study_uid),
        (0x0020, 0x000E, b"UI", f"{study_uid}.1"),
    ):
        value = text.encode()
        value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
        elements += struct.pack("<HH2sH", group, number, vr, len(value)) + value
    pixels += b"\0" * (len(pixels) % 2)
    return elements + struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OW", len(pixels)) + pixels


class Association:
    """One association for CT storage, opened at once.

    Args:
        port: on 127.0.0.1.
        called, calling: AE titles.
        seconds: how long any answer may take.

    Raises:
        ConnectionRefusedError: nobody listens.
        RejectedError: the peer does not want it.
        BrokenError: the connection ended before there was an answer.
    """

    def __init__(self, port: int, *, called: str, calling: str, seconds: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.local_port: int = self.socket.getsockname()[1]
        self._message_id = 0
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(associate_rq(called=called.encode(), calling=calling.encode()))
            kind, body = self._receive()
            if kind == RJ:
                raise RejectedError(tuple(body[1:]))
            if kind != AC:
                raise ConnectionAbortedError(f"PDU type {kind}")
        except OSError as error:
            self.socket.close()
            raise BrokenError(self.local_port) from error
        except BaseException:
            self.socket.close()
            raise

    def request(self, sop_uid: str, dataset: bytes) -> None:
        """Send a C-STORE-RQ with its dataset."""
        self._message_id = self._message_id % 0xFFFF + 1
        parts = [pdu(P_DATA, pdv(1, 3, store_rq(sop_uid, message_id=self._message_id)))]
        for start in range(0, len(dataset), _PDV_BYTES):
            last = 2 if start + _PDV_BYTES >= len(dataset) else 0
            parts.append(pdu(P_DATA, pdv(1, last, dataset[start : start + _PDV_BYTES])))
        self.socket.sendall(b"".join(parts))

    def response(self, sop_uid: str) -> int:
        """The status of the request that was sent last; it must be the answer to that, and to no other."""
        command = b""
        while True:
            kind, body = self._receive()
            if kind != P_DATA:
                raise ConnectionAbortedError(f"PDU type {kind}")
            command += body[6:]
            if body[5] == 3:
                break
        answer = Response(command)
        assert answer.number(0x0120) == self._message_id
        assert answer.values[0x1000].rstrip(b"\0").decode() == sop_uid
        return answer.status

    def store(self, sop_uid: str, dataset: bytes) -> int:
        """Send an object; its status."""
        self.request(sop_uid, dataset)
        return self.response(sop_uid)

    def release(self) -> None:
        """Release it, and close."""
        self.socket.sendall(pdu(RELEASE_RQ, bytes(4)))
        kind, _ = self._receive()
        self.close()
        if kind != RELEASE_RP:
            raise ConnectionAbortedError(f"PDU type {kind}")

    def close(self) -> None:
        """Close the connection, whatever goes on."""
        self.socket.close()

    def _receive(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("closed by the peer")
            data += piece
        return data


@dataclass
class Experience:
    """What a sender met.

    Args:
        sent: digests of all objects that were ever sent, by SOP Instance UID.
        acknowledged: of those that were answered 0x0000.
        acknowledged_ns: when the answer was here, wall time.
        refused: connections that nobody took.
        rejections: associations that were rejected, with their reasons.
        failures: statuses other than success.
        broken: local ports of connections that ended in the middle.
        repeated: objects that were sent once more, since no answer came.
        slowest_seconds: the longest time from a request to its answer.
        studies: how many studies were acknowledged in full.
    """

    sent: dict[str, str] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    acknowledged_ns: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    rejections: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)
    repeated: int = 0
    slowest_seconds: float = 0.0
    studies: int = 0


class Sender(threading.Thread):
    """Sends study after study until it is told to stop, and does not give an object up before it is acknowledged.

    Args:
        port: on 127.0.0.1.
        called: the called AE title.
        seed: of what is chance.
        number: in the patients' IDs.
        study_objects, association_objects: how many objects a study, and an association, has.
        pause_seconds: between two associations.
        calling: the calling AE title.
    """

    def __init__(
        self,
        port: int,
        called: str,
        *,
        seed: int,
        number: int = 0,
        study_objects: int = 20,
        association_objects: int = 7,
        pause_seconds: float = 0.0,
        calling: str = "MODALITY",
    ) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self.experience = Experience()
        self.failure: BaseException | None = None
        self._port, self._called, self._calling, self._number = port, called, calling, number
        self._study_objects, self._association_objects = study_objects, association_objects
        self._pause_seconds = pause_seconds
        self._random = random.Random(f"{seed}-{number}")
        self._noise = self._random.randbytes(_NOISE_BYTES)
        self._stopping = threading.Event()
        self._never = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._deliver(self._study())
                self.experience.studies += 1
        except BaseException as error:  # shown by `finish`
            self.failure = error

    def finish(self, seconds: float = 120.0) -> Experience:
        """Let it bring its study to an end; what it met.

        Raises:
            AssertionError: it could not.
        """
        self._stopping.set()
        self.join(seconds)
        assert not self.is_alive(), f"{self.name} is not through after {seconds:g} s"
        if self.failure is not None:
            raise self.failure
        return self.experience

    def _uid(self) -> str:
        return f"2.25.{self._random.getrandbits(120)}"

    def _study(self) -> dict[str, bytes]:
        study, patient = self._uid(), f"{PATIENT_ID_PREFIX}{self._number}-{self.experience.studies}"
        objects = {}
        for _ in range(self._study_objects):
            uid = self._uid()
            size = _LARGE_BYTES if self._random.random() < 0.05 else self._random.randrange(500, 6000)
            start = self._random.randrange(_NOISE_BYTES - size)
            objects[uid] = make_dataset(uid, study, patient, self._noise[start : start + size])
        return objects

    def _deliver(self, waiting: dict[str, bytes]) -> None:
        met = self.experience
        while waiting:
            try:
                association = Association(self._port, called=self._called, calling=self._calling)
            except ConnectionRefusedError:
                met.refused += 1
                self._never.wait(_REPEAT_PAUSE_SECONDS)
                continue
            except RejectedError as error:
                met.rejections.append(str(error))
                self._never.wait(_REPEAT_PAUSE_SECONDS)
                continue
            except BrokenError as error:
                met.broken.append(error.local_port)
                self._never.wait(_REPEAT_PAUSE_SECONDS)
                continue
            try:
                for uid in list(waiting)[: self._association_objects]:
                    self._store(association, uid, waiting)
                association.release()
            except OSError:
                met.broken.append(association.local_port)
                self._never.wait(_REPEAT_PAUSE_SECONDS)
            finally:
                association.close()
            if self._pause_seconds:
                self._never.wait(self._pause_seconds)

    def _store(self, association: Association, uid: str, waiting: dict[str, bytes]) -> None:
        met, dataset = self.experience, waiting[uid]
        met.repeated += uid in met.sent
        met.sent[uid] = digest(dataset)
        began = time.monotonic()
        status = association.store(uid, dataset)
        met.slowest_seconds = max(met.slowest_seconds, time.monotonic() - began)
        if status == SUCCESS:
            met.acknowledged[uid] = met.sent[uid]
            met.acknowledged_ns[uid] = time.time_ns()
            del waiting[uid]
        else:
            met.failures.append(status)
            self._never.wait(_REPEAT_PAUSE_SECONDS)
