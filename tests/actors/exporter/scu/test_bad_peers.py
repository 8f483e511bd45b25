"""Peers that break the protocol, stop in the middle, or never answer: the right report in time, the rest pending."""

import os
import random
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.exporter.scu import Deadlines, ScuDestination, ScuSender
from actors.exporter.sender import DestinationDownError
from tests.actors.exporter.scu.peer import AC, BadPeer, Session, acceptance, result, store_rsp
from tests.actors.exporter.sending import Delivery, scu_settings
from tests.actors.receiver.raw import ABORT, P_DATA, RELEASE_RQ, item, pdu, pdv, user_information
from tests.samples import Study, dataset_bytes, make_huge, make_study

DEADLINES = Deadlines(connect_seconds=0.5, acse_seconds=0.5, write_seconds=0.5, response_seconds=0.5)
Serve = Callable[[Session], None]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study") / "study", "PAT-BAD", 25, rows=64)


def sender(port: int, deadlines: Deadlines = DEADLINES) -> ScuSender:
    destination = ScuDestination(name="PACS", ae_title="STORESCP", host="127.0.0.1", port=port)
    return ScuSender(destination, scu_settings(), deadlines)


def deliver(serve: Serve, paths: list[Path], deadlines: Deadlines = DEADLINES) -> tuple[Delivery, BadPeer]:
    """Send to a peer; however bad it is, no descriptor is left open."""
    with BadPeer(serve) as peer:
        before = len(os.listdir("/proc/self/fd"))
        delivery = Delivery(sender(peer.port, deadlines), paths)
    assert len(os.listdir("/proc/self/fd")) <= before
    return delivery, peer


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0x0000, "delivered"),
        (0xB000, "delivered"),
        (0xB007, "delivered"),
        (0x0107, "delivered"),
        (0x0122, "refused"),
        (0xA900, "refused"),
        (0xA9FF, "refused"),
        (0x0117, "refused"),
        (0x0124, "refused"),
        (0xA700, "failed"),
        (0xC000, "failed"),
        (0x0110, "failed"),
        (0xFF00, "failed"),
        (0x1234, "failed"),
    ],
)
def test_every_status_is_reported_and_the_next_object_goes_on(study: Study, status: int, outcome: str) -> None:
    def serve(session: Session) -> None:
        session.accept()
        session.serve(lambda number: status if number == 1 else 0)

    delivery, _ = deliver(serve, study.part(0, 3))
    assert [report.outcome.value for report in delivery.reports] == [outcome, "delivered", "delivered"]
    assert (f"0x{status:04X}" in delivery.reports[0].reason) == (outcome != "delivered")


def test_a_peer_that_closes_after_the_tenth_object(study: Study) -> None:
    """It gets the others on further associations, and none twice."""

    def serve(session: Session) -> None:
        session.accept()
        session.serve(most=10)

    delivery, peer = deliver(serve, study.part(0, 25))
    assert delivery.counts == {"delivered": 25}
    assert peer.connections == 3


def test_a_peer_that_is_gone_after_the_tenth_object(study: Study) -> None:
    def serve(session: Session) -> None:
        if session.number:
            return
        session.accept()
        session.serve(most=10)

    delivery, _ = deliver(serve, study.part(0, 25))
    assert delivery.counts == {"delivered": 10}
    assert delivery.uris() == [str(path) for path in study.part(0, 10)]
    assert delivery.down


def test_an_object_that_the_peer_cannot_survive_does_not_hold_up_the_others(study: Study) -> None:
    poison = dataset_bytes(study.part(3, 4)[0])

    def serve(session: Session) -> None:
        session.accept()
        number = 0
        while data := session.message():
            if data == poison:
                session.send(pdu(ABORT, b"\0\0\0\0"))
                return
            number += 1
            session.respond(number)

    delivery, peer = deliver(serve, study.part(0, 10))
    assert delivery.counts == {"delivered": 9, "failed": 1}
    assert delivery.uris("failed") == [str(path) for path in study.part(3, 4)]
    assert "aborted" in "".join(delivery.reasons)
    assert peer.connections == 3


