"""The file of an object is opened as soon as its request has come, and vanishes when the object does not follow."""

from tests.actors.launcher import Launcher, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import Peer, all_files, pdu, pdv


def test_the_file_is_open_before_the_dataset_comes(own: Launcher) -> None:
    own.start("receiver-1")
    with Peer(own.port) as peer:
        peer.associate()
        peer.command(raw.store_rq("1.2.2"))
        wait_until(lambda: len(all_files(own.spool)) == 1, "the open file")
        peer.send(pdu(raw.ABORT, bytes(4)))
        wait_until(lambda: not all_files(own.spool), "its removal")


def test_a_file_that_was_open_for_another_object_is_removed(own: Launcher) -> None:
    own.start("receiver-1")
    with Peer(own.port) as peer:
        peer.associate()
        peer.command(raw.store_rq("1.2.2"))
        wait_until(lambda: len(all_files(own.spool)) == 1, "the open file")
        peer.send(pdu(raw.P_DATA, pdv(1, 0, raw.dataset("1.2.3"))))
        peer.send(pdu(raw.P_DATA, pdv(1, 2, b"")))
        assert peer.response().status == 0xA900
        assert not all_files(own.spool)
        assert peer.store("1.2.2").status == 0
        assert len(all_files(own.spool)) == 1
