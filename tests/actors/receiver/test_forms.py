"""What C-STORE requests of one association share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.receiver.command import Command, Status, encode_response, parse_command
from actors.receiver.forms import StoreForm
from protocol.dimse.command_set import (
    AFFECTED_SOP_CLASS,
    AFFECTED_SOP_INSTANCE,
    COMMAND_FIELD,
    DATASET_TYPE,
    MESSAGE_ID,
    PRIORITY,
    write_elements,
)
from protocol.dimse.pdu import encode_command
from tests.actors.receiver import raw

UIDS = st.from_regex(r"[0-9]{1,8}(\.[0-9]{1,8}){0,5}", fullmatch=True)
CONTEXT_ID = 5


def request(message_id: int = 1, uid: str = "1.2.3", priority: int = 0, sop_class: str = raw.CT_IMAGE) -> bytes:
    return write_elements(
        {
            AFFECTED_SOP_CLASS: sop_class,
            COMMAND_FIELD: raw.C_STORE,
            MESSAGE_ID: message_id,
            PRIORITY: priority,
            DATASET_TYPE: raw.HAS_DATASET,
            AFFECTED_SOP_INSTANCE: uid,
        }
    )


def form_of(data: bytes, peer_max_pdu_bytes: int = 0) -> StoreForm | None:
    return StoreForm.of(CONTEXT_ID, data, parse_command(data), peer_max_pdu_bytes)


def fields(command: Command | None) -> list[object]:
    return [getattr(command, name) for name in Command.__slots__]


@given(st.integers(0, 0xFFFF), UIDS)
def test_a_request_of_the_form_is_read_and_answered_as_ever(message_id: int, uid: str) -> None:
    form = form_of(request())
    assert form is not None
    data = request(message_id, uid)
    command, parsed = form.match(data), parse_command(data)
    assert command is not None
    assert fields(command) == fields(parsed)
    for _ in range(2):  # made, and remembered
        assert form.success(command) == encode_command(CONTEXT_ID, encode_response(parsed, Status.SUCCESS), 0)


@pytest.mark.parametrize(
    "data",
    [
        request(priority=1),
        request(sop_class=raw.MR_IMAGE),
        request() + b"\0\0\x30\x10\x02\0\0\0AE",  # a move originator behind the UID
        request()[:-1],
        request()[:20],
        request().replace(b"\x04\0\0\0", b"\x05\0\0\0", 1),  # no group length of four bytes
        b"",
    ],
)
def test_another_one_is_not(data: bytes) -> None:
    form = form_of(request())
    assert form is not None
    assert form.match(data) is None


@given(st.binary(max_size=200))
def test_nor_is_garbage(data: bytes) -> None:
    form = form_of(request())
    assert form is not None
    assert form.match(data) is None


@pytest.mark.parametrize(
    ("data", "peer_max_pdu_bytes"),
    [
        (request()[12:], 0),  # without a group length
        (request() + b"\0\0\x30\x10\x02\0\0\0AE", 0),
        (request() + request()[12:], 0),  # everything twice
        (request(), 128),  # the response is sent in pieces
    ],
)
def test_an_unusual_request_has_no_form(data: bytes, peer_max_pdu_bytes: int) -> None:
    assert form_of(data, peer_max_pdu_bytes) is None
