"""How many associations there may be, and how long each may keep a receiver waiting."""

import subprocess
from pathlib import Path

from protocol.board import Intake
from tests.actors.launcher import Launcher, RunningActor, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import Peer, all_files, allow
from tests.actors.receiver.senders import echo


class TestLimits:
    def test_one_association_too_many_is_rejected_for_now(self, own: Launcher) -> None:
        own.change_settings("DicomAdapter.dicom.scp.maximumNumberOfAssociations=3")
        for number in (1, 2):
            own.start(f"receiver-{number}")
        peers = [Peer(own.port) for _ in range(3)]
        for peer in peers:
            peer.associate()
        with Peer(own.port) as late:
            late.send(raw.associate_rq())
            late.expect_rejection(2, 3, 2)
        peers[0].release()
        wait_until(lambda: own.board.active_associations == 2, "the slot given back")
        with Peer(own.port) as later:
            later.associate()
        for peer in peers:
            peer.socket.close()

    def test_a_hosts_share(self, own: Launcher) -> None:
        own.change_settings("DicomAdapter.dicom.scp.maximumAssociationsPerHost=1")
        own.start("receiver-1")
        with Peer(own.port) as one, Peer(own.port) as two:
            one.associate()
            two.send(raw.associate_rq())
            two.expect_rejection(2, 3, 2)
            assert one.store("1.2.3").status == 0

    def test_without_space_storage_is_refused_for_now_and_verification_is_not(
        self, launcher: Launcher, receiver: RunningActor
    ) -> None:
        with Peer(launcher.port) as open_, Peer(launcher.port) as both, Peer(launcher.port) as late:
            open_.associate()
            launcher.board.set_storage(Intake.PAUSED, 0, 1, is_short=False)
            try:
                assert open_.store("1.2.3").status == 0xA700
                late.send(raw.associate_rq())
                late.expect_rejection(2, 3, 1)
                assert echo(launcher).exit_code == 0
                both.associate(raw.context(1), raw.context(3, raw.VERIFICATION, raw.IMPLICIT))
                assert both.store("1.2.3").status == 0xA700
            finally:
                launcher.board.set_storage(Intake.OPEN, 10, 1, is_short=False)
            assert open_.store("1.2.3").status == 0
            open_.release()
            both.release()

    def test_idle_associations_are_aborted(self, own: Launcher) -> None:
        own.change_settings("DicomAdapter.dicom.scp.limits.idleSeconds=0.5")
        own.start("receiver-1")
        with Peer(own.port) as peer:
            peer.associate()
            assert peer.store("1.2.3").status == 0
            peer.expect_abort()
        assert own.board.active_associations == 0

    def test_a_full_disk_is_no_success(self, tmp_path: Path) -> None:
        """The limit on a file's size stands for it: it fails in the middle of a write as a full disk does."""
        with Launcher(tmp_path) as launcher:
            allow(launcher.spool, "CT")
            receiver = launcher.start("receiver-1")
            subprocess.run(["prlimit", f"--pid={receiver.pid}", "--fsize=100000"], check=True)
            with Peer(launcher.port) as peer:
                peer.associate()
                response = peer.store("1.2.3", raw.dataset("1.2.3", padding=500_000))
                assert response.status == 0xA700
                assert response.comment
                assert all_files(launcher.spool) == []
                assert peer.store("1.2.4").status == 0
                peer.release()
            assert "remedy" in receiver.wait_for_log("object_not_stored")

    def test_a_thousand_idle_associations_cost_next_to_nothing(self, own: Launcher) -> None:
        own.change_settings("DicomAdapter.dicom.scp.maximumNumberOfAssociations=1000")
        receiver = own.start("receiver-1")
        peers = [Peer(own.port) for _ in range(400)]
        for peer in peers:
            peer.associate()

        def cpu_ticks() -> int:
            fields = Path(f"/proc/{receiver.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        beats = len(receiver.told)
        before = cpu_ticks()
        receiver.wait_for(lambda: len(receiver.told) >= beats + 3, "three heartbeats")
        assert cpu_ticks() - before <= 9  # of 300
        for peer in peers:
            peer.socket.close()
        wait_until(lambda: own.board.active_associations == 0, "no association left")
