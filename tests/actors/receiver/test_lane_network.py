"""What a peer's network does to an association in the lane; each as without the lane."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.receiver import lane
from tests.actors.launcher import Launcher, wait_until
from tests.actors.receiver import raw
from tests.actors.receiver.conftest import SHORT_LIMITS
from tests.actors.receiver.raw import P_DATA, allow, stored_files
from tests.actors.receiver.twins import (
    CONTEXTS,
    FIRST,
    RELEASE,
    Conversation,
    Outcome,
    Twin,
    Twins,
    an_object,
    fragments,
    pdus,
    request,
)

pytestmark = pytest.mark.skipif(bool(lane.NOT_USED), reason=f"there is no lane: {lane.NOT_USED}")

_UID, _NEXT = "1.2.840.2", "1.2.840.3"
_LARGE = raw.dataset(_UID)[:-2000] + bytes(6_000_000)
_RESET = struct.pack("ii", 1, 0)  # struct linger: closing sends RST


@pytest.fixture(scope="module", params=[False, True], ids=["unsynced", "synced"])
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    with Twins(tmp_path_factory.mktemp("twins"), sync=request.param) as running:
        yield running


def _reset(twin: Twin, *pieces: bytes) -> tuple[dict[str, str], list[bytes]]:
    """Send pieces, each received before the next, and reset the connection; how it ended, and what was stored."""
    with twin.entered() as peer:
        conversation = Conversation(twin, peer)
        for piece in pieces:
            conversation.do(piece)
        port = peer.socket.getsockname()[1]
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        peer.socket.close()
        ended = twin.ended(port)
        return ended, twin.files_of(ended.pop("association"), port)


@pytest.mark.parametrize(
    "pieces",
    {
        "between-objects": (),
        "amid-a-header": (request(_UID)[:4],),
        "amid-a-request": (request(_UID)[:100],),
        "behind-a-request": (request(_UID),),
        "amid-a-fragment": (request(_UID), an_object(_UID)[len(request(_UID)) :][:900]),
        "between-fragments": (request(_UID), pdus(fragments(raw.dataset(_UID), 500)[:2])),
        "in-the-pipe": (request(_UID), pdus(fragments(_LARGE, 100_000))[:5_000_000]),
    }.items(),
    ids=lambda case: case[0],
)
def test_a_reset_leaves_nothing(twins: Twins, pieces: tuple[str, tuple[bytes, ...]]) -> None:
    with_lane, without = (_reset(twin, *pieces[1]) for twin in twins)
    assert with_lane == without
    assert with_lane[0]["how"] == '"connection lost (Connection reset by peer)"'
    assert len(with_lane[1]) == 1  # that with which it had entered
    assert not twins.lane.in_transit()


def _urgent(twin: Twin, *steps: bytes | str) -> Outcome:
    """Send pieces, each received before the next, with a byte of urgent data where a step says so; then a release."""
    with twin.entered() as peer:
        conversation = Conversation(twin, peer)
        for step in steps:
            if isinstance(step, bytes):
                conversation.do(step)
            else:
                peer.socket.send(step.encode(), socket.MSG_OOB)
        conversation.do(1)
        conversation.do(RELEASE)
        return conversation.outcome()


@pytest.mark.parametrize("before", [1, 3, 8, 60, 170, 180, 1000])
def test_urgent_data_is_no_part_of_the_stream(twins: Twins, before: int) -> None:
    """The system takes it out, and ends a receive there."""
    data = an_object(_UID, 2, 500)
    with_lane, without = (_urgent(twin, "!", data[:before], "!", data[before:]) for twin in twins)
    assert with_lane == without
    assert with_lane.ended["how"] == "released"
    assert with_lane.files[1].endswith(raw.dataset(_UID))


def test_urgent_data_amid_what_goes_through_the_pipe(twins: Twins) -> None:
    data = an_object(_UID, 2, 100_000, data=_LARGE)
    with_lane, without = (_urgent(twin, data[:5_000_000], "!", data[5_000_000:]) for twin in twins)
    assert with_lane == without
    assert with_lane.ended["how"] == "released"
    assert with_lane.files[1].endswith(_LARGE)


@pytest.mark.parametrize("count", [9, 40])
def test_many_objects_that_wait_for_no_answer(twins: Twins, count: int) -> None:
    """While they are synced, no more than eight may be outstanding: how many come through, the disk decides."""
    stream = b"".join(an_object(f"1.2.840.9.{number}", number + 2) for number in range(count))
    for twin in twins:
        known = set(stored_files(twin.launcher.spool))
        outcome = twin.exchange(stream + RELEASE)
        answers = [raw.Response(answer[12:]) for answer in outcome.answers if answer[0] == P_DATA]
        assert {answer.status for answer in answers} <= {0}
        assert len({answer.number(0x0120) for answer in answers}) == len(answers)
        wait_until(lambda: not twin.in_transit(), "the syncs that were under way")  # noqa: B023 # called here
        stored = len(set(stored_files(twin.launcher.spool)) - known) - 1  # but that with which it had entered
        if outcome.ended["how"] == "released":
            assert len(answers) == stored == count
        else:
            assert twins.sync
            assert outcome.ended["how"] == '"aborted: many requests without waiting for their answers"'
            assert stored == len(answers) + 8  # what was complete stays


@pytest.mark.parametrize("sync", [False, True], ids=["unsynced", "synced"])
def test_ipv6(tmp_path: Path, sync: bool) -> None:
    with Launcher(tmp_path, *SHORT_LIMITS, f"DicomAdapter.storage.syncOnStore={str(sync).lower()}") as launcher:
        launcher.listener.close()
        launcher.listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
        allow(launcher.spool, "CT", host="::1")
        receiver = launcher.start("receiver-1")
        with contextlib.closing(socket.create_connection(("::1", launcher.port), timeout=20)) as connection:
            peer = raw.Peer.__new__(raw.Peer)
            peer.socket = connection
            peer.associate(*CONTEXTS)
            for uid in (FIRST, _UID, _NEXT):
                assert peer.store(uid).status == 0
            peer.release()
        assert "how=released stored=3" in receiver.wait_for_log("association_ended")
        assert all(b"::1" in path.read_bytes() for path in stored_files(launcher.spool))
