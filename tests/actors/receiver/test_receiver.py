"""Real senders: what is acknowledged is in the spool, byte for byte; who may send, how many, and the end."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
import zmq
from pynetdicom import AE

from protocol import messages
from protocol.access import AeTitleRule
from protocol.board import Intake
from protocol.dimse import IMPLEMENTATION_CLASS_UID
from protocol.moves import ExpectedMove, MovesFile
from protocol.spool import ShardWriter, new_association_id
from tests.actors.launcher import Launcher, RunningActor, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import Peer, all_files, allow, pdu, pdv, stored_files
from tests.peers import Sent, start_storescu, storescu
from tests.peers import echoscu as run_echoscu
from tests.samples import (
    Study,
    convert,
    dataset_bytes,
    dataset_offset,
    encapsulated,
    jpeg2000_frame,
    make_huge,
    make_study,
)

CALLING = "TESTER"


def send(launcher: Launcher, *files: Path, called: str = "CT", **more: Any) -> Sent:
    return storescu(launcher.port, *files, called=called, calling=CALLING, **more)


def echo(launcher: Launcher, called: str = "CT", calling: str = CALLING) -> Sent:
    return run_echoscu(launcher.port, called=called, calling=calling)


def by_uid(launcher: Launcher) -> dict[str, Path]:
    """The instances in the spool by SOP Instance UID."""
    return {
        str(pydicom.filereader.read_file_meta_info(path).MediaStorageSOPInstanceUID): path
        for path in stored_files(launcher.spool)
    }


def dataset_start(path: Path) -> int:
    """Where the dataset of a file begins."""
    with path.open("rb") as file:
        return dataset_offset(file.read(1000))


def check_equal(launcher: Launcher, study: Study) -> None:
    """Each file of a study is in the spool with the same dataset, byte for byte."""
    stored = by_uid(launcher)
    assert study.files.keys() <= stored.keys()
    for uid, path in study.files.items():
        assert dataset_bytes(stored[uid]) == dataset_bytes(path)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"), "PAT-1", 12, rows=512)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("small"), "PAT-2", 4, rows=64)


class TestStorage:
    @pytest.mark.parametrize("sync", ["true", "false"])
    def test_every_dataset_is_kept_byte_for_byte(self, tmp_path: Path, study: Study, sync: str) -> None:
        with Launcher(tmp_path, f"DicomAdapter.storage.syncOnStore={sync}") as launcher:
            allow(launcher.spool, "CT")
            launcher.start("receiver-1")
            sent = send(launcher, study.directory)
            assert sent.exit_code == 0
            assert sent.successes == len(study.files)
            check_equal(launcher, study)
            total = sum(path.stat().st_size for path in stored_files(launcher.spool))
            assert launcher.board.stored_bytes == total
            assert not [path for path in all_files(launcher.spool) if path.suffix != ".dcm"]
            assert all(path.stat().st_mode & 0o777 == 0o440 for path in stored_files(launcher.spool))

    def test_the_file_meta_group_tells_of_the_association(
        self, launcher: Launcher, receiver: RunningActor, small: Study
    ) -> None:
        assert send(launcher, small.directory).successes == len(small.files)
        uid, source = next(iter(small.files.items()))
        path = by_uid(launcher)[uid]
        meta, original = pydicom.filereader.read_file_meta_info(path), pydicom.dcmread(source)
        assert meta.MediaStorageSOPClassUID == original.SOPClassUID
        assert meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID
        assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
        assert (meta.SendingApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == (CALLING, "CT")
        assert meta.SourceApplicationEntityTitle == CALLING
        assert meta.SendingPresentationAddress.startswith("dicom://127.0.0.1:")
        assert meta.ReceivingPresentationAddress == f"dicom://127.0.0.1:{launcher.port}"
        accepted = receiver.wait_for_log("association_accepted")
        assert f"association={path.stem.partition('-')[0]}" in receiver.log_text()
        assert "OFFIS_DCMTK" in accepted or "calling=TESTER" in accepted

    @pytest.mark.parametrize(
        ("syntax", "option"),
        [
            ("1.2.840.10008.1.2", "-xi"),
            ("1.2.840.10008.1.2.2", "-xb"),
            ("1.2.840.10008.1.2.1.99", "-xd"),
            ("1.2.840.10008.1.2.4.70", "-xs"),
            ("1.2.840.10008.1.2.4.80", "-xt"),
            ("1.2.840.10008.1.2.5", "-xr"),
        ],
    )
    @pytest.mark.usefixtures("receiver")
    def test_transfer_syntaxes(self, launcher: Launcher, tmp_path: Path, syntax: str, option: str) -> None:
        study = convert(make_study(tmp_path / "own", "PAT-3", 2, rows=64), tmp_path / "converted", syntax)
        assert send(launcher, study.directory, options=(option,)).successes == 2
        if syntax != "1.2.840.10008.1.2.1.99":  # which DCMTK deflates anew
            check_equal(launcher, study)
        stored = by_uid(launcher)
        for uid in study.files:
            assert pydicom.filereader.read_file_meta_info(stored[uid]).TransferSyntaxUID == syntax

    def test_jpeg_2000_and_a_private_sop_class(
        self, launcher: Launcher, receiver: RunningActor, tmp_path: Path
    ) -> None:
        jpeg = encapsulated(
            make_study(tmp_path / "a", "PAT-4", 1, rows=64),
            tmp_path / "b",
            "1.2.840.10008.1.2.4.90",
            [jpeg2000_frame()],
        )
        assert send(launcher, jpeg.directory, options=("-xv",)).successes == 1
        check_equal(launcher, jpeg)
        uid = "1.2.3.4.5.6"
        private = "1.2.826.0.1.3680043.8.498.77.1"
        with Peer(launcher.port) as peer:
            peer.associate(raw.context(1, private, "1.3.46.670589.33.1.4.1"))
            assert peer.store(uid, b"anything at all", sop_class=private).status == 0
            peer.release()
        assert dataset_bytes(by_uid(launcher)[uid]) == b"anything at all"

    def test_a_large_object_needs_no_memory(self, launcher: Launcher, receiver: RunningActor, tmp_path: Path) -> None:
        study = make_huge(tmp_path / "huge.dcm", "PAT-5", 400_000_000)
        sent = send(launcher, study.directory, options=("-xe", "--max-pdu", "131072"))
        assert sent.successes == 1
        (uid,) = study.files
        path = by_uid(launcher)[uid]
        skip = ":".join(str(dataset_start(each)) for each in (path, study.files[uid]))
        subprocess.run(["cmp", f"--ignore-initial={skip}", path, study.files[uid]], check=True)
        path.unlink()
        status = Path(f"/proc/{receiver.pid}/status").read_text()
        (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
        assert peak < 100_000

    def test_several_receivers_share_the_port(self, own: Launcher, small: Study, study: Study) -> None:
        for number in (1, 2):
            own.start(f"receiver-{number}")
        senders = [
            start_storescu(own.port, each.directory, called="CT", calling=CALLING) for each in (small, study) * 3
        ]
        for sender in senders:
            sent = sender.result()
            assert sent.exit_code == 0
            assert set(sent.statuses) == {"Success"}
        assert len(stored_files(own.spool)) == 3 * (len(small.files) + len(study.files))

    def test_associations_are_spread_over_the_receivers(self, own: Launcher) -> None:
        receivers = [own.start(f"receiver-{number}") for number in (1, 2)]
        peers = []
        for _ in range(10):
            peers.append(Peer(own.port))
            peers[-1].associate()

        def accepted() -> list[int]:
            return [receiver.log_text().count("association_accepted") for receiver in receivers]

        wait_until(lambda: sum(accepted()) == 10, "ten associations in the logs")
        shares = accepted()
        assert min(shares) >= 4
        for peer in peers:
            peer.release()
            peer.socket.close()

    def test_nagles_algorithm_at_the_sender_does_not_slow_it_down(
        self, launcher: Launcher, receiver: RunningActor, tmp_path: Path
    ) -> None:
        """A sender with it waits 40 to 90 ms an object for delayed acknowledgements."""
        study = make_study(tmp_path, "PAT-6", 60, rows=64)
        sent = send(launcher, study.directory, nodelay=False)
        assert sent.successes == 60
        assert sent.seconds < 2.4


class TestAnnouncement:
    @pytest.fixture
    def extractor(self, own: Launcher) -> Iterator["zmq.Socket[bytes]"]:
        """The only extractor's end of the channel."""
        own.change_settings("DicomAdapter.dicom.scp.receivers=1")
        context = zmq.Context()
        socket_ = context.socket(zmq.PULL)
        socket_.setsockopt(zmq.RCVTIMEO, 20_000)
        socket_.bind(f"ipc://{own.runtime}/instances.extractor-1")
        yield socket_
        context.destroy(linger=0)

    def test_what_was_stored_is_told_to_an_extractor(
        self, own: Launcher, extractor: "zmq.Socket[bytes]", small: Study
    ) -> None:
        own.start("receiver-1")
        assert send(own, small.directory).successes == 4
        told: list[messages.StoredInstance] = []
        decode = messages.decoder(messages.ToExtractor).decode
        while len(told) < 4:
            told += decode(extractor.recv()).instances
        assert sorted(own.spool.instance_path(each.identifier) for each in told) == list(
            map(str, stored_files(own.spool))
        )
        assert all(each.stored.boot_ns for each in told)


