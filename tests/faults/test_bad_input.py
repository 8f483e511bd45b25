"""Bad input, row by row, on the whole gateway: each costs its sender only.

A row is provoked on real sockets; then every process must be the one of before, with its descriptors and threads, no
file in transit and no association may be left, a healthy association must have been served beside it at its pace, and
the log must have a line of it without control characters and without a patient.

`ROWS` names, for each row, the tests that look at its details; those must exist.
"""

import ast
import contextlib
import gzip
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.actors.extractor.encoding import DEFLATED, element
from tests.actors.receiver import raw
from tests.actors.receiver.raw import CT_IMAGE, P_DATA, Peer, pdu, pdv
from tests.below import paths_below
from tests.faults.bystander import Bystander
from tests.faults.scu import make_dataset
from tests.faults.surroundings import Surroundings
from tests.gateway import Gateway
from tests.samples import new_uid

_REPOSITORY = Path(__file__).resolve().parents[2]
_RECEIVER = "tests/actors/receiver/test_bad_input.py"
_HEADER = "tests/actors/extractor/test_header.py"
CALLED, CALLING, PATIENT = b"BAD", b"MODALITY", "PAT-BAD"
SHARE = 20

ROWS: dict[int, tuple[str, ...]] = {
    1: (f"{_RECEIVER}::test_silence_after_some_header_bytes_ends_at_the_deadline",),
    2: (f"{_RECEIVER}::test_half_a_pdu_and_then_silence", f"{_RECEIVER}::test_a_pdu_that_trickles_in"),
    3: (f"{_RECEIVER}::test_a_thousand_connections_that_close_at_once",),
    4: (f"{_RECEIVER}::test_a_request_of_a_length_that_cannot_be",),
    5: (f"{_RECEIVER}::test_a_pdu_longer_than_announced",),
    6: (f"{_RECEIVER}::test_an_unknown_pdu", f"{_RECEIVER}::test_another_pdu_than_a_request"),
    7: (f"{_RECEIVER}::test_a_pdv_that_does_not_fit",),
    8: (f"{_RECEIVER}::test_contexts_that_cannot_be_answered", "tests/actors/receiver/test_negotiation.py"),
    9: (f"{_RECEIVER}::test_contexts_that_cannot_be_answered",),
    10: (f"{_RECEIVER}::test_titles", "tests/actors/submitter/test_payload.py"),
    11: (f"{_RECEIVER}::test_another_pdu_than_a_request", f"{_RECEIVER}::test_a_pdu_that_does_not_belong_here"),
    12: (f"{_RECEIVER}::test_unreadable", f"{_RECEIVER}::test_a_command_set_of_100_mb"),
    13: (f"{_RECEIVER}::test_a_missing_uid_is_a_failure",),
    14: (
        f"{_RECEIVER}::test_a_sop_class_that_is_not_its_contexts",
        f"{_RECEIVER}::test_uids_in_the_dataset_that_are_not_the_commands",
    ),
    15: (f"{_RECEIVER}::test_instance_uids_that_are_none",),
    16: (f"{_HEADER}::test_an_instance_without_usable_identifiers_is_a_problem", "tests/protocol/test_spool.py"),
    17: (f"{_HEADER}::test_sequences_nested_too_deep_are_a_problem",),
    18: (f"{_HEADER}::test_a_deflate_bomb_is_bounded",),
    19: (f"{_HEADER}::test_a_dataset_cut_short_anywhere_is_a_problem",),
    20: (f"{_RECEIVER}::test_no_dataset_or_an_empty_one",),
    21: tuple(f"{_RECEIVER}::test_{how}" for how in ("abort", "release", "fin", "rst")),
    22: ("tests/actors/processor/test_processor.py::test_of_two_versions_the_earlier_or_the_later_stays",),
    23: ("tests/actors/receiver/test_limits.py::test_a_hosts_share",),
    24: (f"{_RECEIVER}::test_a_peer_that_never_reads",),
    25: (
        "tests/actors/receiver/test_limits.py::test_a_full_disk_is_no_success",
        "tests/actors/receiver/test_store.py",
        "tests/test_disk_guard.py::test_a_disk_that_is_full_to_the_last_byte",
    ),
    26: (
        "tests/actors/api/test_security.py::test_large_body_is_refused_while_it_comes",
        "tests/actors/api/test_security.py::test_refusals_over_http",
        "tests/actors/api/test_configuration.py::test_malformed",
        "tests/actors/api/test_configuration.py::test_invalid",
    ),
    27: (
        "tests/protocol/platforms/test_clara.py::test_every_failure_of_every_call_is_an_error_of_ours",
        "tests/actors/submitter/test_clara.py::test_a_step_is_tried_again_as_configured_and_those_before_it_are_not",
        "tests/actors/submitter/test_clara.py::test_a_platform_that_is_broken_for_one_job_is_not_for_others",
    ),
}


