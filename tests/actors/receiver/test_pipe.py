"""Large objects go from the socket into their file through a pipe: whole, in every layout, whatever happens."""

import errno
import os
import random
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.receiver.pipe import Pipe
from tests.actors.launcher import Launcher, RunningActor, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import Peer, all_files, pdu, pdv, stored_files

_MB = 1_000_000
_PDU_BYTES = 131072  # as large as DCMTK sends them
_PIECE_BYTES = 150_000


def _large(uid: str, size: int = 9 * _MB) -> bytes:
    """A dataset whose bytes are all different, nearly."""
    empty = raw.dataset(uid, padding=size)
    return empty[:-size] + random.Random(uid).randbytes(size)


def _plain(data: bytes) -> Iterator[bytes]:
    """One PDV in each PDU, as nearly everybody sends."""
    step = _PDU_BYTES - 6
    for start in range(0, len(data), step):
        yield pdu(raw.P_DATA, pdv(1, 2 if start + step >= len(data) else 0, data[start : start + step]))


def _mixed(data: bytes) -> Iterator[bytes]:
    """PDUs and fragments of all sizes, several in one PDU, empty ones, and an empty last one."""
    chance = random.Random(7)
    at = 0
    while at < len(data):
        body = b""
        while not body or (len(body) < 60_000 and chance.random() < 0.5):
            size = chance.choice((0, 1, 11, 12, 1000, 32767, 32768, 60_000))
            body += pdv(1, 0, data[at : at + size])
            at += size
        yield pdu(raw.P_DATA, body)
    yield pdu(raw.P_DATA, pdv(1, 2, b""))


