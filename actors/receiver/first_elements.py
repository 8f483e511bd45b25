"""A look at the first elements of a dataset: are its SOP Class and Instance UIDs those of the command?

It is the only look that the receiver takes into a dataset; nothing is decoded, and what it does not understand
passes: the extractor reads with more patience.
"""

import enum
import struct

from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from actors.receiver.uids import unpadded

ENOUGH_BYTES = 4096
_GROUP = 0x0008
_SOP_CLASS, _SOP_INSTANCE = 0x0016, 0x0018
LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UNDEFINED = 0xFFFFFFFF


class Encoding:
    """How the elements of a dataset are read.

    Args:
        order: `<` or `>`, of the bytes.
        explicit: whether each element tells its VR.
    """

    def __init__(self, order: str, *, explicit: bool) -> None:
        self.order = order
        self.header = struct.Struct(order + ("HH2sH" if explicit else "HHI")).unpack_from
        self.tag = struct.Struct(order + "HH").unpack_from
        self.short = struct.Struct(order + "H").unpack_from
        self.long = struct.Struct(order + "I").unpack_from
        self.explicit = explicit


IMPLICIT_LITTLE = Encoding("<", explicit=False)
EXPLICIT_LITTLE = Encoding("<", explicit=True)
EXPLICIT_BIG = Encoding(">", explicit=True)


class Verdict(enum.Enum):
    """What the look told."""

    MATCH = enum.auto()  # or nothing that says otherwise
    MISMATCH = enum.auto()
    TOO_SHORT = enum.auto()  # more bytes may tell


def encoding_of(transfer_syntax: str) -> Encoding | None:
    """How datasets in a transfer syntax begin; None when that cannot be told without decoding."""
    uid = UID(transfer_syntax)
    if uid == ImplicitVRLittleEndian:
        return IMPLICIT_LITTLE
    if uid == ExplicitVRBigEndian:
        return EXPLICIT_BIG
    if uid.is_private or not uid.is_transfer_syntax or "Deflate" in uid.name:
        return None
    return EXPLICIT_LITTLE  # as are all encapsulated ones (PS3.5 §A.4)


def compare(head: bytes, encoding: Encoding, sop_class: bytes, sop_instance: bytes) -> Verdict:
    """Compare the UIDs in a dataset's first bytes with those of the command.

    Args:
        head: the dataset's first bytes.
        encoding: see `encoding_of`.
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