def test_every_row_has_its_tests() -> None:
    assert list(ROWS) == list(range(1, 28))
    for names in ROWS.values():
        assert names
        for name in names:
            path, _, test = name.partition("::")
            tree = ast.walk(ast.parse((_REPOSITORY / path).read_text(encoding="utf-8")))
            found = {node.name for node in tree if isinstance(node, ast.FunctionDef)}
            assert not test or test in found, name


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """One gateway for all rows."""
    settings = {
        **{f"dicom.scp.limits.{name}": 1.5 for name in ("firstBytesSeconds", "pduSeconds", "writeSeconds")},
        "dicom.scp.maximumNumberOfAssociations": 100,
        "dicom.scp.maximumAssociationsPerHost": SHARE,
    }
    with Gateway(tmp_path_factory.mktemp("bad"), settings) as gateway:
        gateway.add_source(CALLING.decode(), "127.0.0.0/8")
        none = gateway.add_pipeline("none", ["/bin/true"])
        for title in (CALLED.decode(), "GOOD"):
            gateway.add_aetitle(title, pipeline_none=none)
        with Bystander(gateway.port, "GOOD") as bystander:
            gateway.wait_for(lambda: len(bystander.served) > 10, 20.0, "a healthy association")
            yield Surroundings(gateway, bystander, PATIENT)


@pytest.fixture
def around(running: Surroundings) -> Iterator[Surroundings]:
    """Checks the invariant after each row."""
    began = running.begin()
    yield running
    running.check(began)


@contextlib.contextmanager
def peer_of(around: Surroundings) -> Iterator[Peer]:
    with Peer(around.gateway.port) as peer:
        yield peer


@contextlib.contextmanager
def associated(around: Surroundings, *contexts: bytes) -> Iterator[Peer]:
    with peer_of(around) as peer:
        peer.associate(*contexts, called=CALLED, calling=CALLING)
        yield peer


def object_of(uid: str, study: str = "", patient: str = PATIENT) -> bytes:
    return make_dataset(uid, study or new_uid(), patient, bytes(1000))


def store(peer: Peer, dataset: bytes, uid: str) -> int:
    return peer.store(uid, dataset).status


def abort_after(around: Surroundings, data: bytes) -> None:
    """Associate, send this, and be aborted."""
    with associated(around) as peer:
        peer.send(data)
        peer.expect_abort()


# The rows.


def row_1(around: Surroundings) -> None:
    for count in (1, 5):
        with peer_of(around) as peer:
            peer.send(raw.associate_rq()[:count])
            peer.expect_end()


def row_2(around: Surroundings) -> None:
    abort_after(around, pdu(P_DATA, pdv(1, 3, raw.store_rq("1.2")))[:-10])


def row_3(around: Surroundings) -> None:
    for _ in range(1000):
        socket.create_connection(("127.0.0.1", around.gateway.port)).close()


def row_4(around: Surroundings) -> None:
    with peer_of(around) as peer:
        peer.send(pdu(raw.RQ, b"", 0xFFFFFFFF))
        peer.expect_abort(source=0)


def row_5(around: Surroundings) -> None:
    abort_after(around, pdu(P_DATA, b"", 0x7FFFFFFF))


def row_6(around: Surroundings) -> None:
    abort_after(around, pdu(0x42, b"x" * 5000) + b"y" * 5000)


def row_7(around: Surroundings) -> None:
    for length in (0, 1, 100_000, 0xFFFFFFFF):
        abort_after(around, pdu(P_DATA, pdv(1, 3, raw.echo_rq(), length)))


def row_8(around: Surroundings) -> None:
    with peer_of(around) as peer:
        peer.send(raw.associate_rq(raw.item(0x20, b"\x01\0\0\0" + raw.item(0x30, b"1.2", 5000))))
        peer.expect_abort(source=0)


def row_9(around: Surroundings) -> None:
    for contexts in ((raw.context(2),), (raw.context(1), raw.context(1)), (b"",)):
        with peer_of(around) as peer:
            peer.send(raw.associate_rq(*contexts, called=CALLED, calling=CALLING))
            peer.expect_abort(source=0)


