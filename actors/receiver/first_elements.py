"""A look at the first elements of a dataset: are its SOP Class and Instance UIDs those of the command?

It is the only look that the receiver takes into a dataset; nothing is decoded, and what it does not understand
passes: the extractor reads with more patience.
"""

import enum

from protocol.dimse.elements import LONG_VRS, Encoding
from protocol.dimse.uids import unpadded

ENOUGH_BYTES = 4096
_GROUP = 0x0008
_SOP_CLASS, _SOP_INSTANCE = 0x0016, 0x0018
_UNDEFINED = 0xFFFFFFFF


class Verdict(enum.Enum):
    """What the look told."""

    MATCH = enum.auto()  # or nothing that says otherwise
    MISMATCH = enum.auto()
    TOO_SHORT = enum.auto()  # more bytes may tell


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
