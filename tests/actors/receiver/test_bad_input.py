"""Whatever a peer sends costs that peer only: after each of these the receiver stores the next one's object."""

import os
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.actors.launcher import Launcher, RunningActor, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import P_DATA, Peer, all_files, pdu, pdv, stored_files

UID = "1.2.3.4"

pytestmark = pytest.mark.usefixtures("receiver")


@pytest.fixture
def peer(launcher: Launcher, receiver: RunningActor) -> Peer:
    with Peer(launcher.port) as opened:
        yield opened


@pytest.fixture
def associated(peer: Peer) -> Peer:
    peer.associate(raw.context(1), raw.context(3, raw.VERIFICATION, raw.IMPLICIT), raw.context(5, raw.MR_IMAGE))
    return peer


def descriptors(actor: RunningActor) -> int:
    return len(os.listdir(f"/proc/{actor.pid}/fd"))


def peak_memory(actor: RunningActor) -> int:
    """The highest resident set so far, in bytes."""
    for line in Path(f"/proc/{actor.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


class TestBeforeAnAssociation:
    @pytest.mark.parametrize("count", [0, 1, 5])
    def test_silence_after_some_header_bytes_ends_at_the_deadline(self, peer: Peer, count: int) -> None:
        started = time.monotonic()
        peer.send(raw.associate_rq()[:count])
        peer.expect_end()
        assert 1.0 < time.monotonic() - started < 15

    def test_the_deadline_is_for_the_whole_request(self, peer: Peer) -> None:
        """Bytes that trickle in do not move it."""
        started = time.monotonic()
        peer.socket.settimeout(0.2)
        request = raw.associate_rq()
        for number in range(len(request)):
            try:
                peer.send(request[number : number + 1])
                assert not peer.socket.recv(1)
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert 1.0 < time.monotonic() - started < 15

    def test_a_thousand_connections_that_close_at_once(self, launcher: Launcher, one_receiver: RunningActor) -> None:
        before = descriptors(one_receiver)
        for _ in range(1000):
            socket.create_connection(("127.0.0.1", launcher.port)).close()
        wait_until(lambda: descriptors(one_receiver) <= before + 1, "descriptors given back")
        assert launcher.board.active_associations == 0

    def test_silent_connections_do_not_pile_up(self, launcher: Launcher, one_receiver: RunningActor) -> None:
        peers = [socket.create_connection(("127.0.0.1", launcher.port)) for _ in range(400)]
        with Peer(launcher.port) as peer:
            peer.associate()
            assert peer.store(UID).status == 0
        assert descriptors(one_receiver) < 330
        for each in peers:
            each.close()

    @pytest.mark.parametrize("length", [0, 67, 1_048_577, 0xFFFFFFFF])
    def test_a_request_of_a_length_that_cannot_be(self, peer: Peer, length: int) -> None:
        peer.send(pdu(raw.RQ, b"", length))
        peer.expect_abort(source=0)

    @pytest.mark.parametrize("kind", [raw.AC, raw.RJ, P_DATA, raw.RELEASE_RQ, raw.RELEASE_RP, 0, 8, 0x47, 0xFF])
    def test_another_pdu_than_a_request(self, peer: Peer, kind: int) -> None:
        peer.send(pdu(kind, b"and something behind it"))
        peer.expect_abort(source=0)

    def test_an_abort_is_taken(self, peer: Peer) -> None:
        peer.send(pdu(raw.ABORT, bytes(4)))
        peer.expect_end()

    @pytest.mark.parametrize(
        "contexts",
        [
            (raw.context(2),),
            (raw.context(1), raw.context(1)),
            (raw.item(0x20, b"\x01\0\0\0" + raw.item(0x30, raw.CT_IMAGE.encode())),),
            (raw.item(0x20, b"\x01\0\0\0" + raw.item(0x40, raw.EXPLICIT.encode())),),
            (raw.item(0x20, b"\x01\0\0\0" + raw.item(0x30, b"1.2", 5000)),),
            (b"",),
        ],
        ids=["even", "repeated", "no-transfer-syntax", "no-abstract-syntax", "too-long", "none"],
    )
    def test_contexts_that_cannot_be_answered(self, peer: Peer, contexts: tuple[bytes, ...]) -> None:
        peer.send(raw.associate_rq(*contexts))
        peer.expect_abort(source=0)

    @pytest.mark.parametrize("title", [b" " * 16, b"C\xc3\xa4T", b"\x1b[31mCT", b"../secret/X"])
    def test_titles(self, launcher: Launcher, title: bytes, receiver: RunningActor) -> None:
        for more, reason in (({"called": title}, 7), ({"calling": title}, 3)):
            with Peer(launcher.port) as peer:
                peer.send(raw.associate_rq(**more))
                peer.expect_rejection(1, 1, reason)
        assert "\x1b" not in receiver.log_text()

    def test_another_application_context(self, peer: Peer) -> None:
        peer.send(raw.associate_rq(application="1.2.3"))
        peer.expect_rejection(1, 1, 2)

    def test_another_protocol_version(self, peer: Peer) -> None:
        peer.send(raw.associate_rq(version=2))
        peer.expect_rejection(1, 2, 2)


class TestPdus:
    def test_half_a_pdu_and_then_silence(self, associated: Peer) -> None:
        started = time.monotonic()
        associated.send(pdu(P_DATA, pdv(1, 3, raw.store_rq(UID)))[:-10])
        associated.expect_abort()
        assert 1.0 < time.monotonic() - started < 15

    def test_a_pdu_that_trickles_in(self, associated: Peer) -> None:
        """Whole PDUs before it, and every byte of it, move nothing."""
        associated.command(raw.store_rq(UID))
        started = time.monotonic()
        associated.socket.settimeout(0.2)
        slow = pdu(P_DATA, pdv(1, 2, bytes(1000)))
        for number in range(len(slow)):
            associated.send(slow[number : number + 1])
            try:
                assert associated.socket.recv(1) == bytes([raw.ABORT])
                break
            except TimeoutError:
                continue
        assert 1.0 < time.monotonic() - started < 15

    def test_a_pdu_longer_than_announced(self, associated: Peer) -> None:
        associated.send(pdu(P_DATA, b"", 131073))
        associated.expect_abort(reasons=(6,))

    def test_an_unknown_pdu(self, associated: Peer) -> None:
        associated.send(pdu(0x42, b"x" * 1000))
        associated.expect_abort(reasons=(1,))

    @pytest.mark.parametrize("kind", [raw.RQ, raw.AC, raw.RJ, raw.RELEASE_RP])
    def test_a_pdu_that_does_not_belong_here(self, associated: Peer, kind: int) -> None:
        associated.send(raw.associate_rq() if kind == raw.RQ else pdu(kind, bytes(4)))
        associated.expect_abort(reasons=(2,))

    @pytest.mark.parametrize("length", [0, 1, 100_000, 0xFFFFFFFF])
    def test_a_pdv_that_does_not_fit(self, associated: Peer, length: int) -> None:
        associated.send(pdu(P_DATA, pdv(1, 3, raw.echo_rq(), length)))
        associated.expect_abort(reasons=(6,))

    def test_a_context_that_was_not_accepted(self, associated: Peer) -> None:
        associated.command(raw.store_rq(UID), context_id=99)
        associated.expect_abort(reasons=(6,))

    def test_a_dataset_on_another_context_than_its_command(self, associated: Peer) -> None:
        associated.command(raw.store_rq(UID))
        associated.dataset(raw.dataset(UID), context_id=5)
        associated.expect_abort()

    def test_a_command_on_two_contexts(self, associated: Peer) -> None:
        """Also when both fragments come in one receive."""
        command = raw.echo_rq()
        associated.send(pdu(P_DATA, pdv(1, 1, command[:20])) + pdu(P_DATA, pdv(3, 3, command[20:])))
        associated.expect_abort()

    def test_a_dataset_without_a_command(self, associated: Peer) -> None:
        associated.dataset(raw.dataset(UID))
        associated.expect_abort()

    def test_a_command_in_the_middle_of_a_dataset(self, associated: Peer) -> None:
        associated.command(raw.store_rq(UID))
        associated.send(pdu(P_DATA, pdv(1, 0, raw.dataset(UID))))
        associated.command(raw.store_rq(UID))
        associated.expect_abort()


def test_a_peer_that_never_reads(own: Launcher) -> None:
    """Its answers fill every buffer; then it is cut off, whatever it sends."""
    own.change_settings("DicomAdapter.dicom.scp.limits.writeSeconds=1")
    receiver = own.start("receiver-1")
    with Peer(own.port) as peer:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.associate(raw.context(3, raw.VERIFICATION, raw.IMPLICIT))
        echoes = pdu(P_DATA, pdv(3, 3, raw.echo_rq())) * 2000
        before = peak_memory(receiver)
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            peer.send_for_ever(echoes)
    receiver.wait_for_log("does not read our answers")
    assert peak_memory(receiver) - before < 20_000_000


class TestCommands:
    @pytest.mark.parametrize(
        "command",
        [
            b"garbage",
            raw.store_rq(UID)[:-3],
            raw.store_rq(UID).replace(raw.element(0x0800, 0), b""),
            raw.store_rq(UID).replace(raw.element(0x0100, 1), b""),
            raw.store_rq(UID).replace(raw.element(0x0100, 1), raw.element(0x0100, 0x8001)),
        ],
        ids=["garbage", "cut", "no-dataset-type", "no-field", "response"],
    )
    def test_unreadable(self, associated: Peer, command: bytes) -> None:
        associated.command(command)
        associated.expect_abort()

    def test_a_command_set_of_100_mb(self, associated: Peer, receiver: RunningActor) -> None:
        before = peak_memory(receiver)
        piece = pdu(P_DATA, pdv(1, 1, bytes(100_000)))
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe
            associated.send_for_ever(piece)
        receiver.wait_for_log("command set is too long")
        assert peak_memory(receiver) - before < 5_000_000

    @pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0010, 0x0140, 0x7FFF])
    @pytest.mark.parametrize("with_dataset", [False, True])
    def test_an_unknown_operation_is_answered(self, associated: Peer, field: int, with_dataset: bool) -> None:
        kind = raw.HAS_DATASET if with_dataset else raw.NO_DATASET
        command = raw.store_rq(UID, dataset_type=kind).replace(raw.element(0x0100, 1), raw.element(0x0100, field))
        associated.command(command)
        if with_dataset:
            associated.dataset(b"an identifier")
        response = associated.response()
        assert response.status == 0x0211
        assert response.number(0x0100) == field | 0x8000
        assert associated.store(UID).status == 0

    def test_a_cancel_has_no_answer(self, associated: Peer) -> None:
        command = raw.element(0x0100, 0x0FFF) + raw.element(0x0110, 1) + raw.element(0x0800, raw.NO_DATASET)
        associated.command(command)
        assert associated.store(UID).status == 0

    @pytest.mark.parametrize("tag", [0x0002, 0x1000])
    def test_a_missing_uid_is_a_failure(self, associated: Peer, tag: int) -> None:
        value = {0x0002: raw.CT_IMAGE, 0x1000: UID}[tag]
        associated.command(raw.store_rq(UID).replace(raw.element(tag, value.encode()), b""))
        associated.dataset(raw.dataset(UID))
        response = associated.response()
        assert response.status in (0xC000, 0x0117)
        assert response.comment
        assert associated.store(UID).status == 0

    def test_a_sop_class_that_is_not_its_contexts(self, associated: Peer) -> None:
        assert associated.store(UID, sop_class=raw.MR_IMAGE).status == 0xA900

    def test_storing_on_the_context_for_verification(self, associated: Peer) -> None:
        associated.command(raw.store_rq(UID, raw.VERIFICATION), context_id=3)
        associated.dataset(raw.dataset(UID), context_id=3)
        assert associated.response().status == 0x0122

    @pytest.mark.parametrize(
        "data",
        [raw.dataset("1.2.3.5"), raw.dataset(UID, raw.MR_IMAGE)],
        ids=["instance", "class"],
    )
    def test_uids_in_the_dataset_that_are_not_the_commands(
        self, launcher: Launcher, associated: Peer, data: bytes
    ) -> None:
        before = all_files(launcher.spool)
        assert associated.store(UID, data).status == 0xA900
        assert all_files(launcher.spool) == before

    def test_that_look_works_on_fragments_of_one_byte(self, associated: Peer) -> None:
        good, wrong = raw.dataset(UID), raw.dataset("1.2.3.5")
        for data, status in ((wrong, 0xA900), (good, 0)):
            associated.command(raw.store_rq(UID))
            fragments = [pdu(P_DATA, pdv(1, 0, data[n : n + 1])) for n in range(200)]
            for fragment in fragments:
                associated.send(fragment)
            associated.dataset(data[200:])
            assert associated.response().status == status

    @pytest.mark.parametrize(
        "uid",
        [b"../../etc/x", b"/abs", b"..", b"1.2\0.3", b"1." + b"2" * 79, b"", b"1.2;rm", b"\xff\xfe"],
    )
    def test_instance_uids_that_are_none(self, launcher: Launcher, associated: Peer, uid: bytes) -> None:
        before = all_files(launcher.spool)
        associated.command(raw.store_rq(uid))
        associated.dataset(raw.dataset("1.2.3"))
        response = associated.response()
        assert response.status == 0x0117
        assert response.comment
        assert all_files(launcher.spool) == before
        assert associated.store("1.02.003").status == 0  # as some devices send it

    @pytest.mark.parametrize("empty", [False, True])
    def test_no_dataset_or_an_empty_one(self, launcher: Launcher, associated: Peer, empty: bool) -> None:
        before = all_files(launcher.spool)
        associated.command(raw.store_rq(UID, dataset_type=raw.HAS_DATASET if empty else raw.NO_DATASET))
        if empty:
            associated.dataset(b"")
        response = associated.response()
        assert response.status == 0xC000
        assert all_files(launcher.spool) == before

    def test_a_dataset_of_some_bytes_whose_last_fragment_is_empty(
        self, launcher: Launcher, one_receiver: RunningActor
    ) -> None:
        """The end comes in a receive of its own: another peer's echoes tell that the rest was taken before."""
        assert one_receiver.pid
        with Peer(launcher.port) as peer, Peer(launcher.port) as other:
            peer.associate()
            other.associate(raw.context(1, raw.VERIFICATION, raw.IMPLICIT))
            peer.command(raw.store_rq(UID))
            peer.send(pdu(P_DATA, pdv(1, 0, raw.dataset(UID)[:10])))
            for _ in range(2):
                other.command(raw.echo_rq())
                assert other.response().status == 0
            peer.send(pdu(P_DATA, pdv(1, 2, b"")))
            assert peer.response().status == 0

    def test_many_requests_without_waiting_for_answers_are_answered_or_aborted(self, associated: Peer) -> None:
        for number in range(6):
            associated.command(raw.store_rq(f"1.2.{number}", message_id=number))
            associated.dataset(raw.dataset(f"1.2.{number}"))
        assert {associated.response().number(0x0120) for _ in range(6)} == set(range(6))