def _garbage(session: Session) -> None:
    session.pdu()
    session.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _long(session: Session) -> None:
    session.pdu()
    session.send(struct.pack(">BxI", AC, 0xFFFFFFFF))


def _after(*, accepted: bytes) -> Serve:
    def serve(session: Session) -> None:
        session.pdu()
        session.send(accepted)
        session.pdu()

    return serve


def _answers(*, data: bytes) -> Serve:
    def serve(session: Session) -> None:
        session.accept()
        session.message()
        session.send(data)
        session.pdu()

    return serve


ANSWERS = {
    "another message": pdu(P_DATA, pdv(1, 3, store_rsp(7))),
    "another command": pdu(P_DATA, pdv(1, 3, store_rsp(1, field=0x8030))),
    "a request": pdu(P_DATA, pdv(1, 3, store_rsp(1, field=0x0001))),
    "with a dataset": pdu(P_DATA, pdv(1, 3, store_rsp(1, dataset_type=0))),
    "of another context": pdu(P_DATA, pdv(3, 3, store_rsp(1))),
    "as a dataset": pdu(P_DATA, pdv(1, 2, store_rsp(1))),
    "no elements": pdu(P_DATA, pdv(1, 3, b"\xff" * 40)),
    "cut short": pdu(P_DATA, pdv(1, 3, store_rsp(1)[:-1])),
    "empty": pdu(P_DATA, pdv(1, 3, b"")),
    "a PDV beyond its PDU": pdu(P_DATA, pdv(1, 3, store_rsp(1), length=5000)),
    "a PDV of 4 GiB": pdu(P_DATA, pdv(1, 3, store_rsp(1), length=0xFFFFFFFF)),
    "a PDV without anything": pdu(P_DATA, pdv(1, 3, b"", length=0)),
    "a PDU of 4 GiB": struct.pack(">BxI", P_DATA, 0xFFFFFFFF),
    "fragments without an end": pdu(P_DATA, pdv(1, 1, bytes(10_000))) * 20,
    "garbage": b"\0" * 100,
    "a release": pdu(RELEASE_RQ, bytes(4)),
    "an acceptance": acceptance(),
    "an unknown PDU": pdu(0x42, b"xx"),
    "an abort of 4 GiB": struct.pack(">BxI", ABORT, 0xFFFFFFFF),
    "an abort": pdu(ABORT, b"\0\0\2\1"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_none_delivers_nothing(study: Study, name: str) -> None:
    delivery, peer = deliver(_answers(data=ANSWERS[name]), study.part(0, 5))
    assert "delivered" not in delivery.counts
    assert delivery.counts.get("failed", 0) <= 1
    assert delivery.down
    assert peer.connections <= 3


ACCEPTANCES = {
    "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "4 GiB": struct.pack(">BxI", AC, 0xFFFFFFFF),
    "cut short": pdu(AC, bytes(20)),
    "no contexts": pdu(AC, bytes(68) + user_information()),
    "a context of nobody": acceptance(result(1), result(7)),
    "an item beyond its PDU": pdu(AC, bytes(68) + item(0x21, b"\1\0\0\0", length=500)),
    "a PDU of 4 bytes": acceptance(user=user_information(max_pdu=4)),
    "a maximum of two bytes": acceptance(user=item(0x50, item(0x51, b"\0\1"))),
    "600 items": pdu(AC, bytes(68) + item(0x99, b"") * 600),
    "a rejection without a reason": pdu(0x03, b""),
    "a rejection": pdu(0x03, b"\0\2\3\2"),
    "a release": pdu(RELEASE_RQ, bytes(4)),
    "an abort": pdu(ABORT, bytes(4)),
    "nothing, and the end": b"",
}


@pytest.mark.parametrize("name", ACCEPTANCES)
def test_an_acceptance_that_is_none_means_that_the_peer_is_down(study: Study, name: str) -> None:
    def serve(session: Session) -> None:
        session.pdu()
        session.send(ACCEPTANCES[name])
        if ACCEPTANCES[name]:
            session.pdu()

    delivery, peer = deliver(serve, study.part(0, 5))
    assert delivery.counts == {}
    assert delivery.down
    assert peer.connections == 1
    with BadPeer(serve) as other, pytest.raises(DestinationDownError):
        sender(other.port).probe()


def test_a_rejection_says_whether_it_is_for_good(study: Study) -> None:
    for result_number, source, reason, words in ((1, 1, 7, "permanently"), (2, 3, 2, "for now"), (1, 9, 9, "source 9")):
        body = bytes((0, result_number, source, reason))
        delivery, _ = deliver(_after(accepted=pdu(0x03, body)), study.part(0, 1))
        assert words in delivery.down


def test_another_transfer_syntax_than_was_proposed_is_refused(study: Study) -> None:
    def serve(session: Session) -> None:
        session.accept(result(1, syntax="1.2.840.10008.1.2"))
        session.serve()

    delivery, _ = deliver(serve, study.part(0, 3))
    assert delivery.counts == {"refused": 3}


def _silent_at_once(session: Session) -> None:
    session.over.wait(5)


def _silent_after_acceptance(session: Session) -> None:
    session.accept()
    session.over.wait(5)


def _silent_after_the_object(session: Session) -> None:
    session.accept()
    session.message()
    session.over.wait(5)


def _one_byte_a_moment(session: Session) -> None:
    session.accept()
    session.message()
    for byte in pdu(P_DATA, pdv(1, 3, store_rsp(1))):
        session.over.wait(0.05)
        session.send(bytes((byte,)))


def _takes_a_little(session: Session) -> None:
    session.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    session.accept()
    while session.connection.recv(1000):
        session.over.wait(0.1)


@pytest.mark.parametrize(
    "serve",
    [_silent_at_once, _silent_after_acceptance, _silent_after_the_object, _one_byte_a_moment, _takes_a_little],
)
def test_every_wait_has_an_end(tmp_path: Path, serve: Serve) -> None:
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 40_000_000)
    deadlines = Deadlines(
        connect_seconds=0.5,
        acse_seconds=0.5,
        write_seconds=0.5,
        response_seconds=0.5,
        slowest_bytes_per_second=200_000_000,
    )
    started = time.monotonic()
    delivery, peer = deliver(serve, list(huge.files.values()), deadlines)
    assert delivery.counts == ({} if serve is _silent_at_once else {"failed": 1})
    assert "within 0.5 s" in delivery.down or "too slowly" in delivery.down
    assert time.monotonic() - started < 6
    assert peer.connections == 1


def test_a_peer_that_never_answers_gets_two_objects_and_the_rest_is_pending(study: Study) -> None:
    delivery, peer = deliver(_silent_after_the_object, study.part(0, 5))
    assert delivery.counts == {"failed": 2}
    assert delivery.down
    assert peer.connections == 2


def test_an_object_that_hangs_the_peer_does_not_hold_up_the_others(study: Study) -> None:
    poison = dataset_bytes(study.part(1, 2)[0])

    def serve(session: Session) -> None:
        session.accept()
        number = 0
        while data := session.message():
            if data == poison:
                session.over.wait(5)
            number += 1
            session.respond(number)

    delivery, _ = deliver(serve, study.part(0, 4))
    assert delivery.counts == {"delivered": 3, "failed": 1}
    assert not delivery.down


@pytest.mark.parametrize("max_pdu", [0, 8, 9, 13, 128, 0xFFFFFFFF])
def test_any_length_of_pdu_that_a_peer_takes(study: Study, max_pdu: int) -> None:
    got: list[bytes] = []
    longest = [0]

    def serve(session: Session) -> None:
        session.accept(user=user_information(max_pdu=max_pdu))
        inner = session.pdu

        def measured() -> tuple[int, bytes]:
            kind, body = inner()
            longest[0] = max(longest[0], len(body) if kind == P_DATA else 0)
            return kind, body

        session.pdu = measured  # type: ignore[method-assign]
        number = 0
        while data := session.message():
            got.append(data)
            number += 1
            session.respond(number)

    deadlines = Deadlines(response_seconds=20, write_seconds=20)
    delivery, _ = deliver(serve, study.part(0, 2), deadlines)
    assert delivery.counts == {"delivered": 2}
    assert got == [dataset_bytes(path) for path in study.part(0, 2)]
    assert longest[0] <= (max_pdu or 200_000)


def test_an_answer_before_the_object_is_complete_is_taken_in_its_turn(tmp_path: Path) -> None:
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 20_000_000)

    def serve(session: Session) -> None:
        session.accept()
        session.pdu()
        session.respond(1, 0xA700)
        while session.pdu()[0] == P_DATA:
            pass

    delivery, _ = deliver(serve, list(huge.files.values()), Deadlines(acse_seconds=1.0))
    assert delivery.counts == {"failed": 1}
    assert "0xA700" in delivery.reports[0].reason


