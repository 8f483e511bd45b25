"""A look at the first elements of a dataset: are its SOP Class and Instance UIDs those of the command?

It is the only look that the receiver takes into a dataset; nothing is decoded, and what it does not understand
passes: the extractor reads with more patience.
"""

import enum
import struct

from protocol.dimse.elements import LONG_VRS, Encoding
from protocol.dimse.uids import padded, unpadded

ENOUGH_BYTES = 4096
_GROUP = 0x0008
_SOP_CLASS, _SOP_INSTANCE = 0x0016, 0x0018
_UNDEFINED = 0xFFFFFFFF


class Verdict(enum.Enum):
    """What the look told."""

    MATCH = enum.auto()  # or nothing that says otherwise
    MISMATCH = enum.auto()
    TOO_SHORT = enum.auto()  # more bytes may tell


class ExpectedUids:
    """How the elements of both UIDs look in nearly every dataset of a presentation context: one behind the other.

    Args:
        encoding: see `protocol.dimse.elements.encoding_of`.
        sop_class: SOP Class UID of the context, without padding.
    """

    __slots__ = ("_before", "_explicit", "_header", "_instance")

    def __init__(self, encoding: Encoding, sop_class: bytes) -> None:
        self._explicit = encoding.explicit
        self._header = struct.Struct(f"{encoding.order}HH" + ("2sH" if encoding.explicit else "I"))
        value = padded(sop_class)
        self._before = self._element(_SOP_CLASS, len(value)) + value
        self._instance: dict[int, bytes] = {}

    def stand_in(self, head: bytes, sop_instance: bytes) -> bool:
        """Whether a dataset's first bytes have both; where they have not, `compare` tells what that means.

        Who forges them into another element's value gets past this, and into quarantine by the extractor.

        Args:
            head: the dataset's first bytes.
            sop_instance: SOP Instance UID of the command, without padding.
        """
        value = padded(sop_instance)
        return (self._instance.get(len(value)) or self.before(len(value))) + value in head

    def before(self, uid_length: int) -> bytes:
        """What stands before the SOP Instance UID's value.

        Args:
            uid_length: bytes of that value, with padding.
        """
        before = self._instance[uid_length] = self._before + self._element(_SOP_INSTANCE, uid_length)
        return before

    def _element(self, element: int, length: int) -> bytes:
        fields = (_GROUP, element, b"UI", length) if self._explicit else (_GROUP, element, length)
        return self._header.pack(*fields)


def compare(head: bytes, encoding: Encoding, sop_class: bytes, sop_instance: bytes) -> Verdict:
    """Compare the UIDs in a dataset's first bytes with those of the command.

    Args:
        head: the dataset's first bytes.
        encoding: see `protocol.dimse.elements.encoding_of`.
        sop_class: SOP Class UID of the command, without padding.
        sop_instance: SOP Instance UID of the command, without padding.
    """
    at, end = 0, len(head)
    header, explicit = encoding.header, encoding.explicit
    while end - at >= 8:
        group, element, *_, length = fields = header(head, at)
        if group > _GROUP or (group == _GROUP and element > _SOP_INSTANCE):
            return Verdict.MATCH
        at += 8
        if explicit and fields[2] in LONG_VRS:
            if end - at < 4:
                break
            (length,) = encoding.long(head, at)
            at += 4
        if length == _UNDEFINED:
            return Verdict.MATCH
        if element in (_SOP_CLASS, _SOP_INSTANCE) and group == _GROUP:
            if length > end - at:
                break
            uid = unpadded(head[at : at + length])
            if uid and uid != (sop_class if element == _SOP_CLASS else sop_instance):
                return Verdict.MISMATCH
            if element == _SOP_INSTANCE:
                return Verdict.MATCH
        at += length
    return Verdict.TOO_SHORT


def first_bytes(pieces: list[memoryview | bytes]) -> bytes:
    """At least as many of a dataset's first bytes as are worth a look, if there are so many.

    Args:
        pieces: what has come of it.
    """
    head = bytes(pieces[0][:ENOUGH_BYTES]) if pieces else b""
    for piece in pieces[1:]:
        if len(head) >= ENOUGH_BYTES:
            break
        head += piece[:ENOUGH_BYTES]
    return head