class TestTheMiddleOfADataset:
    @pytest.fixture
    def before(self, launcher: Launcher, associated: Peer) -> list[Path]:
        """A dataset has begun, and its file stands in the spool as in transit."""
        finished = stored_files(launcher.spool)
        associated.command(raw.store_rq(UID))
        associated.send(pdu(P_DATA, pdv(1, 0, raw.dataset(UID))))
        wait_until(lambda: len(all_files(launcher.spool)) == len(finished) + 1, "the file in transit")
        return finished

    def gone(self, launcher: Launcher, before: list[Path]) -> None:
        wait_until(lambda: all_files(launcher.spool) == before, "nothing in transit, nothing new")
        wait_until(lambda: launcher.board.active_associations == 0, "no slot taken")

    def test_abort(self, launcher: Launcher, associated: Peer, before: list[Path]) -> None:
        associated.send(pdu(raw.ABORT, bytes(4)))
        associated.expect_end()
        self.gone(launcher, before)

    def test_release(self, launcher: Launcher, associated: Peer, before: list[Path]) -> None:
        associated.release()
        self.gone(launcher, before)

    def test_fin(self, launcher: Launcher, associated: Peer, before: list[Path]) -> None:
        associated.socket.shutdown(socket.SHUT_WR)
        associated.expect_end()
        self.gone(launcher, before)

    def test_rst(self, launcher: Launcher, associated: Peer, before: list[Path]) -> None:
        associated.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        associated.socket.close()
        self.gone(launcher, before)


