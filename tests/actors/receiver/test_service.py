"""The file of an object is opened as soon as its request has come, and vanishes when the object does not follow."""

from collections.abc import Iterator

import pytest

from tests.actors.launcher import Launcher, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import Peer, all_files, pdu, pdv


@pytest.fixture
def requesting(own: Launcher) -> Iterator[Peer]:
    """A peer that has sent a request for 1.2.2 and nothing of its dataset; the file is open."""
    own.start("receiver-1")
    with Peer(own.port) as peer:
        peer.associate()
        peer.command(raw.store_rq("1.2.2"))
        wait_until(lambda: len(all_files(own.spool)) == 1, "the open file")
        yield peer


def test_a_dataset_that_never_comes(own: Launcher, requesting: Peer) -> None:
    requesting.send(pdu(raw.ABORT, bytes(4)))
    wait_until(lambda: not all_files(own.spool), "the file's removal")


def test_a_dataset_of_another_object(own: Launcher, requesting: Peer) -> None:
    requesting.send(pdu(raw.P_DATA, pdv(1, 0, raw.dataset("1.2.3"))))
    requesting.send(pdu(raw.P_DATA, pdv(1, 2, b"")))
    assert requesting.response().status == 0xA900
    assert not all_files(own.spool)
    assert requesting.store("1.2.2").status == 0
    assert len(all_files(own.spool)) == 1