def row_10(around: Surroundings) -> None:
    for title in (b" " * 16, b"C\xc3\xa4T", b"\x1b[31mCT", b"../secret/X"):
        with peer_of(around) as peer:
            peer.send(raw.associate_rq(called=title, calling=CALLING))
            peer.expect_rejection(1, 1, 7)
    around.told("association_rejected")


def row_11(around: Surroundings) -> None:
    with peer_of(around) as peer:
        peer.send(pdu(P_DATA, pdv(1, 3, raw.store_rq("1.2"))))
        peer.expect_abort(source=0)
    abort_after(around, raw.associate_rq(called=CALLED, calling=CALLING))


def row_12(around: Surroundings) -> None:
    abort_after(around, pdu(P_DATA, pdv(1, 3, raw.store_rq("1.2").replace(raw.element(0x0100, 1), b""))))
    with associated(around) as peer, contextlib.suppress(OSError):
        peer.send_for_ever(pdu(P_DATA, pdv(1, 1, bytes(100_000))))
    around.told("command set is too long")


def row_13(around: Surroundings) -> None:
    uid = new_uid()
    with associated(around) as peer:
        for tag, value in ((0x0002, CT_IMAGE), (0x1000, uid)):
            peer.command(raw.store_rq(uid).replace(raw.element(tag, value.encode()), b""))
            peer.dataset(object_of(uid))
            assert peer.response().status in (0xC000, 0x0117)
        peer.release()


def row_14(around: Surroundings) -> None:
    uid = new_uid()
    with associated(around) as peer:
        assert peer.store(uid, object_of(uid), sop_class=raw.MR_IMAGE).status == 0xA900
        assert store(peer, object_of(new_uid()), uid) == 0xA900
        peer.release()


def row_15(around: Surroundings) -> None:
    with associated(around) as peer:
        for uid in (b"../../etc/x", b"/abs", b"..", b"1.2\0.3", b"1." + b"2" * 78):
            peer.command(raw.store_rq(uid))
            peer.dataset(object_of("1.2.3"))
            assert peer.response().status == 0x0117
        peer.release()
    assert not [path for path in paths_below(around.gateway.directory) if path.name in ("x", "abs")]


def row_16(around: Surroundings) -> None:
    """A bad Study Instance UID is quarantined; a bad Patient ID is a name that stays in its place."""
    wild = f"../../{PATIENT}\r\n\x1b[31m$(id)`;|&"
    with associated(around) as peer:
        for study in ("..", " "):
            uid = new_uid()
            assert store(peer, object_of(uid, study), uid) == 0
        uid = new_uid()
        assert store(peer, object_of(uid, patient=wild), uid) == 0
        peer.release()
    around.quarantined("Study Instance UID", 2)
    gateway = around.gateway
    gateway.wait_for(lambda: gateway.jobs(aeTitle=CALLED.decode()), 30.0, "the job of a wild Patient ID")
    home = gateway.directory.resolve()
    assert not [path for path in home.parent.iterdir() if PATIENT in path.name]
    for path in paths_below(gateway.spool):
        assert re.fullmatch(r"[A-Za-z0-9._^=+@ -]+", path.name), path