def test_an_association_that_ends_before_its_answer_keeps_its_object(launcher: Launcher, associated: Peer) -> None:
    before = len(stored_files(launcher.spool))
    associated.command(raw.store_rq(UID))
    associated.dataset(raw.dataset(UID))
    associated.send(pdu(raw.ABORT, bytes(4)))
    wait_until(lambda: len(stored_files(launcher.spool)) == before + 1, "the object")


def test_release_right_behind_an_object_is_answered_after_it(associated: Peer) -> None:
    associated.command(raw.store_rq(UID))
    associated.dataset(raw.dataset(UID))
    associated.send(pdu(raw.RELEASE_RQ, bytes(4)))
    assert associated.response().status == 0
    assert associated.receive() == (raw.RELEASE_RP, bytes(4))


def test_one_line_tells_of_it_without_what_the_peer_wrote(launcher: Launcher, receiver: RunningActor) -> None:
    with Peer(launcher.port) as peer:
        peer.associate()
        peer.command(raw.store_rq("1.2.3\x1b[31m"))
        peer.dataset(raw.dataset("1.2.3"))
        assert peer.response().status == 0x0117
        peer.send(pdu(0x42, b""))
        peer.expect_abort()
    line = receiver.wait_for_log("unknown PDU type 0x42")
    assert line.count("association_ended") == 1
    assert "\x1b" not in receiver.log_text()
