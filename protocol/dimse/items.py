"""Items of A-ASSOCIATE PDUs (PS3.8 §9.3.2, annex D): walking them within their bounds, and writing them."""

import struct
from collections.abc import Iterator

from protocol.dimse.pdu import AbortReason, ProtocolError

FIXED_LENGTH = 68
"""Bytes before the items of an A-ASSOCIATE-RQ or -AC: protocol version, titles, reserved."""
APPLICATION_CONTEXT, CONTEXT_RQ, CONTEXT_AC, USER_INFORMATION = 0x10, 0x20, 0x21, 0x50
ABSTRACT_SYNTAX, TRANSFER_SYNTAX = 0x30, 0x40
MAXIMUM_LENGTH, IMPLEMENTATION_CLASS, ASYNCHRONOUS, ROLE, IMPLEMENTATION_VERSION = 0x51, 0x52, 0x53, 0x54, 0x55
MOST_CONTEXTS = 128
"""Of one association: the odd numbers below 256."""
_MOST_ITEMS = 512  # in one place

_ITEM = struct.Struct(">BxH")


def walk_items(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each item in a range; the reader ignores types that it does not know (PS3.8 §9.3.1).

    Raises:
        ProtocolError: they do not fit into the range.
    """
    count = 0
    while at < end:
        count += 1
        if count > _MOST_ITEMS:
            raise _invalid("too many items")
        if end - at < _ITEM.size:
            raise _invalid("an item is cut short")
        kind, length = _ITEM.unpack_from(body, at)
        at += _ITEM.size
        if length > end - at:
            raise _invalid("an item is longer than what holds it")
        yield kind, at, at + length
        at += length


def encode_item(kind: int, value: bytes) -> bytes:
    """An item with its header."""
    return _ITEM.pack(kind, len(value)) + value


def _invalid(what: str) -> ProtocolError:
    return ProtocolError(AbortReason.INVALID_PARAMETER, f"A-ASSOCIATE: {what}")
