"""Real senders: what is acknowledged is in the spool, byte for byte, and is announced."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
import zmq
from pynetdicom import AE

from protocol import messages
from protocol.dimse import IMPLEMENTATION_CLASS_UID
from protocol.moves import ExpectedMove, MovesFile
from protocol.spool import ShardWriter, new_association_id
from tests.actors.launcher import Launcher, RunningActor, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import Peer, all_files, allow, pdu, pdv, stored_files
from tests.actors.receiver.senders import CALLING, send
from tests.peers import start_storescu
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
