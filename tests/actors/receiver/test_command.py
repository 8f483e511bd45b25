"""Command sets."""

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode

from actors.receiver.command import (
    Command,
    CommandField,
    Status,
    encode_response,
    parse_command,
)
from protocol.dimse.command_set import UnreadableCommandError
from protocol.dimse.uids import is_uid, is_uid_value
from tests.actors.receiver import raw


def test_a_request_as_pynetdicom_writes_it() -> None:
    request = C_STORE()
    request.MessageID = 4711
    request.AffectedSOPClassUID = raw.CT_IMAGE
    request.AffectedSOPInstanceUID = "1.2.345"
    request.Priority = 2
    request.DataSet = BytesIO(b"xx")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    data = encode(message.command_set, True, True)
    assert data
    command = parse_command(data)
    assert command.field == CommandField.C_STORE_RQ
    assert command.message_id == 4711
    assert command.has_dataset
    assert command.sop_class == raw.CT_IMAGE.encode()
    assert command.sop_instance == b"1.2.345"


def test_padding_of_uids_is_no_part_of_them() -> None:
    command = parse_command(raw.store_rq(b"1.2.3 \0"))
    assert command.sop_instance == b"1.2.3"


@pytest.mark.parametrize("comment", ["", "no space", "odd"])
def test_a_response_as_pynetdicom_reads_it(comment: str) -> None:
    command = Command(0x0001, 65535, True, raw.CT_IMAGE.encode(), b"1.2.3.4")
    data = encode_response(command, Status.OUT_OF_RESOURCES, comment)
    message = C_STORE_RSP()
    message.command_set = decode(BytesIO(data), True, True)
    assert message.command_set.CommandGroupLength == len(data) - 12
    assert message.command_set.CommandField == 0x8001
    assert message.command_set.MessageIDBeingRespondedTo == 65535
    assert message.command_set.AffectedSOPClassUID == raw.CT_IMAGE
    assert message.command_set.AffectedSOPInstanceUID == "1.2.3.4"
    assert message.command_set.Status == 0xA700
    assert message.command_set.get("ErrorComment", "") == comment


def test_what_is_no_uid_is_not_thrown_back() -> None:
    data = encode_response(Command(0x0001, 1, True, b"", b"../../etc/x"), Status.INVALID_SOP_INSTANCE)
    assert raw.Response(data).values.keys() == {0, 0x0100, 0x0120, 0x0800, 0x0900}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        raw.element(0x0100, 1),
        raw.store_rq("1.2")[:-1],
        raw.store_rq("1.2") + b"\0\0",
        raw.store_rq("1.2").replace(b"\0\0\0\x01", b"\x08\0\0\x01"),
        raw.element(0x0100, b"") + raw.element(0x0110, 1) + raw.element(0x0800, 0x101),
        raw.element(0x0100, 0x8001) + raw.element(0x0110, 1) + raw.element(0x0800, 0x101),
        raw.element(0x0100, 1) + raw.element(0x0110, 1),
        raw.element(0x0110, 1) + raw.element(0x0800, 0),
    ],
    ids=["empty", "only-a-field", "cut", "rest", "group", "no-value", "response", "no-dataset-type", "no-field"],
)
def test_what_cannot_be_answered_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableCommandError):
        parse_command(data)


@given(st.binary(max_size=300))
def test_garbage_is_unreadable_and_nothing_worse(data: bytes) -> None:
    with contextlib.suppress(UnreadableCommandError):
        parse_command(data)


@given(st.data())
def test_a_damaged_command_is_unreadable_or_reads_as_pynetdicom_reads_it(data: st.DataObject) -> None:
    command = bytearray(raw.store_rq("1.2.345", message_id=77))
    at = data.draw(st.integers(0, len(command) - 1))
    command[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        found = parse_command(bytes(command))
    except UnreadableCommandError:
        return
    try:
        expected = decode(BytesIO(bytes(command)), True, True)
        read = (expected.CommandField, expected.MessageID, expected.CommandDataSetType)
    except Exception:
        return  # it refuses more than ours, such as text that is no UID
    assert (found.field, found.message_id) == read[:2]
    assert found.has_dataset == (read[2] != 0x0101)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("1.2.840", True),
        ("1", True),
        ("1.02.3", True),  # as devices send it
        ("1." + "2" * 62, True),
        ("1." + "2" * 63, False),
        ("", False),
        ("1..2", False),
        (".1", False),
        ("1.", False),
        ("..", False),
        ("/abs", False),
        ("../../etc/x", False),
        ("1.2\x00.3", False),
        ("1.2\n", False),
        ("1.²", False),
        ("1.٣", False),
    ],
)
def test_uids(text: str, is_one: bool) -> None:
    assert is_uid(text) is is_one
    assert is_uid_value(text.encode()) is is_one
