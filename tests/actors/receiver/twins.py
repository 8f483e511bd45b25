"""Two receivers, one with the lane and one without, that are given the same bytes and must do the same with them."""

import contextlib
import os
import re
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from actors.receiver.lane import PURE_PYTHON
from actors.receiver.pace import NO_DIRECT_WRITES
from protocol import killpoints
from protocol.spool import association_of
from tests.actors.launcher import PATIENCE_SECONDS, Launcher, RunningActor
from tests.actors.receiver import raw
from tests.actors.receiver.conftest import SHORT_LIMITS
from tests.actors.receiver.raw import P_DATA, Peer, allow, pdu, pdv

FIRST = "1.2.840.1"  # the object after which an association enters the lane
FIN = "FIN"
RELEASE = pdu(raw.RELEASE_RQ, bytes(4))
ABORT = pdu(raw.ABORT, bytes(4))
CONTEXTS = (
    raw.context(1),
    raw.context(3, raw.VERIFICATION, raw.IMPLICIT),
    raw.context(5, raw.MR_IMAGE),
    raw.context(7, raw.CT_IMAGE, raw.IMPLICIT),
)

Step = bytes | int | str
"""Bytes to be sent, and received before anything follows; how many PDUs to wait for; or FIN."""

_DIAGNOSE_TCP, _BY_FAMILY, _REQUEST = 4, 20, 1  # sock_diag(7)
_RECEIVE_QUEUE_AT = 16 + 4 + 48 + 4  # idiag_rqueue of struct inet_diag_msg, behind a struct nlmsghdr


@dataclass
class Outcome:
    """What came of an association, without what is different in any two."""

    answers: list[bytes]
    end: str
    files: list[bytes]
    in_transit: list[str]
    ended: dict[str, str]

    def told(self) -> str:
        """For a failed comparison."""
        answers = [answer[:110].hex() for answer in self.answers]
        return f"{self.ended} {self.end} {answers} {[len(file) for file in self.files]} {self.in_transit}"


class Twin:
    """One of the two receivers."""

    def __init__(self, directory: Path, *sets: str, lane: bool, environment: dict[str, str] | None = None) -> None:
        directory.mkdir()
        self.lane = lane
        self.launcher = Launcher(
            directory, *SHORT_LIMITS, *sets, environment={PURE_PYTHON: "" if lane else "1", **(environment or {})}
        )
        allow(self.launcher.spool, "CT")
        self.receiver: RunningActor = self.launcher.start("receiver-1")
        self._seen = 0

    def __enter__(self) -> Self:
        self.launcher.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.launcher.__exit__(*error)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def entered(self) -> Iterator[Peer]:
        """A peer whose first object was answered: where there is a lane, it is in it."""
        self._seen = len(self.receiver.lines)  # ports are used again
        with Peer(self.launcher.port) as peer:
            peer.associate(*CONTEXTS)
            assert peer.store(FIRST).status == 0
            yield peer

    def exchange(self, *steps: Step) -> Outcome:
        """Open an association, store an object, do the steps, and read until the association ends."""
        with self.entered() as peer:
            conversation = Conversation(self, peer)
            for step in steps:
                conversation.do(step)
            return conversation.outcome()

    def ended(self, port: int) -> dict[str, str]:
        """What the log says of the end of the association from a port."""
        line = self.receiver.wait_for(lambda: self._ended_line(port), "association_ended")
        assert line
        fields = dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line))
        return {name: fields[name] for name in ("association", "how", "stored", "failed", "bytes", "ignored", "echoed")}

    def _ended_line(self, port: int) -> str | None:
        lines = self.receiver.lines[self._seen :]
        return next((line for line in lines if "association_ended" in line and f":{port} " in line), None)

    def forget_nothing(self) -> None:
        """Look at the whole log again: several associations are open."""
        self._seen = 0

    def files_of(self, association: str, port: int) -> list[bytes]:
        """The content of what an association has stored, without the two ports."""
        ours = [
            path for path in self.launcher.spool.instances.glob("*/*.dcm") if association_of(path.name) == association
        ]
        contents = [path.read_bytes() for path in sorted(ours, key=lambda path: path.name)]
        ports = [str(each).encode() for each in (port, self.launcher.port)]
        return [
            content.replace(b"127.0.0.1:" + ports[0], b"peer").replace(b"127.0.0.1:" + ports[1], b"local")
            for content in contents
        ]

    def in_transit(self) -> list[str]:
        """The names of files in transit."""
        return [path.name for path in self.launcher.spool.instances.glob("*/*.part")]


