"""Command sets of DIMSE messages: reading the requests, writing the responses (PS3.7 §6.3, §9.3, annex E).

They are implicit VR little endian and short; of a request only what a Storage or Verification SCP needs is kept.
"""

import enum
import struct

from protocol.dimse.command_set import UnreadableCommandError, read_elements
from protocol.dimse.uids import is_uid_value, padded, unpadded

_ELEMENT = struct.Struct("<HHI")
_GROUP_LENGTH = struct.Struct("<HHII")
_VALUE = struct.Struct("<H")
_FIXED = struct.Struct("<HHIHHHIHHHIHHHIH")

_NO_DATASET = 0x0101
_RESPONSE = 0x8000
_LONGEST_COMMENT = 64  # LO

# Elements of group 0000.
_AFFECTED_SOP_CLASS, _COMMAND_FIELD, _MESSAGE_ID, _DATASET_TYPE = 0x0002, 0x0100, 0x0110, 0x0800
_RESPONDED_TO, _STATUS, _ERROR_COMMENT, _AFFECTED_SOP_INSTANCE = 0x0120, 0x0900, 0x0902, 0x1000
_REQUESTED_SOP_CLASS, _MOVE_ORIGINATOR = 0x0003, 0x1030


class CommandField(enum.IntEnum):
    """PS3.7 §E.1-1, as far as it is looked at."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    C_CANCEL_RQ = 0x0FFF


class Status(enum.IntEnum):
    """PS3.7 annex C, PS3.4 §B.2.3."""

    SUCCESS = 0x0000
    INVALID_SOP_INSTANCE = 0x0117
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    UNRECOGNIZED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    DATASET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class Command:
    """What a request says.

    Args:
        field: command field.
        message_id: to be repeated in the response.
        has_dataset: whether a dataset follows.
        sop_class: affected (or requested) SOP Class UID without padding; empty when absent.
        sop_instance: affected SOP Instance UID without padding; empty when absent.
        is_moved: whether it says that a C-MOVE has begun it.
    """

    __slots__ = ("field", "has_dataset", "is_moved", "message_id", "sop_class", "sop_instance")

    def __init__(  # noqa: PLR0917 # as they stand in the command set
        self,
        field: int,
        message_id: int,
        has_dataset: bool,
        sop_class: bytes,
        sop_instance: bytes,
        is_moved: bool = False,
    ) -> None:
        self.field = field
        self.message_id = message_id
        self.has_dataset = has_dataset
        self.sop_class = sop_class
        self.sop_instance = sop_instance
        self.is_moved = is_moved


def parse_command(data: bytes) -> Command:
    """Read a command set.

    Raises:
        UnreadableCommandError: it is no sequence of elements of group 0000, or lacks what tells how to answer.
    """
    values = read_elements(data)
    try:
        (field,) = _VALUE.unpack(values[_COMMAND_FIELD])
        (message_id,) = _VALUE.unpack(values[_MESSAGE_ID])
        (dataset_type,) = _VALUE.unpack(values[_DATASET_TYPE])
    except (KeyError, struct.error):
        raise UnreadableCommandError("command field, message ID or dataset type is missing") from None
    if field & _RESPONSE:
        raise UnreadableCommandError("a response, where nothing was asked")
    sop_class = values.get(_AFFECTED_SOP_CLASS) or values.get(_REQUESTED_SOP_CLASS, b"")
    sop_instance = values.get(_AFFECTED_SOP_INSTANCE, b"")
    has_dataset, is_moved = dataset_type != _NO_DATASET, _MOVE_ORIGINATOR in values
    return Command(field, message_id, has_dataset, unpadded(sop_class), unpadded(sop_instance), is_moved)


def encode_response(command: Command, status: int, comment: str = "") -> bytes:
    """The response to a request.

    Args:
        command: the request.
        status: PS3.7 annex C.
        comment: why it failed, without anything that the peer wrote.
    """
    # Group, element, length and value of four elements.
    body = _ui(_AFFECTED_SOP_CLASS, command.sop_class) + _FIXED.pack(
        *(0, _COMMAND_FIELD, 2, command.field | _RESPONSE),
        *(0, _RESPONDED_TO, 2, command.message_id),
        *(0, _DATASET_TYPE, 2, _NO_DATASET),
        *(0, _STATUS, 2, status),
    )
    if comment:
        text = comment[:_LONGEST_COMMENT].encode("ascii")
        text += b" " * (len(text) % 2)
        body += _ELEMENT.pack(0, _ERROR_COMMENT, len(text)) + text
    if command.field == CommandField.C_STORE_RQ:
        body += _ui(_AFFECTED_SOP_INSTANCE, command.sop_instance)
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _ui(element: int, uid: bytes) -> bytes:
    """A UID's element; nothing when there is none, or what came was none: it is not thrown back."""
    if not is_uid_value(uid):
        return b""
    value = padded(uid)
    return _ELEMENT.pack(0, element, len(value)) + value
