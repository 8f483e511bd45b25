"""Preamble and file meta group of a stored instance: what its association was (PS3.10 §7.1).

It is the beginning of each file; the dataset follows as it came. The extractor and every recovery learn from it which
AE title was called, so that the spool needs no index to be understood.
"""

import struct

from protocol.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from protocol.dimse.uids import is_uid, padded

_SHORT = struct.Struct("<HH2sH")
_LONG = struct.Struct("<HH2s2xI")
_GROUP_LENGTH = struct.Struct("<HH2sHI")
_START = bytes(128) + b"DICM"


def presentation_address(host: str, port: int) -> str:
    """An endpoint as a URI, for 0002,0026 to 0002,0028."""
    return f"dicom://[{host}]:{port}" if ":" in host else f"dicom://{host}:{port}"


class FileMeta:
    """Makes the beginning of the files of one presentation context.

    Args:
        sop_class, transfer_syntax: as negotiated.
        calling, called: AE titles.
        peer, local: presentation addresses of the two ends.

    Attributes:
        after: what stands behind the SOP Instance UID.
    """

    __slots__ = ("_before", "_starts", "after")

    def __init__(
        self, *, sop_class: str, transfer_syntax: str, calling: str, called: str, peer: str, local: str
    ) -> None:
        assert is_uid(sop_class)
        assert is_uid(transfer_syntax)
        self._starts: dict[int, bytes] = {}  # what stands before an instance's UID, by the length of its value
        self._before = _long(0x0001, b"OB", b"\0\1") + _uid(0x0002, sop_class)
        self.after = (
            _uid(0x0010, transfer_syntax)
            + _uid(0x0012, IMPLEMENTATION_CLASS_UID)
            + _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)
            + _text(0x0016, b"AE", calling)
            + _text(0x0017, b"AE", calling)
            + _text(0x0018, b"AE", called)
            + _long(0x0026, b"UR", _even(peer))
            + _long(0x0027, b"UR", _even(peer))
            + _long(0x0028, b"UR", _even(local))
        )

    def encode(self, sop_instance: bytes) -> bytes:
        """Everything before the dataset of one instance, by its UID without padding."""
        value = padded(sop_instance)
        return (self._starts.get(len(value)) or self.start(len(value))) + value + self.after

    def start(self, uid_length: int) -> bytes:
        """What stands before the SOP Instance UID's value; `after` stands behind it.

        Args:
            uid_length: bytes of that value, with padding.
        """
        header = _SHORT.pack(2, 0x0003, b"UI", uid_length)
        length = len(self._before) + len(header) + uid_length + len(self.after)
        start = _START + _GROUP_LENGTH.pack(2, 0, b"UL", 4, length) + self._before + header
        self._starts[uid_length] = start
        return start


def _uid(element: int, uid: str) -> bytes:
    value = padded(uid.encode("ascii"))
    return _SHORT.pack(2, element, b"UI", len(value)) + value


def _text(element: int, vr: bytes, text: str) -> bytes:
    value = _even(text)
    return _SHORT.pack(2, element, vr, len(value)) + value


def _long(element: int, vr: bytes, value: bytes) -> bytes:
    return _LONG.pack(2, element, vr, len(value)) + value


def _even(text: str) -> bytes:
    value = text.encode("ascii")
    return value + b" " * (len(value) % 2)