class Conversation:
    """Bytes to a receiver, and PDUs from it."""

    def __init__(self, twin: Twin, peer: Peer) -> None:
        self._twin = twin
        self._socket = peer.socket
        self._port: int = peer.socket.getsockname()[1]
        self._came = b""
        self._answers: list[bytes] = []
        self._end = ""

    def do(self, step: Step) -> None:
        """Do a step, unless the association has ended."""
        try:
            if isinstance(step, bytes):
                self._socket.sendall(step)
                self._wait_received()
            elif isinstance(step, str):
                self._socket.shutdown(socket.SHUT_WR)
            else:
                self._read(step)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def outcome(self) -> Outcome:
        """Read until the end, and see what there is."""
        while not self._end:
            self._read(1)
        self._socket.close()
        ended = self._twin.ended(self._port)
        files = self._twin.files_of(ended.pop("association"), self._port)
        return Outcome(self._answers, self._end, files, self._twin.in_transit(), ended)

    def _read(self, count: int) -> None:
        wanted = len(self._answers) + count
        while len(self._answers) < wanted and not self._end:
            if len(self._came) >= 6 and len(self._came) >= (whole := 6 + struct.unpack_from(">I", self._came, 2)[0]):
                answer, self._came = self._came[:whole], self._came[whole:]
                self._answers.append(answer)
                self._end = "released" if answer[0] == raw.RELEASE_RP else ""
                continue
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                data = b""
            self._came += data
            if not data:
                assert not self._came
                self._end = "closed"

    def _wait_received(self) -> None:
        """Without a pause: many tests send byte by byte."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while receive_queue(self._twin.launcher.port, self._port):
            assert time.monotonic() < deadline, "the receiver does not take what was sent"
            os.sched_yield()


def receive_queue(port: int, peer_port: int) -> int:
    """How many bytes the system has on 127.0.0.1:`port` from 127.0.0.1:`peer_port` that were not received."""
    address = socket.inet_aton("127.0.0.1") + bytes(12)
    ends = struct.pack("!HH", port, peer_port) + address * 2 + struct.pack("=I", 0) + b"\xff" * 8
    body = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ends
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _DIAGNOSE_TCP) as diagnosis:
        diagnosis.send(struct.pack("=IHHII", 16 + len(body), _BY_FAMILY, _REQUEST, 1, 0) + body)
        reply = diagnosis.recv(4096)
    if struct.unpack_from("=H", reply, 4)[0] != _BY_FAMILY:
        return 0  # there is no such connection any more
    queue: int = struct.unpack_from("=I", reply, _RECEIVE_QUEUE_AT)[0]
    return queue


class Twins:
    """Both.

    Args:
        directory: theirs.
        sets: settings of both.
        sync: whether objects are synced.
        direct: whether the lane may write them past the page cache, and sync them at once.
        environment: of both.
    """

    def __init__(
        self,
        directory: Path,
        *sets: str,
        sync: bool,
        direct: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.sync = sync
        environment = {NO_DIRECT_WRITES: "" if direct else "1", **(environment or {})}
        sets = (*sets, f"DicomAdapter.storage.syncOnStore={str(sync).lower()}")
        self.lane = Twin(directory / "lane", *sets, lane=True, environment=environment)
        self.pure = Twin(directory / "pure", *sets, lane=False, environment=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self.lane, self.pure:
            pass

    def __iter__(self) -> Iterator[Twin]:
        return iter((self.lane, self.pure))

    def same(self, *steps: Step) -> Outcome:
        """Have both do the steps; they must come to the same outcome, which is returned."""
        with_lane, without = self.lane.exchange(*steps), self.pure.exchange(*steps)
        assert not with_lane.in_transit, f"{with_lane.told()}\n{without.told()}"
        if self.sync:  # objects that are synced beside each other are answered in any order
            with_lane.answers.sort()
            without.answers.sort()
        assert with_lane == without, f"{with_lane.told()}\n{without.told()}"
        return with_lane

    def stores(self, *steps: Step, count: int) -> Outcome:
        """As `same`, with a release at the end; so many objects must have been stored."""
        outcome = self.same(*steps, RELEASE)
        assert outcome.ended["how"] == "released"
        assert len(outcome.files) == count + 1
        return outcome


def fragments(data: bytes, *sizes: int, context_id: int = 1, command: bool = False) -> list[bytes]:
    """PDVs of these sizes, the last of them again and again; a size of 0 is an empty one."""
    at, made, left = 0, [], list(sizes)
    while at < len(data) or not made:
        size = left.pop(0) if len(left) > 1 else left[0] or 1
        made.append(pdv(context_id, int(command), data[at : at + size]))
        at += size
    last = bytearray(made[-1])
    last[5] |= 2
    return [*made[:-1], bytes(last)]


def pdus(pdvs: Sequence[bytes], each: int = 1) -> bytes:
    """PDUs of so many PDVs."""
    return b"".join(pdu(P_DATA, b"".join(pdvs[at : at + each])) for at in range(0, len(pdvs), each))


def request(uid: str | bytes, message_id: int = 1, *, context_id: int = 1, sop_class: str = raw.CT_IMAGE) -> bytes:
    """A C-STORE request in one PDU."""
    return pdu(P_DATA, pdv(context_id, 3, raw.store_rq(uid, sop_class, message_id=message_id)))


def an_object(uid: str, message_id: int = 1, *sizes: int, data: bytes | None = None) -> bytes:
    """A request and its dataset, in PDUs of one PDV of these sizes."""
    return request(uid, message_id) + pdus(fragments(raw.dataset(uid) if data is None else data, *sizes or (16000,)))


WAYS = {"unsynced": (False, True), "direct": (True, True), "beside-others": (True, False)}
"""`sync` and `direct` of twins, by the way that objects take to the disk."""


def stopped_in_lane(receiver: RunningActor) -> bool:
    """Whether a process that is stopped has a function of the lane under way: its stack leads back there."""
    maps = [line.split() for line in Path(f"/proc/{receiver.pid}/maps").read_text().splitlines()]
    ranges = {True: [], False: []}  # type: dict[bool, list[tuple[int, int]]]
    for span, rights, *_, name in maps:
        start, end = (int(each, 16) for each in span.split("-"))
        if name == "[stack]" or ("/_lane." in name and "x" in rights):
            ranges[name == "[stack]"].append((start, end))
    (_, bottom), *_ = ranges[True]
    top = int(Path(f"/proc/{receiver.pid}/syscall").read_text().split()[-2], 16)
    with open(f"/proc/{receiver.pid}/mem", "rb", buffering=0) as memory:
        stack = os.pread(memory.fileno(), bottom - top, top)
    words = struct.unpack_from(f"={len(stack) // 8}Q", stack)
    return any(start <= word < end for word in words for start, end in ranges[False])


def armed(directory: Path) -> dict[str, str]:
    """An environment in which killpoints are looked for in a directory."""
    return {killpoints.KILL_DIRECTORY: str(directory)}