class TestAdmission:
    def test_the_originals_cases(self, launcher: Launcher, receiver: RunningActor) -> None:
        assert echo(launcher).exit_code == 0
        assert "Calling AE Title Not Recognized" in echo(launcher, calling="NOBODY").rejection
        assert "Called AE Title Not Recognized" in echo(launcher, called="NOWHERE").rejection

    def test_a_hint_when_the_case_differs(self, launcher: Launcher, receiver: RunningActor) -> None:
        allow(launcher.spool, "Chest", calling="Scanner")
        assert echo(launcher, "CHEST", "Scanner").rejection
        line = receiver.wait_for_log("association_rejected")
        # Repeats of one peer are summed up, so an earlier rejection may be the one that is written.
        assert "peer=127.0.0.1" in line

    def test_another_host(self, launcher: Launcher, receiver: RunningActor) -> None:
        allow(launcher.spool, "CT", host="10.1.2.3")
        assert "Calling AE Title Not Recognized" in echo(launcher).rejection

    def test_a_name_is_resolved_before_its_first_association_is_refused(
        self, launcher: Launcher, receiver: RunningActor
    ) -> None:
        allow(launcher.spool, "CT", host="localhost")
        assert echo(launcher).exit_code == 0

    def test_unknown_sources_may_be_allowed(self, own: Launcher) -> None:
        own.change_settings("DicomAdapter.dicom.scp.rejectUnknownSources=false")
        own.start("receiver-1")
        assert echo(own, calling="NOBODY").exit_code == 0
        own.change_settings("DicomAdapter.dicom.scp.rejectUnknownSources=true")
        wait_until(lambda: echo(own, calling="NOBODY").exit_code, "the new settings in force")

    def test_verification_may_be_off(self, own: Launcher, small: Study) -> None:
        own.change_settings("DicomAdapter.dicom.scp.verification.enabled=false")
        own.start("receiver-1")
        assert "App Context Name Not Supported" in echo(own).rejection
        assert send(own, small.directory).successes == 4

    def test_ignored_sop_classes_are_answered_success_and_not_stored(
        self, launcher: Launcher, receiver: RunningActor
    ) -> None:
        allow(launcher.spool, AeTitleRule(ae_title="CT", ignored_sop_classes=frozenset({raw.MR_IMAGE})))
        before = len(stored_files(launcher.spool))
        with Peer(launcher.port) as peer:
            peer.associate(raw.context(1), raw.context(3, raw.MR_IMAGE))
            peer.command(raw.store_rq("1.2.3", raw.MR_IMAGE), context_id=3)
            peer.dataset(raw.dataset("1.2.3", raw.MR_IMAGE), context_id=3)
            assert peer.response().status == 0
            assert peer.store("1.2.3").status == 0
            peer.release()
        assert len(stored_files(launcher.spool)) == before + 1
        receiver.wait_for_log("failed=0 ignored=1")


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
        os.kill(first.pid, signal.SIGSTOP)
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


