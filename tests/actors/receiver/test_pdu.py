"""The walker over PDUs, and the PDUs that are sent."""

import contextlib
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_RELEASE_RP, P_DATA_TF

from actors.receiver.pdu import PduWalker, Rejection, encode_rejection
from protocol.dimse.pdu import RELEASE_RP, AbortReason, ProtocolError, encode_abort, encode_command
from tests.actors.receiver.raw import P_DATA, RELEASE_RQ, RQ, pdu, pdv


class Recorder:
    """Writes down what a walker tells."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def pdu_begins(self, kind: int, length: int) -> None:
        self.told.append(("begins", kind, length))

    def pdu(self, kind: int, body: bytes) -> bool:
        self.told.append(("pdu", kind, body))
        return True

    def message_begins(self, context_id: int, control: int) -> None:
        self.told.append(("message", context_id, control, bytearray()))

    def fragment(self, data: memoryview) -> None:
        self.told[-1][3].extend(data)  # type: ignore[index]

    def message_ends(self) -> None:
        self.told.append("end")


def walker_to(recorder: Recorder) -> PduWalker:
    walker = PduWalker(recorder)
    walker.welcome_data(recorder, 1000)
    return walker


STREAM = (
    pdu(RQ, b"anything")
    + pdu(P_DATA, pdv(1, 3, b"command"))
    + pdu(P_DATA, pdv(1, 0, b"data" * 5) + pdv(1, 0, b"") + pdv(1, 2, b"x"))
    + pdu(P_DATA, pdv(3, 2, b""))
    + pdu(RELEASE_RQ, bytes(4))
)
TOLD = [
    ("begins", RQ, 8),
    ("pdu", RQ, b"anything"),
    ("message", 1, 3, bytearray(b"command")),
    "end",
    ("message", 1, 0, bytearray(b"data" * 5 + b"x")),
    "end",
    ("message", 3, 2, bytearray()),
    "end",
    ("begins", RELEASE_RQ, 4),
    ("pdu", RELEASE_RQ, bytes(4)),
]


def walk(stream: bytes, cuts: list[int]) -> list[object]:
    recorder = Recorder()
    walker = walker_to(recorder)
    buffer = bytearray(len(stream))  # one, as in the receiver: what is kept must not point into it
    places = [0, *sorted(cuts), len(stream)]
    for start, stop in itertools.pairwise(places):
        buffer[: stop - start] = stream[start:stop]
        walker.feed(memoryview(buffer)[: stop - start])
    assert walker.between_pdus
    return recorder.told


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_the_pieces_in_which_pdus_come_make_no_difference(cuts: list[int]) -> None:
    assert walk(STREAM, cuts) == TOLD


def test_byte_by_byte() -> None:
    assert walk(STREAM, list(range(1, len(STREAM)))) == TOLD


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(0, 1))
def test_fragments_that_come_by_another_way_make_no_difference(sizes: list[int], skipped: int) -> None:
    recorder = Recorder()
    walker = walker_to(recorder)
    at, is_amid, turns = 0, False, itertools.count(skipped)
    for size in itertools.cycle(sizes):
        if left := walker.fragment_left if next(turns) % 2 else 0:
            count = min(left, size)
            recorder.fragment(memoryview(STREAM)[at : at + count])
            is_amid = walker.skip(count)
        else:
            count = size
            is_amid = walker.feed(memoryview(STREAM)[at : at + count])
        at += count
        if at >= len(STREAM):
            break
    assert not is_amid
    assert walker.between_pdus
    assert recorder.told == TOLD


def test_a_pdu_that_has_begun_is_not_between_pdus() -> None:
    walker = walker_to(Recorder())
    walker.feed(memoryview(STREAM)[:3])
    assert not walker.between_pdus
    walker.feed(memoryview(STREAM)[3:14])
    assert walker.between_pdus


@pytest.mark.parametrize("length", [0, 1, 9, 0xFFFFFFFF])
def test_a_pdv_that_does_not_fit_its_pdu_is_refused(length: int) -> None:
    walker = walker_to(Recorder())
    with pytest.raises(ProtocolError) as caught:
        walker.feed(memoryview(pdu(P_DATA, pdv(1, 2, b"abcd", length))))
    assert caught.value.reason is AbortReason.INVALID_PARAMETER


def test_what_is_left_behind_a_pdv_must_be_another() -> None:
    with pytest.raises(ProtocolError):
        walker_to(Recorder()).feed(memoryview(pdu(P_DATA, pdv(1, 2, b"abcd") + b"\0\0\0")))


@pytest.mark.parametrize("length", [0, 5, 1001, 0xFFFFFFFF])
def test_data_that_is_too_short_or_too_long_is_told_before_it_is_collected(length: int) -> None:
    recorder = Recorder()
    walker_to(recorder).feed(memoryview(pdu(P_DATA, b"", length)))
    assert recorder.told[0] == ("begins", P_DATA, length)


def test_data_that_is_not_welcome_is_told_before_it_is_collected() -> None:
    recorder = Recorder()
    walker = walker_to(recorder)
    walker.refuse_data()
    walker.feed(memoryview(pdu(P_DATA, pdv(1, 2, b"abcd"))))
    assert recorder.told[0] == ("begins", P_DATA, 10)


@given(st.binary(max_size=200))
def test_garbage_ends_in_nothing_but_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        walker_to(Recorder()).feed(memoryview(data))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A stream that was sound once."""
    stream = bytearray(STREAM)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(stream)))
        match draw(st.sampled_from(["byte", "length", "cut", "insert", "remove"])):
            case "byte":
                stream[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "length":
                stream[at : at + 4] = struct.pack(
                    ">I", draw(st.sampled_from((0, 1, 2, 5, 1000, 0x7FFFFFFF, 0xFFFFFFFF)))
                )
            case "cut":
                del stream[at:]
            case "insert":
                stream[at:at] = draw(st.binary(min_size=1, max_size=12))
            case "remove":
                del stream[at : at + draw(st.integers(1, 12))]
    return bytes(stream)


@given(damaged(), st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_a_damaged_stream_ends_in_the_same_way_however_it_comes(stream: bytes, cuts: list[int]) -> None:
    """Whole or in pieces: told is the same, and what ends it is a protocol error or nothing."""

    def outcome(places: list[int]) -> tuple[list[object], AbortReason | None]:
        recorder = Recorder()
        walker = walker_to(recorder)
        try:
            for start, stop in itertools.pairwise([0, *places, len(stream)]):
                walker.feed(memoryview(bytearray(stream[start:stop])))
        except ProtocolError as error:
            return recorder.told, error.reason
        return recorder.told, None

    assert outcome(sorted(min(cut, len(stream)) for cut in cuts)) == outcome([])


def test_short_pdus_read_as_pynetdicom_writes_them() -> None:
    rejection = A_ASSOCIATE_RJ()
    rejection.decode(encode_rejection(Rejection.CALLED_AE_TITLE))
    assert (rejection.result, rejection.source, rejection.reason_diagnostic) == (1, 1, 7)
    abort = A_ABORT_RQ()
    abort.decode(encode_abort(AbortReason.UNEXPECTED_PDU))
    assert (abort.source, abort.reason_diagnostic) == (2, 2)
    abort.decode(encode_abort(None))
    assert (abort.source, abort.reason_diagnostic) == (0, 0)
    assert A_RELEASE_RP().encode() == RELEASE_RP


@pytest.mark.parametrize("longest", [0, 128, 256, 1000])
def test_a_response_is_cut_to_what_the_peer_can_take(longest: int) -> None:
    command = bytes(range(200))
    stream = encode_command(5, command, longest)
    whole, controls = b"", []
    while stream:
        length = struct.unpack(">BxI", stream[:6])[1]
        assert not longest or length <= longest
        decoded = P_DATA_TF()
        decoded.decode(stream[: 6 + length])
        for value in decoded.presentation_data_value_items:
            assert value.presentation_context_id == 5
            controls.append(value.presentation_data_value[0])
            whole += value.presentation_data_value[1:]
        stream = stream[6 + length :]
    assert whole == command
    assert controls == [1] * (len(controls) - 1) + [3]
