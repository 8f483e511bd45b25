"""The upper layer's PDUs as bytes: a walker over what a socket delivers (PS3.8 §9.3), and rejections.

The walker is the first thing on the way of a received object. It works in place on the process's one receive buffer:
fragments of presentation data values (PDV) are handed on as slices of it, and between two receives it keeps nothing
but counters and at most five bytes of a header.
"""

import enum
import struct
from typing import Protocol

from protocol.dimse.pdu import (
    HEADER_LENGTH,
    IS_COMMAND,
    IS_LAST,
    PDU_HEADER,
    PDV_HEADER,
    AbortReason,
    PduType,
    ProtocolError,
)

_REJECTION = struct.Struct(">BxIxBBB")
_DATA_HEADERS = struct.Struct(">BxIIBB")  # of a P-DATA-TF, and of its first PDV
_DATA_HEADERS_LENGTH = 2 * HEADER_LENGTH
_NO_MESSAGE = -1
_P_DATA_TF = int(PduType.P_DATA_TF)


class Rejection(enum.Enum):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 §9.3.4)."""

    APPLICATION_CONTEXT = (1, 1, 2)
    CALLING_AE_TITLE = (1, 1, 3)
    CALLED_AE_TITLE = (1, 1, 7)
    PROTOCOL_VERSION = (1, 2, 2)
    TEMPORARY_CONGESTION = (2, 3, 1)
    LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


def encode_rejection(rejection: Rejection) -> bytes:
    """An A-ASSOCIATE-RJ PDU."""
    result, source, reason = rejection.value
    return _REJECTION.pack(PduType.A_ASSOCIATE_RJ, 4, result, source, reason)


class Upper(Protocol):
    """What the walker reports PDUs to; each method may raise `ProtocolError`."""

    def pdu_begins(self, kind: int, length: int) -> None:
        """The header of a PDU that is no welcome P-DATA-TF; refuse here what must not even be collected."""

    def pdu(self, kind: int, body: bytes) -> bool:
        """A whole PDU other than P-DATA-TF, without its header; False when what follows is of no interest."""


class DataSink(Protocol):
    """What the walker reports fragments of messages to; each method may raise `ProtocolError`."""

    def message_begins(self, context_id: int, control: int) -> None:
        """A command set or dataset begins, or something else before the one that has begun is complete."""

    def fragment(self, data: memoryview) -> None:
        """Some of its bytes; the slice holds until the current receive has been walked."""

    def message_ends(self) -> None:
        """The last fragment of a command set or dataset is complete."""


class PduWalker:
    """Walks the PDUs of one connection, in whatever pieces they come.

    Args:
        upper: what is told of PDUs.
    """

    __slots__ = (
        "_body",
        "_carry",
        "_fragment_left",
        "_interested",
        "_is_last",
        "_kind",
        "_longest_data",
        "_message",
        "_pdu_left",
        "_sink",
        "_upper",
        "fragment_bytes",
        "pdus",
    )

    def __init__(self, upper: Upper) -> None:
        self._upper = upper
        self._sink: DataSink | None = None
        self._longest_data = -1
        self._carry = b""  # the beginning of a header
        self._kind = 0
        self._pdu_left = 0  # of the PDU, behind what was read
        self._fragment_left = 0  # of the PDV's fragment; counted in `_pdu_left` no more
        self._is_last = False
        self._message = _NO_MESSAGE  # that has begun and not ended: its context, and whether it is a command set
        self._body: bytearray | None = None  # of a PDU other than P-DATA-TF
        self._interested = True
        self.pdus = 0  # how many have begun
        self.fragment_bytes = 0  # of the latest fragment, which may be under way

    def welcome_data(self, sink: DataSink, longest: int) -> None:
        """From now on, P-DATA-TF PDUs of at most so many bytes go to a sink."""
        self._sink = sink
        self._longest_data = longest

    def refuse_data(self) -> None:
        """From now on, a P-DATA-TF is a PDU like any other."""
        self._longest_data = -1

    @property
    def between_pdus(self) -> bool:
        """Whether no PDU has begun that is not complete."""
        return not (self._pdu_left or self._fragment_left or self._carry or self._body is not None)

    @property
    def between_messages(self) -> bool:
        """Whether neither a PDU has begun that is not complete, nor a message, be it by an empty fragment alone."""
        return self._message == _NO_MESSAGE and self.between_pdus

    @property
    def fragment_left(self) -> int:
        """How many bytes of the latest fragment must come."""
        return self._fragment_left

    def skip(self, count: int) -> bool:
        """So many bytes of the latest fragment have come by another way, and the sink knows.

        Args:
            count: at most `fragment_left`.

        Returns:
            As `feed`.
        """
        self._fragment_left -= count
        if self._fragment_left:
            return True
        if self._is_last:
            assert self._sink
            self._message = _NO_MESSAGE
            self._sink.message_ends()
        return bool(self._message != _NO_MESSAGE or self._pdu_left)

    def resume(self, context_id: int, left: int, fragment_bytes: int, *, is_last: bool) -> None:
        """A dataset's beginning was walked by another way, between two PDUs, and the sink knows.

        Args:
            context_id: of its presentation context.
            left: what must come of its latest fragment.
            fragment_bytes: of that fragment.
            is_last: whether it is the last of the dataset.
        """
        self._message = context_id << 1
        self._fragment_left, self.fragment_bytes, self._is_last = left, fragment_bytes, is_last

    def feed(self, data: memoryview) -> bool:
        """Walk what was received.

        Returns:
            Whether a PDU, or a message of several, has begun that is not complete.

        Raises:
            ProtocolError: it breaks the protocol; nothing may be fed after it.
        """
        at, end = 0, len(data)
        sink = self._sink
        while True:
            if self._fragment_left:
                assert sink
                stop = at + self._fragment_left
                if stop > end:
                    if end > at:
                        sink.fragment(data[at:end])
                        self._fragment_left = stop - end
                    return True
                self._fragment_left = 0
                sink.fragment(data[at:stop])
                at = stop
                if self._is_last:
                    self._message = _NO_MESSAGE
                    sink.message_ends()
            elif self._body is not None:
                at += self._collect(data[at:])
                if self._body is not None or not self._interested:
                    return self._body is not None
                sink = self._sink
            if at == end:
                return bool(self._message != _NO_MESSAGE or self._pdu_left or self._carry)
            if end - at >= _DATA_HEADERS_LENGTH and not self._pdu_left and not self._carry:
                # Nearly all PDUs are one PDV that is not empty; `_header` takes these too, only slower.
                kind, length, pdv_length, context_id, control = _DATA_HEADERS.unpack_from(data, at)
                if kind == _P_DATA_TF and 2 < pdv_length == length - 4 and length <= self._longest_data:
                    at += _DATA_HEADERS_LENGTH
                    self.pdus += 1
                    self._pdv(pdv_length, context_id, control)
                    continue
            at = self._header(data, at)
            if at < 0:
                return True

    def _header(self, data: memoryview, at: int) -> int:
        """Take a header that may have come in pieces; returns what stands behind it, -1 when more must come."""
        missing = HEADER_LENGTH - len(self._carry)
        if len(data) - at < missing:
            self._carry += bytes(data[at:])
            return -1
        header, start = data, at
        if self._carry:
            header, start = memoryview(self._carry + bytes(data[at : at + missing])), 0
            self._carry = b""
        if self._pdu_left:
            self._pdv_header(header, start)
        else:
            self._pdu_header(header, start)
        return at + missing

    def _collect(self, data: memoryview) -> int:
        """Take what belongs to a PDU other than P-DATA-TF, and report it when it is whole; returns how many bytes."""
        assert self._body is not None
        taken = min(self._pdu_left, len(data))
        self._body += data[:taken]
        self._pdu_left -= taken
        if not self._pdu_left:
            body, self._body = bytes(self._body), None
            self._interested = self._upper.pdu(self._kind, body)
        return taken

    def _pdu_header(self, header: memoryview, start: int) -> None:
        kind, length = PDU_HEADER.unpack_from(header, start)
        self.pdus += 1
        if kind != PduType.P_DATA_TF or not HEADER_LENGTH <= length <= self._longest_data:
            self._upper.pdu_begins(kind, length)
            self._body = bytearray()
            self._kind = kind
        self._pdu_left = length

    def _pdv_header(self, header: memoryview, start: int) -> None:
        length, context_id, control = PDV_HEADER.unpack_from(header, start)
        left = self._pdu_left - 4 - length
        if length < 2 or left < 0 or 0 < left < HEADER_LENGTH:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "PDV length does not fit its PDU")
        self._pdu_left = left
        self._pdv(length, context_id, control)

    def _pdv(self, length: int, context_id: int, control: int) -> None:
        assert self._sink
        self._fragment_left = self.fragment_bytes = length - 2
        self._is_last = bool(control & IS_LAST)
        message = context_id << 1 | control & IS_COMMAND
        if message != self._message:
            self._sink.message_begins(context_id, control)
            self._message = message
        if self._is_last and not self._fragment_left:
            self._message = _NO_MESSAGE
            self._sink.message_ends()
