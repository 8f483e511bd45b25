"""Command sets as bytes: group 0000 in implicit VR little endian (PS3.7 §6.3.1, annex E)."""

import struct

from protocol.dimse.uids import padded

ELEMENT = struct.Struct("<HHI")
_GROUP_LENGTH = struct.Struct("<HHII")
_VALUE = struct.Struct("<H")

AFFECTED_SOP_CLASS, REQUESTED_SOP_CLASS, COMMAND_FIELD, MESSAGE_ID = 0x0002, 0x0003, 0x0100, 0x0110
RESPONDED_TO, PRIORITY, DATASET_TYPE, STATUS = 0x0120, 0x0700, 0x0800, 0x0900
ERROR_COMMENT, AFFECTED_SOP_INSTANCE = 0x0902, 0x1000

C_STORE_RQ, C_ECHO_RQ, RESPONSE = 0x0001, 0x0030, 0x8000
HAS_DATASET, NO_DATASET = 0x0000, 0x0101


class UnreadableCommandError(Exception):
    """A command set that cannot be answered, since it does not even say what it is."""


def read_elements(data: bytes) -> dict[int, bytes]:
    """The values of a command set by their element.

    Raises:
        UnreadableCommandError: it is no sequence of elements of group 0000.
    """
    values: dict[int, bytes] = {}
    at, end = 0, len(data)
    header = ELEMENT.unpack_from
    while at < end:
        if end - at < 8:
            raise UnreadableCommandError("cut short")
        group, element, length = header(data, at)
        at += 8
        if group or length > end - at:
            raise UnreadableCommandError("an element is of another group, or longer than what is left")
        values[element] = data[at : at + length]
        at += length
    return values


def number(values: dict[int, bytes], element: int) -> int:
    """A number of a command set.

    Raises:
        UnreadableCommandError: it is missing, or not two bytes long.
    """
    try:
        (value,) = _VALUE.unpack(values[element])
    except (KeyError, struct.error):
        raise UnreadableCommandError(f"element 0000,{element:04X} is missing or malformed") from None
    return int(value)


def write_elements(values: dict[int, int | str]) -> bytes:
    """A command set of numbers and UIDs, in the order given, with its group length."""
    body = b"".join(_encoded(element, value) for element, value in values.items())
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _encoded(element: int, value: int | str) -> bytes:
    data = _VALUE.pack(value) if isinstance(value, int) else padded(value.encode("ascii"))
    return ELEMENT.pack(0, element, len(data)) + data