def test_an_abort_in_the_middle_of_an_object_is_heard(tmp_path: Path) -> None:
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 40_000_000)

    def serve(session: Session) -> None:
        session.accept()
        session.pdu()
        session.send(pdu(ABORT, b"\0\0\0\0"))
        session.over.wait(0.3)

    delivery, _ = deliver(serve, list(huge.files.values()))
    assert delivery.counts in ({}, {"failed": 1})
    assert "aborted" in delivery.down or "aborted" in "".join(delivery.reasons)


def test_a_peer_that_talks_while_it_should_listen(tmp_path: Path) -> None:
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 40_000_000)

    def serve(session: Session) -> None:
        session.accept()
        for _ in range(100_000):
            session.send(pdu(P_DATA, pdv(1, 1, bytes(8000))))

    delivery, _ = deliver(serve, list(huge.files.values()))
    assert "delivered" not in delivery.counts
    assert delivery.down or delivery.counts == {"failed": 1}


def test_a_file_that_shrinks_while_it_is_sent_has_failed_and_the_others_go_on(tmp_path: Path, study: Study) -> None:
    huge = make_huge(tmp_path / "huge" / "huge.dcm", "PAT-HUGE", 40_000_000)
    (path,) = huge.files.values()

    def serve(session: Session) -> None:
        session.accept(result(1), result(3))
        if not session.number:
            session.pdu()
            os.truncate(path, 1_000_000)
        number = 0
        while session.message():
            number += 1
            session.respond(number, context_id=3)

    delivery, _ = deliver(serve, [path, *study.part(0, 2)], Deadlines())
    assert delivery.uris("failed") == [str(path)]
    assert delivery.counts == {"failed": 1, "delivered": 2}
    assert "shorter" in delivery.reports[0].reason


def test_random_answers_end_in_a_report_or_with_a_peer_that_is_down(study: Study) -> None:
    chance = random.Random(os.environ.get("FAULT_SEED", "5"))
    good = {True: acceptance(), False: pdu(P_DATA, pdv(1, 3, store_rsp(1, 0xA700)))}

    def mutated(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed[: chance.choice((len(changed), chance.randrange(len(changed))))])

    def serve(session: Session) -> None:
        session.pdu()
        early = chance.random() < 0.5
        session.send(mutated(good[True]) if early else good[True])
        if not session.message():
            return
        session.send(mutated(good[False]))

    deadlines = Deadlines(connect_seconds=0.2, acse_seconds=0.2, write_seconds=0.2, response_seconds=0.2)
    for _ in range(40):
        started = time.monotonic()
        delivery, _ = deliver(serve, study.part(0, 1), deadlines)
        assert len(delivery.reports) + bool(delivery.down) in (1, 2)
        assert time.monotonic() - started < 5
