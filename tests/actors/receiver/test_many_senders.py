"""Many senders whose objects are synced before they are answered: those of a turn together, large ones beside them."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actors.launcher import Launcher, RunningActor, wait_until
from tests.actors.receiver.raw import ABORT, P_DATA, Peer, Response, allow, patterned_dataset, store_rq

PEERS = 8
ROUNDS = 12
_SIZES = (200, 9_000, 60_000, 100_000, 700_000)


class Many:
    """A receiver that syncs, and its senders.

    Args:
        launcher: of the receiver.
        receiver: the process.
        peers: associations.
    """

    def __init__(self, launcher: Launcher, receiver: RunningActor, peers: list[Peer]) -> None:
        self.launcher, self.receiver, self.peers = launcher, receiver, peers
        self._spool = launcher.spool.instances

    def files(self, suffix: str) -> list[Path]:
        """What lies in the shards."""
        return list(self._spool.glob(f"*/*{suffix}"))

    def descriptors(self) -> int:
        """How many the receiver has."""
        return len(os.listdir(f"/proc/{self.receiver.pid}/fd"))


@contextlib.contextmanager
def many(directory: Path) -> Iterator[Many]:
    with Launcher(directory, "DicomAdapter.storage.syncOnStore=true") as launcher, contextlib.ExitStack() as stack:
        allow(launcher.spool, "CT")
        receiver = launcher.start("receiver-1")
        peers = [stack.enter_context(Peer(launcher.port)) for _ in range(PEERS)]
        for peer in peers:
            peer.associate()
        yield Many(launcher, receiver, peers)


def uid_of(number: int, which: int) -> str:
    """Of one peer's object of a round."""
    return f"1.2.{number}.{which}"


def size_of(number: int, which: int) -> int:
    """So that each turn has several sizes, and each peer all of them."""
    return _SIZES[(number + which) % len(_SIZES)]


def test_each_answer_stands_for_one_file_with_what_was_sent(tmp_path: Path) -> None:
    with many(tmp_path) as subject:
        sent = []
        for number in range(ROUNDS):
            for which, peer in enumerate(subject.peers):
                uid = uid_of(number, which)
                data = patterned_dataset(uid, size_of(number, which))
                sent.append(data)
                peer.command(store_rq(uid, message_id=number + 1))
                peer.dataset(data)
            for which, peer in enumerate(subject.peers):
                response = peer.response()
                assert response.status == 0
                assert response.number(0x0120) == number + 1
                assert response.values[0x1000].rstrip(b"\0").decode() == uid_of(number, which)
            assert not subject.files(".part")
        found = [path.read_bytes() for path in subject.files(".dcm")]
        assert len(found) == len(sent)
        assert all(sum(file.endswith(data) for file in found) == 1 for data in sent)
        for peer in subject.peers:
            peer.release()


def test_requests_before_their_answers_are_all_answered(tmp_path: Path) -> None:
    """Nobody may do so who has not negotiated it, but nothing may be lost by it either."""
    with many(tmp_path) as subject:
        for which, peer in enumerate(subject.peers):
            for number in range(5):
                uid = uid_of(number, which)
                peer.command(store_rq(uid, message_id=number + 1))
                peer.dataset(patterned_dataset(uid, 3000))
        for peer in subject.peers:
            answers = [peer.response() for _ in range(5)]
            assert {answer.status for answer in answers} == {0}
            assert sorted(answer.number(0x0120) for answer in answers) == [1, 2, 3, 4, 5]
        assert len(subject.files(".dcm")) == 5 * PEERS


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_peer_that_is_gone_before_its_answer_costs_nobody_else(tmp_path: Path, how: str) -> None:
    with many(tmp_path) as subject:
        for which, peer in enumerate(subject.peers):
            assert peer.store(uid_of(2, which)).status == 0
        before = subject.descriptors()  # with that of the shard
        gone, staying = subject.peers[: PEERS // 2], subject.peers[PEERS // 2 :]
        for which, peer in enumerate(subject.peers):
            uid = uid_of(0, which)
            peer.command(store_rq(uid))
            peer.dataset(patterned_dataset(uid, 9_000))
            if peer in gone:
                if how == "resets":
                    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.socket.close()
        assert {peer.response().status for peer in staying} == {0}
        assert {peer.store(uid_of(1, which)).status for which, peer in enumerate(staying)} == {0}
        wait_until(lambda: subject.descriptors() <= before - len(gone), "the lost peers' descriptors")
        wait_until(lambda: not subject.files(".part"), "nothing in transit")
        assert len(subject.files(".dcm")) >= PEERS + 2 * len(staying)


def test_a_drain_amid_many_answers_what_it_took(tmp_path: Path) -> None:
    with many(tmp_path) as subject:
        first, *others = subject.peers
        for which, peer in enumerate(subject.peers):
            uid = uid_of(0, which)
            peer.command(store_rq(uid))
            peer.dataset(patterned_dataset(uid, size_of(0, which)))
        assert first.response().status == 0
        subject.receiver.drain(10.0)
        answered = 1 + sum(_is_answered(peer) for peer in others)
        for peer in subject.peers:
            peer.socket.close()
        subject.receiver.wait_ended()
        assert len(subject.files(".dcm")) == answered
        assert not subject.files(".part")


def _is_answered(peer: Peer) -> bool:
    """Whether an object was stored; the association of one that was not has ended before it began."""
    kind, body = peer.receive()
    if kind in (0, ABORT):
        return False
    assert kind == P_DATA
    assert Response(body[6:]).status == 0
    return True