def row_17(around: Surroundings) -> None:
    uid, nest = new_uid(), b""
    for _ in range(5000):
        nest += element(0x0040A730, "SQ", b"", length=0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    head, pixels = object_of(uid)[:-1012], object_of(uid)[-1012:]
    with associated(around) as peer:
        assert store(peer, head + nest + pixels, uid) == 0
        peer.release()
    around.quarantined("deep")


def row_18(around: Surroundings) -> None:
    uid = new_uid()
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = compressor.compress(
        element(0x00080005, "CS", b"ISO_IR 100") + element(0x00090010, "OB", b"", length=1 << 29)
    )
    mebibyte = bytes(1 << 20)
    body += b"".join(compressor.compress(mebibyte) for _ in range(512)) + compressor.flush()
    with associated(around, raw.context(1, CT_IMAGE, DEFLATED)) as peer:
        assert store(peer, body, uid) == 0
        peer.release()
    around.quarantined("MiB")


def row_19(around: Surroundings) -> None:
    with associated(around) as peer:
        uid = new_uid()
        assert store(peer, object_of(uid)[:-500], uid) == 0
        uid = new_uid()
        assert store(peer, object_of(uid) + element(0x7FE10010, "OB", b"abcd", length=1 << 30), uid) == 0
        peer.release()
    around.quarantined("ends inside", 2)


def row_20(around: Surroundings) -> None:
    with associated(around) as peer:
        peer.command(raw.store_rq(new_uid(), dataset_type=raw.NO_DATASET))
        assert peer.response().status == 0xC000
        peer.command(raw.store_rq(new_uid()))
        peer.dataset(b"")
        assert peer.response().status == 0xC000
        peer.release()


def row_21(around: Surroundings) -> None:
    for end in ("abort", "release", "fin", "rst"):
        uid = new_uid()
        with associated(around) as peer:
            peer.command(raw.store_rq(uid))
            peer.send(pdu(P_DATA, pdv(1, 0, object_of(uid)[:600])))
            if end == "abort":
                peer.send(pdu(raw.ABORT, bytes(4)))
            elif end == "release":
                peer.send(pdu(raw.RELEASE_RQ, bytes(4)))
            elif end == "fin":
                peer.socket.shutdown(socket.SHUT_WR)
            else:
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.socket.close()
                continue
            assert peer.receive()[0] != P_DATA


def row_22(around: Surroundings) -> None:
    uid, study = new_uid(), new_uid()
    first, second = (make_dataset(uid, study, PATIENT, filling * 1000) for filling in (b"a", b"b"))
    with associated(around) as peer:
        assert store(peer, first, uid) == 0
        assert store(peer, second, uid) == 0
        peer.release()
    files = [path.read_bytes() for path in (around.gateway.spool / "instances").glob("*/*.dcm")]
    assert sum(data.endswith(first) for data in files) == sum(data.endswith(second) for data in files) == 1


def row_23(around: Surroundings) -> None:
    port, taken = around.gateway.port, []
    outcomes = []
    for _ in range(SHARE + 5):
        peer = socket.create_connection(("127.0.0.1", port), timeout=20.0, source_address=("127.0.0.9", 0))
        taken.append(peer)
        peer.sendall(raw.associate_rq(called=CALLED, calling=CALLING))
        outcomes.append(peer.recv(1)[0])
    assert outcomes == [raw.AC] * SHARE + [raw.RJ] * 5
    with associated(around) as other:
        other.release()
    for peer in taken:
        peer.close()


def row_24(around: Surroundings) -> None:
    """The deadline for sending ends it, or that for a PDU, when the last of its bytes found no room."""
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)  # before it connects, so that little fits
        deaf.settimeout(20.0)
        deaf.connect(("127.0.0.1", around.gateway.port))
        context = raw.context(3, raw.VERIFICATION, raw.IMPLICIT)
        deaf.sendall(raw.associate_rq(context, called=CALLED, calling=CALLING))
        with pytest.raises(ConnectionError):
            deaf.sendall(pdu(P_DATA, pdv(3, 3, raw.echo_rq())) * 1_000_000)
    around.told("association_ended")


def row_26(around: Surroundings) -> None:
    rest, path, json = around.gateway.rest, "/api/config/sourceaetitle", {"content-type": "application/json"}

    def gigabyte() -> Iterator[bytes]:
        yield b'{"aeTitle": "'
        for _ in range(16 * 1024):
            yield b"A" * 65536

    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # it may be closed before all was sent
        assert rest.post(path, content=gigabyte(), headers=json).status_code == 413
    bomb = gzip.compress(b'{"aeTitle": "' + bytes(50_000_000))
    assert rest.post(path, content=bomb, headers={**json, "content-encoding": "gzip"}).status_code == 415
    assert rest.post(path, content=b"<a/>", headers={"content-type": "text/xml"}).status_code == 415
    assert rest.post(path, content=b"[" * 100_000, headers=json).status_code == 400
    named = rest.post(path, json={"aeTitle": {"a": 1}, "hostIp": "127.0.0.1"})
    assert named.status_code == 400
    assert "aetitle" in named.text.lower()


_LIVE: dict[int, Callable[[Surroundings], None]] = {
    number: globals()[f"row_{number}"] for number in range(1, 28) if f"row_{number}" in globals()
}


@pytest.mark.parametrize("number", _LIVE)
def test_row(around: Surroundings, number: int) -> None:
    _LIVE[number](around)


def test_only_what_needs_another_world_is_not_provoked_here() -> None:
    """A full disk and a platform that answers garbage have their own tests, each with its own gateway or actor."""
    assert set(ROWS) - set(_LIVE) == {25, 27}