def test_what_no_move_has_begun_stays_with_the_ae_title_of_the_same_name(own: Launcher, small: Study) -> None:
    """While a C-MOVE of ours is under way, its archive may send other objects, too."""
    title = own.settings.dicom.scu.ae_title
    allow(own.spool, title)
    later = time.time_ns() + 60 * 10**9
    MovesFile(own.spool.moves).replace((ExpectedMove(host="127.0.0.1", until_ns=later),))
    own.start("receiver-1")
    first, *others = [pydicom.dcmread(path) for path in small.files.values()]
    entity = AE(ae_title=CALLING)
    entity.add_requested_context(first.SOPClassUID, [first.file_meta.TransferSyntaxUID])
    for datasets, originator in (([first], ("ARCHIVE", 7)), (others, (None, None))):
        association = entity.associate("127.0.0.1", own.port, ae_title=title)
        for dataset in datasets:
            answer = association.send_c_store(dataset, originator_aet=originator[0], originator_id=originator[1])
            assert answer.Status == 0x0000
        association.release()
    assert by_uid(own).keys() == {dataset.SOPInstanceUID for dataset in others}
    assert len(stored_files(own.spool.arrivals())) == 1


def test_what_a_dead_receiver_had_in_transit_is_removed(own: Launcher) -> None:
    first = own.start("receiver-1")
    with Peer(own.port) as peer:
        peer.associate()
        assert peer.store("1.2.1").status == 0
        peer.command(raw.store_rq("1.2.2"))
        peer.send(pdu(raw.P_DATA, pdv(1, 0, raw.dataset("1.2.2"))))
        wait_until(lambda: len(all_files(own.spool)) == 2, "an object in transit")
        first.kill()
    own.bury(first)
    living = ShardWriter(own.spool, "other")
    kept = living.open_part(new_association_id(), 1)
    second = own.start("receiver-1")
    second.wait_for_log("parts_removed")
    assert len(stored_files(own.spool)) == 1
    assert len(all_files(own.spool)) == 2
    kept.discard()


def test_an_ipv6_peer_with_a_mapped_address_is_known_by_its_ipv4(tmp_path: Path) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with Launcher(tmp_path) as launcher:
        allow(launcher.spool, "CT")
        launcher.listener.close()
        launcher.listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        launcher.start("receiver-1")
        assert echo(launcher).exit_code == 0
