"""The form of an association's C-STORE requests: what nearly all of them share, so that only the rest is looked at.

From one request to the next, a sender changes message ID and Affected SOP Instance UID. A request that differs in
nothing else needs no parser, and its response no encoder (PS3.7 §9.3.1). Whatever does not fit goes the long way.
"""

import struct
from typing import Self

from actors.receiver.command import Command, Status, encode_response
from protocol.dimse.command_set import (
    AFFECTED_SOP_INSTANCE,
    C_STORE_RQ,
    ELEMENT,
    MESSAGE_ID,
    RESPONDED_TO,
    read_elements,
)
from protocol.dimse.pdu import encode_command
from protocol.dimse.uids import padded, unpadded

_NUMBER = struct.Struct("<H")
_LENGTH = struct.Struct("<I")
_GROUP_LENGTH = ELEMENT.pack(0, 0, 4)
_GROUP_LENGTH_BYTES = 12
_RESPONDED_TO = ELEMENT.pack(0, RESPONDED_TO, 2)
_LONGEST_RESPONSE = 1024  # none of Success is so long


class StoreForm:
    """What C-STORE requests on one presentation context have in common; make it by `of`.

    Args:
        context_id: of the presentation context.
        sop_class: Affected SOP Class UID of all of them, without padding.
        head: the bytes from behind the group length up to the message ID's value.
        middle: the bytes from behind the message ID's value up to the length of the SOP Instance UID, the last element.
    """

    __slots__ = ("_frames", "_message_id", "_rest", "_sop_class", "context_id", "head", "middle")

    def __init__(self, context_id: int, sop_class: bytes, head: bytes, middle: bytes) -> None:
        self.context_id = context_id
        self._sop_class = sop_class
        self.head, self.middle = head, middle
        self._message_id = _GROUP_LENGTH_BYTES + len(head)
        self._rest = self._message_id + _NUMBER.size
        self._frames: dict[int, tuple[bytes, bytes]] = {}  # by the length of the SOP Instance UID's value

    @classmethod
    def of(cls, context_id: int, data: bytes, command: Command, peer_max_pdu_bytes: int) -> Self | None:
        """The form of a request that nothing speaks against; None when the request is unusual.

        Args:
            context_id: of its presentation context.
            data: the request.
            command: the same, as parsed.
            peer_max_pdu_bytes: what the peer can take; 0 is no limit.
        """
        values = read_elements(data)
        elements = list(values)
        if (
            0 < peer_max_pdu_bytes < _LONGEST_RESPONSE
            or not data.startswith(_GROUP_LENGTH)
            or elements[-1] != AFFECTED_SOP_INSTANCE
            or sum(ELEMENT.size + len(value) for value in values.values()) != len(data)
        ):
            return None
        before = elements[: elements.index(MESSAGE_ID)]
        message_id = sum(ELEMENT.size + len(values[element]) for element in before) + ELEMENT.size
        uid_length = len(data) - len(values[AFFECTED_SOP_INSTANCE]) - _LENGTH.size
        head, middle = data[_GROUP_LENGTH_BYTES:message_id], data[message_id + _NUMBER.size : uid_length]
        return cls(context_id, command.sop_class, head, middle)

    def match(self, data: bytes) -> Command | None:
        """A request of this form as it would be parsed; None when it is another."""
        rest = self._rest
        uid = rest + len(self.middle) + _LENGTH.size
        if (
            len(data) > uid
            and data.startswith(self.head, _GROUP_LENGTH_BYTES)
            and data.startswith(self.middle, rest)
            and _LENGTH.unpack_from(data, uid - _LENGTH.size)[0] == len(data) - uid
            and data.startswith(_GROUP_LENGTH)
        ):
            message_id = _NUMBER.unpack_from(data, self._message_id)[0]
            return self.command(message_id, unpadded(data[uid:]))
        return None

    def command(self, message_id: int, sop_instance: bytes) -> Command:
        """A request of this form as it would be parsed.

        Args:
            message_id: of the request.
            sop_instance: SOP Instance UID without padding.
        """
        return Command(C_STORE_RQ, message_id, True, self._sop_class, sop_instance)

    def success(self, command: Command) -> bytes:
        """The PDU that answers a request of this form, whose SOP Instance UID is one, with Success."""
        value = padded(command.sop_instance)
        before, after = self._frames.get(len(value)) or self.frame(len(value))
        return before + _NUMBER.pack(command.message_id) + after + value

    def frame(self, uid_length: int) -> tuple[bytes, bytes]:
        """What stands before the message ID of a response of Success, and between it and the SOP Instance UID.

        Args:
            uid_length: bytes of the UID's value, with padding.
        """
        sample = encode_response(Command(C_STORE_RQ, 0, True, self._sop_class, b"1" * uid_length), Status.SUCCESS)
        pdu = encode_command(self.context_id, sample, 0)
        message_id = pdu.index(_RESPONDED_TO) + len(_RESPONDED_TO)
        frame = pdu[:message_id], pdu[message_id + _NUMBER.size : -uid_length]
        self._frames[uid_length] = frame
        return frame
