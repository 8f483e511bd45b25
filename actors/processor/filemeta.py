"""Reads the called AE title from an instance's file meta group: all that the closing rule must know of a file."""

import struct

_READ_BYTES = 8192
_RECEIVING_AE_TITLE = (0x0002, 0x0018)
_LONG_LENGTHS = {b"OB", b"UN", b"UT", b"OW", b"SQ"}


def called_ae_title(path: str) -> str:
    """The Receiving Application Entity Title (0002,0018), "" when the file has none.

    Args:
        path: a file in the format of PS3.10 §7.1; its file meta group is explicit VR, little endian.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        head = file.read(_READ_BYTES)
    if head[128:132] != b"DICM":
        return ""
    offset = 132
    while offset + 8 <= len(head):
        group, element, vr, length = struct.unpack_from("<HH2sH", head, offset)
        if group != 0x0002:
            break
        offset += 8
        if vr in _LONG_LENGTHS:
            if offset + 4 > len(head):
                break
            (length,) = struct.unpack_from("<I", head, offset)
            offset += 4
        if (group, element) == _RECEIVING_AE_TITLE:
            return head[offset : offset + length].decode("ascii", "replace").strip(" \0")
        offset += length
    return ""
