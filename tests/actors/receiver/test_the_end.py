"""How a receiver ends: replaced, stopped, killed."""

from protocol import messages
from tests.actors.launcher import Launcher, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import Peer, all_files, pdu, pdv, stored_files


class TestTheEnd:
    def test_a_replaced_receiver_finishes_its_associations(self, own: Launcher) -> None:
        old = own.start("receiver-1")
        with Peer(own.port) as peer:
            peer.associate()
            assert peer.store("1.2.1").status == 0
            own.start("receiver-1")
            old.drain(900)
            old.wait_for(lambda: messages.Draining() in old.told, "draining")
            assert peer.store("1.2.2").status == 0
            with Peer(own.port) as next_:
                next_.associate()
                assert next_.store("1.2.3").status == 0
                next_.release()
            assert old.process.poll() is None
            peer.release()
        assert old.wait_ended() == 0
        assert len(stored_files(own.spool)) == 3
        assert old.log_text().count("association_accepted") == 1

    def test_at_the_end_of_its_time_it_cuts_between_objects(self, own: Launcher) -> None:
        old = own.start("receiver-1")
        with Peer(own.port) as busy, Peer(own.port) as idle:
            busy.associate()
            idle.associate()
            busy.command(raw.store_rq("1.2.1"))
            busy.send(pdu(raw.P_DATA, pdv(1, 0, raw.dataset("1.2.1")[:500])))
            old.drain(3)
            idle.expect_abort(source=0)
            busy.dataset(raw.dataset("1.2.1")[500:])
            assert busy.response().status == 0
            busy.expect_abort(source=0)
        assert old.wait_ended() == 0
        assert len(stored_files(own.spool)) == 1

    def test_a_stop_of_the_gateway_cuts_at_once_but_no_object(self, own: Launcher) -> None:
        receiver = own.start("receiver-1")
        with Peer(own.port) as busy, Peer(own.port) as idle:
            busy.associate()
            idle.associate()
            busy.command(raw.store_rq("1.2.1"))
            receiver.tell(messages.Drain(seconds=20, gateway_stops=True))
            idle.expect_abort(source=0)
            busy.dataset(raw.dataset("1.2.1"))
            assert busy.response().status == 0
            busy.expect_abort(source=0)
        assert receiver.wait_ended(10) == 0

    def test_a_hand_over_may_be_hastened(self, own: Launcher) -> None:
        receiver = own.start("receiver-1")
        with Peer(own.port) as peer:
            peer.associate()
            receiver.drain(900)
            receiver.tell(messages.Drain(seconds=5, gateway_stops=True))
            peer.expect_abort(source=0)
        assert receiver.wait_ended(10) == 0

    def test_what_is_never_finished_is_cut_and_leaves_nothing(self, own: Launcher) -> None:
        receiver = own.start("receiver-1")
        with Peer(own.port) as peer:
            peer.associate()
            peer.command(raw.store_rq("1.2.1"))
            peer.send(pdu(raw.P_DATA, pdv(1, 0, raw.dataset("1.2.1"))))
            wait_until(lambda: all_files(own.spool), "an object in transit")
            receiver.tell(messages.Drain(seconds=0.5, gateway_stops=True))
            peer.expect_abort(source=0)
        assert receiver.wait_ended(10) == 0
        assert all_files(own.spool) == []
        assert list(own.spool.writers.iterdir()) == []

    def test_connections_wait_for_a_successor(self, own: Launcher) -> None:
        """The port's queue belongs to the supervisor: a killed receiver loses none of it."""
        first = own.start("receiver-1")
        first.suspend()
        peers = [Peer(own.port) for _ in range(5)]
        for peer in peers:
            peer.send(raw.associate_rq())
        first.kill()
        own.bury(first)
        own.start("receiver-1")
        for peer in peers:
            assert peer.receive()[0] == raw.AC
            peer.release()
            peer.socket.close()

    def test_without_its_supervisor_it_drains(self, own: Launcher) -> None:
        receiver = own.start("receiver-1")
        receiver.abandon()
        assert receiver.wait_ended(10) == 0
