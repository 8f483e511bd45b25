"""The lane and the Python path give the same answers, the same files and the same ends to the same bytes."""

import itertools
import math
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.receiver import association, connection, lane, pace, reception, service, store
from tests.actors.launcher import wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.raw import P_DATA, pdu, pdv
from tests.actors.receiver.twins import (
    ABORT,
    FIN,
    RELEASE,
    WAYS,
    Step,
    Twins,
    an_object,
    armed,
    fragments,
    pdus,
    request,
    stopped_in_lane,
)

pytestmark = pytest.mark.skipif(bool(lane.NOT_USED), reason=f"there is no lane: {lane.NOT_USED}")

_MB = 1_000_000
_UID, _NEXT = "1.2.840.2", "1.2.840.3"
_ECHO = pdu(P_DATA, pdv(3, 3, raw.echo_rq(77)))


@pytest.fixture(scope="module", params=WAYS.values(), ids=WAYS.keys())
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Both receivers, with syncOnStore off and on."""
    sync, direct = request.param
    with Twins(tmp_path_factory.mktemp("twins"), sync=sync, direct=direct) as running:
        yield running


def _implicit(uid: str, sop_class: str = raw.CT_IMAGE) -> bytes:
    made = b""
    for number, value in ((0x16, sop_class.encode()), (0x18, uid.encode())):
        made += struct.pack("<HHI", 8, number, len(value) + len(value) % 2) + value + b"\0" * (len(value) % 2)
    return made + struct.pack("<HHI", 0x7FE0, 0x0010, 500) + bytes(500)


def _late(uid: str, before: int) -> bytes:
    """A dataset with so many bytes before its UIDs."""
    return struct.pack("<HH2s2xI", 8, 0x0001, b"OB", before) + bytes(before) + raw.dataset(uid)


def _step_by_step(data: bytes, count: int) -> list[bytes]:
    """The first bytes one at a time, and the rest."""
    return [*(data[at : at + 1] for at in range(count)), data[count:]]


@pytest.mark.parametrize("used", [True, False], ids=["lane", "pure"])
def test_the_second_object_goes_through_the_lane_and_only_where_it_is_not_turned_off(
    tmp_path: Path, used: bool
) -> None:
    """The process stops itself when the dataset is written, and its stack tells who has written it."""
    (tmp_path / "points").mkdir()
    with Twins(tmp_path, sync=False, environment=armed(tmp_path / "points")) as twins:
        twin = twins.lane if used else twins.pure
        with twin.entered() as peer:
            (tmp_path / "points" / "receiver.data-written").write_text("hang")
            peer.send(an_object(_UID))
            stat = Path(f"/proc/{twin.receiver.pid}/stat")
            wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the process to stop itself")
            assert stopped_in_lane(twin.receiver) is used


def test_what_is_said_twice_is_the_same() -> None:
    """Both ways turn to another at the same size, and wait as long."""
    native = Path(lane.__file__).parent / "native"
    source = "".join(path.read_text() for path in sorted(native.glob("*.[ch]")))
    for name, value in {
        "BULK": service._BULK_BYTES,
        "SPLICED": association._SPLICED_BYTES,
        "FIRST_LOOK": reception._FIRST_LOOK_BYTES,
        "LONGEST_COMMAND": lane._LONGEST_COMMAND,
        "MOST_PIECES": store._MOST_PIECES,
        "STALL": connection._STALL_SECONDS,
    }.items():
        (said,) = re.findall(rf"^\s*(?:static const double )?{name} = ([0-9.* ]+)[,;]", source, re.MULTILINE)
        assert math.prod(float(factor) for factor in said.split("*")) == value, name
    assert (lane._lane.DIRECT, lane._lane.AT_ONCE) == (pace.DIRECT, pace.AT_ONCE)


# Objects that are stored, in whatever pieces they come.


def test_byte_by_byte_through_every_header(twins: Twins) -> None:
    for sizes in ((16000,), (1, 5, 12, 16000), (60, 3, 3, 16000)):
        outcome = twins.stores(
            *_step_by_step(an_object(_UID, 2, *sizes), 290), 1, *_step_by_step(an_object(_NEXT, 3), 250), count=2
        )
        assert all(
            content.endswith(raw.dataset(uid)) for content, uid in zip(outcome.files[1:], (_UID, _NEXT), strict=True)
        )


@pytest.mark.parametrize("size", [1, 2, 11, 12, 13, 100, 101, 1023, 1024, 1025])
def test_small_fragments(twins: Twins, size: int) -> None:
    """Hundreds and thousands of pieces in one receive."""
    twins.stores(an_object(_UID, 2, size), 1, an_object(_NEXT, 3, 120, size), count=2)


def test_thousands_of_fragments_in_one_receive(twins: Twins) -> None:
    data = raw.dataset(_UID, padding=20_000)
    for sizes in ((120, 1), (1024, 2), (120, 7), (2000, 5)):
        twins.stores(an_object(_UID, 2, *sizes, data=data), count=1)


@pytest.mark.parametrize("each", [2, 3, 1000])
def test_several_values_in_a_pdu(twins: Twins, each: int) -> None:
    values = fragments(raw.dataset(_UID), 1000, 100)
    twins.stores(request(_UID, 2) + pdus(values, each), 1, an_object(_NEXT, 3), count=2)
    together = [pdv(1, 3, raw.store_rq(_UID, message_id=4)), *values]  # request and dataset
    twins.stores(pdus(together, each), 1, an_object(_NEXT, 5), count=2)


@pytest.mark.parametrize("each", [1, 2, 1000])
@pytest.mark.parametrize("size", [1, 50, 100])
def test_a_request_in_fragments(twins: Twins, size: int, each: int) -> None:
    values = fragments(raw.store_rq(_UID, message_id=2), size, command=True)
    twins.stores(pdus(values, each), pdus(fragments(raw.dataset(_UID), 900)), 1, an_object(_NEXT, 3), count=2)


def test_empty_fragments(twins: Twins) -> None:
    data = raw.dataset(_UID)
    for sizes in ((0, 16000), (1200, 0, 16000), (0, 0, 500, 0, 0, 100)):
        twins.stores(an_object(_UID, 2, *sizes), 1, an_object(_NEXT, 3), count=2)
    ending = pdus([pdv(1, 0, data), pdv(1, 2, b"")])
    twins.stores(
        request(_UID, 2) + ending,
        1,
        request(_NEXT, 3),
        pdus([pdv(1, 0, b""), *fragments(raw.dataset(_NEXT), 9)]),
        count=2,
    )


def test_an_empty_beginning_of_a_request(twins: Twins) -> None:
    """Between two PDUs, but not between two messages."""
    empty, echo = pdus([pdv(1, 1, b"")]), _ECHO
    twins.stores(
        empty, an_object(_UID, 2), 1, request(_NEXT, 3), pdus(fragments(raw.dataset(_NEXT), 5)), 1, echo, 1, count=2
    )
    twins.stores(empty, an_object(_UID, 2), an_object(_NEXT, 3), count=2)
    twins.same(empty, request(_UID, 2), request(_NEXT, 3))


def test_pipelined(twins: Twins) -> None:
    count = 5 if twins.sync else 300
    stream = b"".join(an_object(f"1.2.840.9.{number}", number + 2, 1500) for number in range(count))
    twins.stores(stream, count=count)
    twins.stores(*(stream[at : at + 1999] for at in range(0, len(stream), 1999)), count=count)


def test_contexts_classes_and_echoes_between(twins: Twins) -> None:
    steps: list[Step] = []
    for number in range(4):
        mr = raw.dataset(f"1.2.5.{number}", raw.MR_IMAGE)
        steps += [
            an_object(f"1.2.4.{number}", 10 + number) + _ECHO,
            2,
            request(f"1.2.5.{number}", 20 + number, context_id=5, sop_class=raw.MR_IMAGE)
            + pdus(fragments(mr, 700, context_id=5)),
            1,
            request(f"1.2.7.{number}", 30 + number, context_id=7)
            + pdus(fragments(_implicit(f"1.2.7.{number}"), 99, context_id=7)),
            1,
        ]
    outcome = twins.stores(*steps, count=12)
    assert outcome.ended["echoed"] == "4"


@pytest.mark.parametrize("size", [16 * 1024, 128 * 1024 - 6], ids=["16kB", "128kB"])
def test_large_objects(twins: Twins, size: int) -> None:
    steps: list[Step] = []
    for number in range(2):
        data = raw.dataset(_UID)[:-2000] + random.Random(number).randbytes(5 * _MB)
        steps += [an_object(_UID, 2 + number, size, data=data), 1]
    outcome = twins.stores(*steps, an_object(_NEXT, 9), count=3)
    assert len(outcome.files[2]) > 5 * _MB


@pytest.mark.parametrize("size", [1, 65_000, 65_536, 200_000, 1_048_576, 1_048_577, 1_100_000, 2_500_000, 4_300_000])
@pytest.mark.parametrize("over", [-1, 0, 1])
def test_lengths_about_those_of_blocks_and_stages(twins: Twins, size: int, over: int) -> None:
    """Whatever part of an object goes past the page cache, and in however many steps."""
    data = raw.patterned_dataset(_UID, size + over)
    outcome = twins.stores(an_object(_UID, 2, 65_536, data=data), 1, an_object(_NEXT, 3), count=2)
    assert outcome.files[1].endswith(data)


@pytest.mark.parametrize("at", [70_000, 700_000, 1_300_000])
@pytest.mark.parametrize("then", ["unusual", "nothing"])
def test_an_object_that_leaves_the_lane_when_some_of_it_is_on_its_way(twins: Twins, at: int, then: str) -> None:
    """What is not in the file yet is written before anybody else goes on with it; or it is gone with its sender."""
    data = raw.patterned_dataset(_UID, 1_500_000)
    values = fragments(data, 60_000)
    whole = request(_UID, 2) + pdus(values, 1)
    if then == "nothing":
        twins.same(whole[:at], FIN)
        return
    count = at // 60_000
    mixed = request(_UID, 2) + pdus(values[:count]) + pdus(values[count:], 2)
    outcome = twins.stores(mixed[:at], mixed[at:], 1, an_object(_NEXT, 3), count=2)
    assert outcome.files[1].endswith(data)


@pytest.mark.parametrize("before", [10, 900, 1000, 1024, 4000, 5000])
def test_uids_that_come_late(twins: Twins, before: int) -> None:
    for size in (100, 2000, 16000):
        twins.stores(an_object(_UID, 2, size, data=_late(_UID, before)), 1, an_object(_NEXT, 3), count=2)
        twins.same(an_object(_UID, 2, size, data=_late(_NEXT, before)), 1, an_object(_NEXT, 3), RELEASE)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[int]]:
    """Messages of many layouts, and where they are cut, counted through all of them."""
    messages = []
    for number in range(draw(st.integers(1, 5))):
        uid = draw(st.sampled_from(["1.2", "1.2.33", "1." + "2" * 61, "1." + "3" * 62, "1.02.3"]))
        told = draw(st.sampled_from([uid, uid, uid, uid, "9.9", uid + "\0", uid + "  ", uid + ".", ""]))
        data = draw(
            st.sampled_from([raw.dataset(uid), raw.dataset(uid), raw.dataset(uid, padding=4), _late(uid, 700), b""])
        )
        sizes = draw(st.lists(st.sampled_from([0, 1, 3, 64, 100, 500, 1000, 3000]), min_size=1, max_size=6))
        command = raw.store_rq(told, message_id=number + 2)
        form = draw(st.sampled_from(["plain", "plain", "plain", "plain", "joined", "split", "echo"]))
        values, each = fragments(data, *sizes), draw(st.sampled_from([1, 1, 1, 2, 5]))
        if form == "joined":
            messages.append(pdus([pdv(1, 3, command), *values], 1000))
        elif form == "split":
            messages.append(pdus(fragments(command, *sizes, command=True), each) + pdus(values, each))
        elif form == "echo":
            messages.append(_ECHO)
        else:
            messages.append(pdus([pdv(1, 3, command)]) + pdus(values, each))
    return messages, draw(st.lists(st.integers(1, 300 if len(messages) < 2 else 3000), max_size=12))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams())
def test_any_layout_cut_anywhere(twins: Twins, stream: tuple[list[bytes], list[int]]) -> None:
    messages, sizes = stream
    steps: list[Step] = []
    whole = b"".join(messages)
    cuts = sorted({sum(sizes[: at + 1]) for at in range(len(sizes))})
    at = 0
    for message in messages if twins.sync else [whole]:  # synced, at most 8 may be outstanding, and their order is free
        inside = [cut for cut in cuts if at < cut < at + len(message)]
        marks = [at, *inside, at + len(message)]
        steps += [whole[start:stop] for start, stop in itertools.pairwise(marks)]
        steps += [1] if twins.sync else []
        at += len(message)
    assert twins.same(*steps, RELEASE).ended["how"] == "released"


# Requests and datasets that are refused.


@pytest.mark.parametrize(
    "uid",
    [
        *(b"1.2.3 ", b"1.2.3  ", b"1.2.3\0\0\0", b"1.2.33", b" 1.2.3", b"1", b"1.2.x", b"abc", b"", b" ", b"\0\0"),
        *(b"1.2..3", b".1.2", b"1.2.", b"1.2\0.3", b"1.2;3", b"\xff\xfe", b"1." + b"2" * 62, b"1." + b"2" * 63),
        *(b"1." + b"2" * 61 + b"  ", b"1." + b"2" * 60 + b"  ", b"1." + b"2" * 1500),
    ],
)
@pytest.mark.parametrize("odd", [False, True])
def test_instance_uids(twins: Twins, uid: bytes, odd: bool) -> None:
    command = raw.store_rq(uid, message_id=5)
    if odd and len(uid) % 2:
        bare = struct.pack("<HHI", 0, 0x1000, len(uid)) + uid
        command = command.replace(raw.element(0x1000, uid), bare)
    data = raw.dataset(uid.rstrip(b"\0 ").decode("latin-1")) if uid.strip(b"\0 ") else raw.dataset("1.2.3")
    twins.same(pdus([pdv(1, 3, command)]) + pdus(fragments(data, 700)), 1, an_object(_NEXT, 6), RELEASE)


def _without(tag: int, value: bytes | int) -> bytes:
    return raw.store_rq(_UID, message_id=5).replace(raw.element(tag, value), b"")


_COMMANDS = {
    "another-class": raw.store_rq(_UID, raw.MR_IMAGE),
    "no-class": _without(0x0002, raw.CT_IMAGE.encode()),
    "no-field": _without(0x0100, 1),
    "no-message-id": _without(0x0110, 5),
    "no-priority": _without(0x0700, 0),
    "no-dataset-type": _without(0x0800, 0),
    "no-instance": _without(0x1000, _UID.encode()),
    "no-dataset": raw.store_rq(_UID, dataset_type=raw.NO_DATASET),
    "another-priority": raw.store_rq(_UID).replace(raw.element(0x0700, 0), raw.element(0x0700, 1)),
    "another-operation": raw.store_rq(_UID).replace(raw.element(0x0100, 1), raw.element(0x0100, 0x20)),
    "a-response": raw.store_rq(_UID).replace(raw.element(0x0100, 1), raw.element(0x0100, 0x8001)),
    "group-length-wrong": raw.store_rq(_UID)[:8] + b"\x05\0\0\0" + raw.store_rq(_UID)[12:],
    "group-length-missing": raw.store_rq(_UID)[12:],
    "group-length-of-8": b"\0\0\0\0\x08\0\0\0" + raw.store_rq(_UID)[8:],
    "moved": raw.store_rq(_UID) + raw.element(0x1030, b"PEER") + raw.element(0x1031, 3),
    "twice-the-uid": raw.store_rq(_UID) + raw.element(0x1000, _NEXT.encode()),
    "cut": raw.store_rq(_UID)[:-3],
    "uid-length-beyond": raw.store_rq(_UID).replace(b"\0\0\0\x10\x0a\0", b"\0\0\0\x10\x0c\0"),
    "garbage": b"garbage",
    "of-1012": raw.store_rq(_UID) + raw.element(0x2000, bytes(1012 - 8 - len(raw.store_rq(_UID)))),
    "of-1013": raw.store_rq("1." + "2" * (1013 - len(raw.store_rq("")) - 3)),
    "of-2000": raw.store_rq(_UID) + raw.element(0x2000, bytes(2000)),
    "too-long": raw.store_rq(_UID) + raw.element(0x2000, bytes(100_000)),
}


@pytest.mark.parametrize("command", _COMMANDS.values(), ids=_COMMANDS.keys())
def test_commands(twins: Twins, command: bytes) -> None:
    for cut in (12, 20, len(command) // 2):
        whole = pdus([pdv(1, 3, command)])
        twins.same(whole[:cut], whole[cut:], an_object(_UID)[len(request(_UID)) :], 1, FIN)
        twins.same(
            an_object(_NEXT, 3), 1, whole + an_object(_UID)[len(request(_UID)) :], 1, an_object(_NEXT, 4), 1, FIN
        )


_DATASETS = {
    "another-instance": raw.dataset(_NEXT),
    "another-class": raw.dataset(_UID, raw.MR_IMAGE),
    "no-uids": raw.dataset(_UID)[44 + 8 + len(_UID) + 1 :],
    "longer-uid": raw.dataset(_UID + "1"),
    "padded-with-a-space": raw.dataset("1.2.840.22").replace(b"1.2.840.22", b"1.2.840.2 "),
    "empty": b"",
    "a-few-bytes": raw.dataset(_UID)[:10],
    "cut-in-the-uid": raw.dataset(_UID)[:40],
    "implicit": _implicit(_UID),
    "the-uids-twice": raw.dataset(_NEXT) + raw.dataset(_UID),
}


@pytest.mark.parametrize("data", _DATASETS.values(), ids=_DATASETS.keys())
def test_datasets(twins: Twins, data: bytes) -> None:
    for sizes in ((16000,), (1,), (20, 20, 300), (1024, 100)):
        whole = an_object(_UID, 3, *sizes, data=data)
        twins.same(whole[:170], whole[170:], 1, an_object(_NEXT, 4), 1, whole, RELEASE)


# What ends an association.

_HALF = an_object(_UID, 2, 500)[:1500]  # amid a fragment
_AT_A_PDU = request(_UID, 2) + pdus(fragments(raw.dataset(_UID), 500)[:2])
_BREAKS = {
    "dataset-on-another-context": pdus(fragments(raw.dataset(_UID), 500, context_id=5)),
    "dataset-on-a-context-that-is-none": pdus(fragments(raw.dataset(_UID), 500, context_id=99)),
    "command": request(_NEXT, 3),
    "echo": _ECHO,
    "too-long": pdu(P_DATA, b"", 131073) + bytes(100),
    "a-huge-pdv": pdu(P_DATA, pdv(1, 0, bytes(100), 0xFFFFFFFF)),
    "a-pdv-of-1": pdu(P_DATA, pdv(1, 0, bytes(100), 1)),
    "a-pdv-that-leaves-3": pdu(P_DATA, pdv(1, 0, bytes(100), 99)),
    "an-empty-pdu": pdu(P_DATA, b""),
    "unknown": pdu(0x42, bytes(500)),
    "a-request-to-associate": raw.associate_rq(),
    "a-wrong-release": pdu(raw.RELEASE_RQ, bytes(5)),
    "abort": ABORT,
    "release": RELEASE,
    "end": b"",
}


@pytest.mark.parametrize("what", _BREAKS.values(), ids=_BREAKS.keys())
def test_breaks(twins: Twins, what: bytes) -> None:
    """Between objects, behind a request, between and amid the fragments; whole, and in pieces."""
    for before in (an_object(_UID, 2), request(_UID, 2), request(_UID, 2)[:100], _AT_A_PDU, _HALF, _HALF[:300]):
        answered: list[Step] = [1] if before == an_object(_UID, 2) else []
        twins.same(before, *answered, what, FIN)
        if not answered or not twins.sync:
            twins.same(before + what, FIN)
        twins.same(before, *answered, *_step_by_step(what, min(len(what), 14)), FIN)
