"""The fault harness itself: a comparison that finds what is wrong, a sender that claims no more than it was told."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.actors.receiver.raw import P_DATA, RELEASE_RP, context, element, item, pdu, pdv
from tests.faults.comparison import compare
from tests.faults.scu import Association, RejectedError, digest, make_dataset

_RECORD = Path(__file__).with_name("record.py")


def write(directory: Path, name: str, *lines: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text("".join(f"{line}\n" for line in lines))


def test_faultless(tmp_path: Path) -> None:
    write(tmp_path, "job1.1", "1.1 a", "1.2 b")
    write(tmp_path, "job1.2", "1.2 b", "1.1 a")  # executed twice
    write(tmp_path, "job2.1", "1.3 c", "1.4 d")  # 1.4 was sent, and its answer was lost
    write(tmp_path, "job3.1.new", "1.9 x")  # not finished
    sent = {"1.1": "a", "1.2": "b", "1.3": "c", "1.4": "d"}
    found = compare({uid: sent[uid] for uid in ("1.1", "1.2", "1.3")}, sent, tmp_path)
    assert found.faultless
    assert str(found) == (
        "acknowledged=3 lost=0 doubled=0 altered=0 strange=0 jobs=2 jobs_doubled=0 executions=3 changed=0"
    )


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ({"job1.1": ["1.1 a"]}, {"lost": ["1.2"]}),
        ({"job1.1": ["1.1 a", "1.2 b"], "job2.1": ["1.2 b"]}, {"doubled": ["1.2"], "jobs_doubled": ["job1", "job2"]}),
        ({"job1.1": ["1.1 a", "1.2 b", "1.2 b"]}, {"doubled": ["1.2"]}),
        ({"job1.1": ["1.1 a", "1.2 x"]}, {"altered": ["1.2"]}),
        ({"job1.1": ["1.1 a", "1.2 b", "1.3 c"]}, {"strange": ["1.3"]}),
        ({"job1.1": ["1.1 a", "1.2 b"], "job1.2": ["1.1 a"]}, {"changed": ["job1"]}),
    ],
)
def test_each_fault_is_found(tmp_path: Path, records: dict[str, list[str]], wrong: dict[str, list[str]]) -> None:
    for name, lines in records.items():
        write(tmp_path, name, *lines)
    sent = {"1.1": "a", "1.2": "b"}
    found = compare(sent, sent, tmp_path)
    assert not found.faultless
    names = ("lost", "doubled", "altered", "strange", "jobs_doubled", "changed")
    assert {name: getattr(found, name) for name in names if getattr(found, name)} == wrong
    assert all(name in found.examples() for name in wrong)


def test_the_recording_pipeline_writes_uid_and_digest(tmp_path: Path) -> None:
    dataset = make_dataset("1.2.3", "1.2", "PAT-R", b"abc")
    meta = bytes(range(60))
    place = tmp_path / "input" / "dcm" / "PAT-R"
    place.mkdir(parents=True)
    head = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little")
    (place / "1.2.3.dcm").write_bytes(head + meta + dataset)
    (tmp_path / "records").mkdir()
    command = [sys.executable, "-I", "-S", _RECORD, tmp_path / "input", tmp_path / "records"]
    subprocess.run(command, env={"JOB_ID": "job"}, check=True)
    (written,) = (tmp_path / "records").iterdir()
    assert written.read_text() == f"1.2.3 {digest(dataset)}\n"


class Peer:
    """Takes one connection, answers the association request and then with the given PDUs, one for each receive."""

    def __init__(self, first: bytes, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answers = (first, *answers)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, self._listener:
            for answer in self._answers:
                connection.recv(1 << 20)
                connection.sendall(answer)


_AC = pdu(2, bytes(68) + item(0x10, b"1.2.840.10008.3.1.1.1") + context(1))


def response(message_id: int, uid: bytes, status: int) -> bytes:
    elements = element(0x0100, 0x8001) + element(0x0120, message_id) + element(0x0900, status) + element(0x1000, uid)
    return pdu(
        P_DATA, pdv(1, 3, element(0, len(elements))[:4] + b"\4\0\0\0" + len(elements).to_bytes(4, "little") + elements)
    )


def test_a_sender_tells_success_from_failure_and_silence() -> None:
    peer = Peer(_AC, response(1, b"1.2.3\0", 0), response(2, b"1.2.4\0", 0xA700), b"")
    association = Association(peer.port, called="X", calling="Y", seconds=10.0)
    assert association.store("1.2.3", b"data") == 0
    assert association.store("1.2.4", b"data") == 0xA700
    with pytest.raises(ConnectionError):
        association.store("1.2.5", b"data")
    association.close()


def test_an_answer_to_another_request_is_none() -> None:
    association = Association(Peer(_AC, response(7, b"1.2.3\0", 0)).port, called="X", calling="Y", seconds=10.0)
    with pytest.raises(AssertionError):
        association.store("1.2.3", b"data")
    association.close()


def test_rejection_and_refusal() -> None:
    with pytest.raises(RejectedError, match=r"\(2, 3, 2\)"):
        Association(Peer(pdu(3, bytes((0, 2, 3, 2)))).port, called="X", calling="Y", seconds=10.0)
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        Association(port, called="X", calling="Y", seconds=10.0)


def test_release() -> None:
    association = Association(Peer(_AC, pdu(RELEASE_RP, bytes(4))).port, called="X", calling="Y", seconds=10.0)
    association.release()


def test_signals_reach_only_processes_of_the_gateway() -> None:
    from tests.faults.victims import Victims  # noqa: PLC0415

    class Nobody:
        mark = "no process has this"
        spool = Path("/nowhere/at/all")

    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert not Victims(Nobody()).kill(stranger.pid)  # type: ignore[arg-type]
        assert stranger.poll() is None
    finally:
        os.kill(stranger.pid, signal.SIGKILL)
        stranger.wait(10.0)