def _is_whole(path: Path, data: bytes) -> bool:
    """Whether a file ends with a dataset, behind a file meta group and nothing else."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[128:132] == b"DICM" and content[144 + length :] == data


def _written_by_calls(pid: int) -> int:
    """Bytes that a process has handed to write(2) and its like: none of what was spliced."""
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar: ")[1].split()[0])


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def associated(launcher: Launcher, receiver: RunningActor) -> Iterator[Peer]:
    with Peer(launcher.port) as peer:
        peer.associate()
        yield peer


def _send(peer: Peer, uid: str, data: bytes, layout: Iterator[bytes]) -> None:
    """In pieces that end within fragments: of a peer that is slower than the receiver nothing else is spliced."""
    peer.command(raw.store_rq(uid))
    stream = b"".join(layout)
    for start in range(0, len(stream), _PIECE_BYTES):
        peer.send(stream[start : start + _PIECE_BYTES])


@pytest.mark.parametrize("layout", [_plain, _mixed])
def test_a_large_object_is_whole(launcher: Launcher, receiver: RunningActor, associated: Peer, layout: object) -> None:
    for number in range(3):
        uid = f"1.2.30.{number}"
        data = _large(uid)
        before, known = _written_by_calls(receiver.pid), set(stored_files(launcher.spool))
        _send(associated, uid, data, layout(data))  # type: ignore[operator]
        assert associated.response().status == 0
        (path,) = set(stored_files(launcher.spool)) - known
        assert _is_whole(path, data)
        if layout is _plain:
            assert _written_by_calls(receiver.pid) - before < 6 * _MB  # the first 4 MiB, and a receive more
        assert associated.store(f"1.2.31.{number}").status == 0  # a small one between
    associated.release()


def test_a_peer_that_sends_byte_by_byte(launcher: Launcher, associated: Peer) -> None:
    data = _large("1.2.32")
    associated.command(raw.store_rq("1.2.32"))
    stream = b"".join(_plain(data))
    at, known = 0, set(stored_files(launcher.spool))
    for size in (5 * _MB, 1, 1, 1, 100_000, 7, 200_000, 1, 50_000, len(stream)):
        associated.send(stream[at : at + size])
        at += size
    assert associated.response().status == 0
    (path,) = set(stored_files(launcher.spool)) - known
    assert _is_whole(path, data)


def test_urgent_data_is_received_past(launcher: Launcher, receiver: RunningActor, associated: Peer) -> None:
    """The pipe does not get past it, and the receiver must not ask it again and again."""
    data = _large("1.2.37")
    stream = b"".join(_plain(data))
    associated.command(raw.store_rq("1.2.37"))
    associated.send(stream[: 6 * _MB])
    associated.socket.send(b"!", socket.MSG_OOB)
    associated.send(stream[6 * _MB : 6 * _MB + 1000])
    before = _processor_seconds(receiver.pid)
    time.sleep(0.5)  # what is measured: a receiver that spins is busy all that time; the PDU has 1.5 s
    assert _processor_seconds(receiver.pid) - before < 0.25
    known = set(stored_files(launcher.spool))
    associated.send(stream[6 * _MB + 1000 :])
    assert associated.response().status == 0
    (path,) = set(stored_files(launcher.spool)) - known
    assert _is_whole(path, data)


def test_a_file_that_cannot_grow(launcher: Launcher, receiver: RunningActor, associated: Peer) -> None:
    soft, hard = resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE, (6 * _MB, hard))
    try:
        data = _large("1.2.33")
        _send(associated, "1.2.33", data, _plain(data))
        assert associated.response().status == 0xA700
        assert not [path for path in all_files(launcher.spool) if path.suffix == ".part"]
    finally:
        resource.prlimit(receiver.pid, resource.RLIMIT_FSIZE, (soft, hard))
    known = set(stored_files(launcher.spool))
    _send(associated, "1.2.33", data, _plain(data))
    assert associated.response().status == 0
    (path,) = set(stored_files(launcher.spool)) - known
    assert _is_whole(path, data)


def test_who_aborts_in_the_middle_leaves_nothing(launcher: Launcher, associated: Peer) -> None:
    data = _large("1.2.34")
    whole = list(_plain(data))
    _send(associated, "1.2.34", data, iter(whole[:50]))
    associated.send(pdu(raw.ABORT, bytes(4)))
    associated.expect_end()
    wait_until(lambda: not [path for path in all_files(launcher.spool) if path.suffix == ".part"], "the part's removal")


def test_what_comes_after_the_deadline_is_in_no_other_object(launcher: Launcher, associated: Peer) -> None:
    """The receive that was planned when the peer fell silent comes after its A-ABORT."""
    data = _large("1.2.35")
    stream = b"".join(_plain(data))
    associated.command(raw.store_rq("1.2.35"))
    associated.send(stream[: 6 * _MB])
    kind, _ = associated.receive()
    assert kind == raw.ABORT
    associated.send(stream[6 * _MB : 6 * _MB + 50_000])
    with Peer(launcher.port) as other:
        other.associate()
        known, data = set(stored_files(launcher.spool)), _large("1.2.36")
        _send(other, "1.2.36", data, _plain(data))
        assert other.response().status == 0
        (path,) = set(stored_files(launcher.spool)) - known
        assert _is_whole(path, data)


# The pipe by itself.


@pytest.fixture
def told() -> list[str]:
    """Why the pipe is of no use."""
    return []


@pytest.fixture
def pipe(told: list[str]) -> Iterator[Pipe]:
    made = Pipe(told.append)
    assert made.works
    yield made
    made.close()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    yield peer, ours
    peer.close()
    ours.close()


def _take(pipe: Pipe, ours: socket.socket, most: int) -> int:
    def taken() -> int | None:
        try:
            return pipe.take(ours.fileno(), most)
        except BlockingIOError:
            return None

    found = wait_until(lambda: (count := taken()) is not None and (count,), "something to take")
    assert found
    return int(found[0])


def test_nothing_has_come_and_the_peer_has_gone(pipe: Pipe, ends: tuple[socket.socket, socket.socket]) -> None:
    peer, ours = ends
    with pytest.raises(BlockingIOError):
        pipe.take(ours.fileno(), 100)
    assert pipe.works
    peer.close()
    assert _take(pipe, ours, 100) == 0


def test_a_file_that_takes_no_splice_is_written(
    pipe: Pipe, told: list[str], ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    peer, ours = ends
    peer.send(b"in the pipe")
    assert _take(pipe, ours, 100) == 11
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # splice(2): EINVAL
    pipe.put(fd, 11)
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"in the pipe"
    assert not pipe.works
    assert told == [os.strerror(errno.EINVAL)]


def test_a_failed_write_leaves_the_pipe_empty(
    pipe: Pipe, ends: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    peer, ours = ends
    peer.send(b"lost")
    assert _take(pipe, ours, 100) == 4
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        pipe.put(fd, 4)
    os.close(fd)
    peer.send(b"next")
    assert _take(pipe, ours, 100) == 4
    with (tmp_path / "file").open("wb") as file:
        pipe.put(file.fileno(), 4)
    assert (tmp_path / "file").read_bytes() == b"next"


def test_what_is_no_socket_takes_the_pipe_out_of_use(pipe: Pipe, tmp_path: Path) -> None:
    file = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        pipe.take(file, 100)
    os.close(file)
    assert not pipe.works
