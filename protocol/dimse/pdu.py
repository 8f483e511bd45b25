"""The upper layer's PDUs as both sides of an association need them: types, reasons, and what is short (PS3.8 §9.3)."""

import enum
import struct

PDU_HEADER = struct.Struct(">BxI")
PDV_HEADER = struct.Struct(">IBB")
HEADER_LENGTH = 6  # of both
_SHORT = struct.Struct(">BxIxBBB")

IS_COMMAND = 0x01
IS_LAST = 0x02

RELEASE_RQ = struct.pack(">BxI4x", 0x05, 4)
RELEASE_RP = struct.pack(">BxI4x", 0x06, 4)


class PduType(enum.IntEnum):
    """PS3.8 §9.3.1."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


class AbortReason(enum.IntEnum):
    """Reasons of the service provider (PS3.8 §9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolError(Exception):
    """What a peer sent breaks the protocol: its association is aborted.

    Args:
        reason: goes into the A-ABORT.
        what: a few words for the log, without anything that the peer wrote.
    """

    def __init__(self, reason: AbortReason, what: str) -> None:
        super().__init__(what)
        self.reason = reason


def encode_abort(reason: AbortReason | None) -> bytes:
    """An A-ABORT PDU; None makes it one of the service user."""
    source = 0 if reason is None else 2
    return _SHORT.pack(PduType.A_ABORT, 4, 0, source, reason or 0)


def encode_command(context_id: int, command: bytes, max_pdu_bytes: int) -> bytes:
    """A command set in as many P-DATA-TF PDUs as the peer's maximum wants (PS3.8 §9.3.5, annex E).

    Args:
        context_id: presentation context.
        command: the encoded command set.
        max_pdu_bytes: the peer's maximum length of a PDU's variable field; 0 is no limit.
    """
    size = len(command)
    if not max_pdu_bytes or size + HEADER_LENGTH <= max_pdu_bytes:
        pdu = PDU_HEADER.pack(PduType.P_DATA_TF, size + HEADER_LENGTH)
        return pdu + PDV_HEADER.pack(size + 2, context_id, IS_COMMAND | IS_LAST) + command
    step = max_pdu_bytes - HEADER_LENGTH
    pdus = []
    for start in range(0, size, step):
        piece = command[start : start + step]
        control = IS_COMMAND | (IS_LAST if start + step >= size else 0)
        pdus.append(PDU_HEADER.pack(PduType.P_DATA_TF, len(piece) + HEADER_LENGTH))
        pdus.append(PDV_HEADER.pack(len(piece) + 2, context_id, control) + piece)
    return b"".join(pdus)
