"""An association that we requested, from its request to its release (PS3.8 §9.2, PS3.7 §9.1.1, PS3.4 annex B).

An object travels as its file has it: a fragment is a header and a slice of the one buffer into which the file is
read, and goes to the kernel without being joined. One object is sent at a time, and its response is awaited.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

from actors.exporter.part10 import DicomFile
from actors.exporter.scu.negotiation import (
    Agreement,
    Pair,
    decode_acceptance,
    encode_request,
    rejection,
)
from actors.exporter.scu.values import BrokenError, Deadlines, RejectedError, ScuDestination
from actors.exporter.scu.wire import Connection
from protocol.dimse import VERIFICATION
from protocol.dimse import command_set as commands
from protocol.dimse.elements import HEAD_BYTES, IMPLICIT_LITTLE, dump, encoding_of
from protocol.dimse.pdu import (
    HEADER_LENGTH,
    IS_COMMAND,
    IS_LAST,
    PDU_HEADER,
    PDV_HEADER,
    RELEASE_RQ,
    AbortReason,
    PduType,
    ProtocolError,
    encode_abort,
    encode_command,
)
from protocol.logs import EventLogger

_BLOCK_BYTES = 256 * 1024
"""Read from a file at once."""
_LONGEST_FRAGMENT_BYTES = 128 * 1024
"""Of a dataset, where the peer could take longer ones: there is nothing more to win."""
_LONGEST_RESPONSE_BYTES = 64 * 1024
_MEDIUM_PRIORITY = 0
_PAD = b"\0"
_MESSAGE_IDS = 0x10000


class FileChangedError(Exception):
    """A file is not as it was looked at, in the middle of being sent; the association is aborted."""


class Association:
    """An association, open from the start until `release` or `abort`, or until it breaks.

    Args:
        destination: whom to call.
        calling: our AE title.
        pairs: what to propose.
        deadlines: of the waits.
        log: told of PDUs and datasets when the two following say so.
        log_pdus: a line for each P-DATA-TF PDU.
        log_datasets: commands and the beginnings of datasets.

    Raises:
        BrokenError: there is none; its class tells why.
    """

    def __init__(
        self,
        destination: ScuDestination,
        calling: str,
        pairs: Sequence[Pair],
        deadlines: Deadlines,
        log: EventLogger,
        *,
        log_pdus: bool = False,
        log_datasets: bool = False,
    ) -> None:
        self._deadlines = deadlines
        self._log = log
        self._log_pdus = log_pdus
        self._log_datasets = log_datasets
        self._name = destination.name
        self._messages = 0
        self._buffer = memoryview(bytearray(_BLOCK_BYTES))
        self._connection = Connection(destination.host, destination.port, deadlines)
        with self._until_broken():
            self.agreement = self._associate(calling, destination.ae_title, pairs)
        longest = self.agreement.max_pdu_bytes or _LONGEST_FRAGMENT_BYTES
        self._step = min(longest - HEADER_LENGTH, _LONGEST_FRAGMENT_BYTES) & ~1

    def store(self, file: DicomFile, fd: int) -> int:
        """Send an object, and wait for its response.

        Args:
            file: of a pair that the peer takes.
            fd: of the file, open.

        Returns:
            The response's status.

        Raises:
            BrokenError: nobody knows whether it was stored; the association is of no more use.
            FileChangedError: the file cannot be read to its end.
        """
        context_id = self.agreement.contexts[file.sop_class, file.transfer_syntax]
        request: dict[int, int | str] = {
            commands.AFFECTED_SOP_CLASS: file.sop_class,
            commands.COMMAND_FIELD: commands.C_STORE_RQ,
            commands.MESSAGE_ID: self._next_message(),
            commands.PRIORITY: _MEDIUM_PRIORITY,
            commands.DATASET_TYPE: commands.HAS_DATASET,
            commands.AFFECTED_SOP_INSTANCE: file.sop_instance,
        }
        with self._until_broken():
            return self._store(file, fd, context_id, request)

    def echo(self) -> int:
        """Verify (PS3.7 §9.1.5); returns the response's status.

        Raises:
            BrokenError: there was no answer.
        """
        (context_id,) = self.agreement.contexts.values()
        request: dict[int, int | str] = {
            commands.AFFECTED_SOP_CLASS: VERIFICATION,
            commands.COMMAND_FIELD: commands.C_ECHO_RQ,
            commands.MESSAGE_ID: self._next_message(),
            commands.DATASET_TYPE: commands.NO_DATASET,
        }
        with self._until_broken():
            deadline = time.monotonic() + self._deadlines.write_seconds
            self._connection.send([self._command(context_id, request)], deadline)
            return self._response(context_id, request)

    def release(self) -> None:
        """End it as it should be; what comes of that changes nothing any more."""
        try:
            self._connection.send([RELEASE_RQ], time.monotonic() + self._deadlines.acse_seconds)
            deadline = time.monotonic() + self._deadlines.acse_seconds
            while time.monotonic() < deadline:
                kind, _ = self._connection.receive(deadline - time.monotonic())
                if kind is PduType.A_RELEASE_RP:
                    break
        except (BrokenError, ProtocolError) as error:
            self._log.debug("release_failed", destination=self._name, reason=str(error))
        finally:
            self._connection.close()

    def abort(self, reason: AbortReason | None = None) -> None:
        """End it at once."""
        self._connection.try_send(encode_abort(reason))
        self._connection.close()

    def close(self) -> None:
        """Close the connection, if that is still to be done."""
        self._connection.close()

    def _associate(self, calling: str, called: str, pairs: Sequence[Pair]) -> Agreement:
        deadline = time.monotonic() + self._deadlines.write_seconds
        self._connection.send([encode_request(calling, called, pairs)], deadline)
        kind, body = self._connection.receive(self._deadlines.acse_seconds)
        if kind is PduType.A_ASSOCIATE_RJ:
            raise RejectedError(f"it rejects the association {rejection(body)}")
        if kind is not PduType.A_ASSOCIATE_AC:
            raise ProtocolError(AbortReason.UNEXPECTED_PDU, "it answers an association's request with something else")
        return decode_acceptance(body, pairs)

    @contextlib.contextmanager
    def _until_broken(self) -> Iterator[None]:
        """A step; what breaks the protocol in it is answered with an abort, and ends all as anything else does."""
        try:
            yield
        except ProtocolError as error:
            self.abort(error.reason)
            raise BrokenError(str(error)) from None
        except (BrokenError, FileChangedError):
            self.abort()
            raise

    def _next_message(self) -> int:
        self._messages = (self._messages + 1) % _MESSAGE_IDS
        return self._messages

    def _store(self, file: DicomFile, fd: int, context_id: int, request: dict[int, int | str]) -> int:
        command = self._command(context_id, request)
        length = file.size - file.dataset_offset
        deadlines = self._deadlines
        deadline = time.monotonic() + deadlines.write_seconds + length / deadlines.slowest_bytes_per_second
        step, sent, ahead = self._step, 0, [command]
        block = len(self._buffer) // step * step
        full = PDU_HEADER.pack(PduType.P_DATA_TF, step + HEADER_LENGTH) + PDV_HEADER.pack(step + 2, context_id, 0)
        while sent < length:
            data = self._read(fd, file.dataset_offset + sent, min(block, length - sent))
            if not sent and self._log_datasets:
                self._tell_dataset(file, data)
            sent += len(data)
            pieces: list[bytes | memoryview] = [*ahead]
            for start in range(0, len(data), step):
                fragment = data[start : start + step]
                is_last = sent == length and start + step >= len(data)
                # A deflated dataset may be odd, a fragment may not (PS3.8 Annex E); inflating ends before the pad.
                pad = _PAD[: len(fragment) % 2]
                if is_last or len(fragment) < step:
                    pieces.append(_header(context_id, len(fragment) + len(pad), is_last=is_last))
                else:
                    pieces.append(full)
                pieces += (fragment, pad) if pad else (fragment,)
                if self._log_pdus:
                    self._tell_pdu("pdata_sent", context_id, len(fragment), is_command=False, is_last=is_last)
            self._connection.send(pieces, deadline)
            ahead = []
        return self._response(context_id, request)

    def _read(self, fd: int, at: int, length: int) -> memoryview:
        data = self._buffer[:length]
        read = 0
        while read < length:
            try:
                count = os.preadv(fd, [data[read:]], at + read)
            except OSError as error:
                raise FileChangedError(f"the file cannot be read: {(error.strerror or '').lower()}") from None
            if not count:
                raise FileChangedError("the file became shorter while it was sent")
            read += count
        return data

    def _command(self, context_id: int, request: dict[int, int | str]) -> bytes:
        data = commands.write_elements(request)
        if self._log_datasets:
            self._log.info(
                "dimse_request", destination=self._name, context=context_id, elements=dump(data, IMPLICIT_LITTLE)
            )
        if self._log_pdus:
            self._tell_pdu("pdata_sent", context_id, len(data), is_command=True, is_last=True)
        return encode_command(context_id, data, self.agreement.max_pdu_bytes)

    def _response(self, context_id: int, request: dict[int, int | str]) -> int:
        """Wait for the response to a request; returns its status."""
        data = self._message(context_id)
        if self._log_datasets:
            self._log.info(
                "dimse_response", destination=self._name, context=context_id, elements=dump(data, IMPLICIT_LITTLE)
            )
        try:
            values = commands.read_elements(data)
            field = commands.number(values, commands.COMMAND_FIELD)
            message = commands.number(values, commands.RESPONDED_TO)
            status = commands.number(values, commands.STATUS)
        except commands.UnreadableCommandError as error:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, f"its response cannot be read: {error}") from None
        if (
            field != int(request[commands.COMMAND_FIELD]) | commands.RESPONSE
            or message != request[commands.MESSAGE_ID]
            or values.get(commands.DATASET_TYPE, b"\1\1") != b"\1\1"
        ):
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "it answers what was not asked")
        return status

    def _message(self, context_id: int) -> bytes:
        """A command set that comes in fragments."""
        deadline = time.monotonic() + self._deadlines.response_seconds
        data = bytearray()
        while True:
            kind, body = self._connection.receive(max(0.0, deadline - time.monotonic()))
            if kind is not PduType.P_DATA_TF:
                raise ProtocolError(AbortReason.UNEXPECTED_PDU, "it sends something else than a response")
            at = 0
            while at < len(body):
                if len(body) - at < HEADER_LENGTH:
                    raise ProtocolError(AbortReason.INVALID_PARAMETER, "a PDV is cut short")
                length, of_context, control = PDV_HEADER.unpack_from(body, at)
                end = at + 4 + length
                if length < 2 or end > len(body) or of_context != context_id or not control & IS_COMMAND:
                    raise ProtocolError(AbortReason.INVALID_PARAMETER, "a PDV is none of a response")
                data += body[at + HEADER_LENGTH : end]
                at = end
                if self._log_pdus:
                    is_last = bool(control & IS_LAST)
                    self._tell_pdu("pdata_received", of_context, length - 2, is_command=True, is_last=is_last)
                if len(data) > _LONGEST_RESPONSE_BYTES:
                    raise ProtocolError(AbortReason.INVALID_PARAMETER, "its response is too long")
                if control & IS_LAST:
                    return bytes(data)

    def _tell_pdu(self, event: str, context_id: int, length: int, *, is_command: bool, is_last: bool) -> None:
        of = "command" if is_command else "dataset"
        self._log.info(event, destination=self._name, context=context_id, of=of, bytes=length, last=is_last)

    def _tell_dataset(self, file: DicomFile, data: memoryview) -> None:
        encoding = encoding_of(file.transfer_syntax)
        head = bytes(data[:HEAD_BYTES])
        elements = dump(head, encoding) if encoding else "not shown: it cannot be read without inflating it"
        self._log.info("dimse_dataset", destination=self._name, elements=elements)


def _header(context_id: int, length: int, *, is_last: bool) -> bytes:
    control = IS_LAST if is_last else 0
    return PDU_HEADER.pack(PduType.P_DATA_TF, length + HEADER_LENGTH) + PDV_HEADER.pack(length + 2, context_id, control)
