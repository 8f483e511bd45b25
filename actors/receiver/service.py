"""Storage and Verification SCP of one association: from fragments to files and responses (PS3.4 annexes A and B).

A dataset's fragments are written straight from the receive buffer, or through the pipe. The file is opened when nothing
in the request speaks against the object; until it was answered, it has the name of something in transit.
"""

import logging
from collections.abc import Callable, Mapping

from actors.receiver.command import (
    Command,
    CommandField,
    Status,
    encode_response,
    parse_command,
)
from actors.receiver.forms import StoreForm
from actors.receiver.negotiation import AcceptedContext
from actors.receiver.reception import VERIFICATION_SOP_CLASS, Ends, Reception, StorageContext
from actors.receiver.shared import Shared
from actors.receiver.store import write_all
from protocol import killpoints
from protocol.clock import Moment
from protocol.dimse.command_set import UnreadableCommandError
from protocol.dimse.pdu import IS_COMMAND, AbortReason, ProtocolError, encode_command
from protocol.dimse.uids import is_uid_value
from protocol.messages import StoredInstance
from protocol.spool import Part

_BULK_BYTES = 4 * 1024 * 1024
_MOST_OUTSTANDING = 8  # 1 was negotiated; some send on before they have read the answer


class Service:
    """Handles the messages of one association.

    Args:
        shared: of this process.
        unasked: where the objects belong when the first of them comes without a C-MOVE; None for where all belong.
        association: its identifier.
        accepted: the accepted presentation contexts by their IDs.
        ends: who sends to whom.
        ignored: SOP classes that are answered Success and not stored.
        peer: the peer's host, for the log.
        peer_max_pdu_bytes: what the peer can take; 0 is no limit.
        send: sends to the peer.
    """

    def __init__(
        self,
        shared: Shared,
        *,
        unasked: Shared | None = None,
        association: str,
        accepted: Mapping[int, AcceptedContext],
        ends: Ends,
        ignored: frozenset[str],
        peer: str,
        peer_max_pdu_bytes: int,
        send: Callable[[bytes], None],
    ) -> None:
        self._shared = shared
        self._unasked = unasked
        self._association = association
        self._accepted, self._ends = accepted, ends
        self._contexts: dict[int, StorageContext] = {}  # those that are used: few of the many that some propose
        self._ignored = frozenset(sop_class.encode("ascii", "replace") for sop_class in ignored)
        self._peer = peer
        self._peer_max_pdu_bytes = peer_max_pdu_bytes
        self._send = send
        self.sync = shared.settings.storage.sync_on_store
        self._max_command_bytes = shared.settings.dicom.scp.limits.max_command_bytes
        self._debug = shared.log.enabled(logging.DEBUG)
        # Of the message under way, command set or dataset: slices of the receive buffer, so nothing stays here
        # beyond a receive, nor beyond the message.
        self._pieces: list[memoryview | bytes] = []
        self._command = bytearray()  # of the command set, what earlier receives brought
        self._form: StoreForm | None = None  # of the last request
        self._context_id = 0
        self._in_command = False
        self._reception: Reception | None = None
        self._opened = 0
        self._closed = False
        self.outstanding = 0
        self.stored = 0
        self.stored_bytes = 0
        self.failed = 0
        self.ignored = 0
        self.echoed = 0

    @property
    def between_messages(self) -> bool:
        """Whether nothing is on its way in, and nothing waits for its answer."""
        return self._reception is None and not self._command and not self.outstanding

    @property
    def in_bulk(self) -> bool:
        """Whether an object is on its way into its file that is large already."""
        reception = self._reception
        return reception is not None and reception.size >= _BULK_BYTES and reception.status is None

    @property
    def usual_form(self) -> StoreForm | None:
        """The form of its requests, if there is one and the next may come by another way: nothing is under way."""
        return None if self.outstanding or self._reception is not None or self._command else self._form

    def context_of(self, form: StoreForm) -> StorageContext:
        """The presentation context of a form's requests."""
        return self._contexts[form.context_id]

    def open_part(self) -> Part:
        """A new file for an object; raises what `ShardWriter.open_part` does."""
        self._opened += 1
        part = self._shared.writer.open_part(self._association, self._opened)
        killpoints.reach("receiver.part-opened")
        return part

    def resume(self, form: StoreForm, command: Command, part: Part | None, size: int) -> None:
        """An object has come, or has begun to come, by another way.

        Args:
            form: of its request.
            command: its request.
            part: its file, when that is open.
            size: what was written to it.
        """
        assert self._reception is None
        self._context_id, self._in_command = form.context_id, False
        self._reception = reception = Reception(self, command, self._contexts[form.context_id], form)
        reception.part, reception.size = part, size

    def close(self) -> None:
        """The association is over: what is in transit vanishes; what is complete is stored, but answered no more."""
        self._closed = True
        self._pieces.clear()
        reception, self._reception = self._reception, None
        if reception is not None and reception.part is not None:
            reception.part.discard()

    # What the walker finds.

    def message_begins(self, context_id: int, control: int) -> None:
        """A command set or dataset begins."""
        reception = self._reception
        self._in_command = bool(control & IS_COMMAND)
        if self._in_command:
            if reception is not None:
                raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "a command where a dataset is expected")
            begun = self._command or self._pieces  # a command set, in earlier receives or in this one
            if context_id not in self._accepted or (begun and context_id != self._context_id):
                raise ProtocolError(AbortReason.INVALID_PARAMETER, "a command on a context that was not accepted")
            self._context_id = context_id
            if context_id not in self._contexts:
                self._contexts[context_id] = StorageContext(self._accepted[context_id], self._ends)
        elif reception is None:
            raise ProtocolError(AbortReason.UNEXPECTED_PARAMETER, "a dataset where a command is expected")
        elif context_id != self._context_id:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "a dataset on another context than its command")

    def fragment(self, data: memoryview) -> None:
        """Some bytes of it."""
        self._pieces.append(data)

    def spliced(self, count: int) -> None:
        """Some bytes of an object in bulk, in the pipe."""
        reception = self._reception
        assert reception
        assert reception.part
        try:
            self._shared.pipe.put(reception.part.fd, count)
            reception.size += count
        except OSError as error:
            self.storage_failed(error, reception)
        if self.sync:
            reception.write_back()

    def message_ends(self) -> None:
        """The command set, or the dataset, is complete."""
        if not self._in_command:
            self._dataset_ends()
            return
        data = self._whole_command()
        form = self._form
        if form is not None and form.context_id == self._context_id:
            command = form.match(data)  # what speaks against a class or a context was asked for the form's model
            if command is not None:
                self._reception = reception = Reception(self, command, self._contexts[form.context_id], form)
                self._judge_object(reception)
                return
        try:
            command = parse_command(data)
        except UnreadableCommandError as error:
            raise ProtocolError(AbortReason.NOT_SPECIFIED, f"unreadable command set: {error}") from error
        self._request(data, command, self._contexts[self._context_id])

    def pause(self, *, is_amid: bool) -> bool:
        """A receive has been walked: keep or write what it brought, before its buffer is used again.

        Args:
            is_amid: whether a PDU or a message has begun that is not complete.

        Returns:
            Whether more must come before there is anything to answer.
        """
        reception = self._reception
        if is_amid and self._pieces:
            if self._in_command:
                self._keep_command()
            elif reception is not None:
                self._write(reception, final=False)
        elif reception is not None and reception.part is None and reception.status is None:
            # The peer has yet to read its file, or to send it: there is time to open ours.
            try:
                reception.part = self.open_part()
            except OSError as error:
                self.storage_failed(error, reception)
        return is_amid or reception is not None

    # Requests.

    def _whole_command(self) -> bytes:
        if len(self._pieces) == 1 and not self._command:
            data = bytes(self._pieces.pop())
            if len(data) <= self._max_command_bytes:
                return data
            self._pieces.append(data)
        self._keep_command()
        data = bytes(self._command)
        self._command.clear()
        return data

    def _keep_command(self) -> None:
        if len(self._command) + sum(map(len, self._pieces)) > self._max_command_bytes:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, "the command set is too long")
        for piece in self._pieces:
            self._command += piece
        self._pieces.clear()

    def _request(self, data: bytes, command: Command, context: StorageContext) -> None:
        if command.field == CommandField.C_CANCEL_RQ and not command.has_dataset:
            return  # it has no response (PS3.7 §9.3.2.3), and there is nothing to cancel
        reception = Reception(self, command, context)
        if command.field == CommandField.C_STORE_RQ:
            self._judge(reception)
            if reception.status is None:
                self._form = self._form_of(data, command)
        elif command.field == CommandField.C_ECHO_RQ and context.sop_class == VERIFICATION_SOP_CLASS:
            reception.refuse(Status.SUCCESS, "")
        else:
            reception.refuse(Status.UNRECOGNIZED_OPERATION, "only C-STORE and C-ECHO are supported")
        if command.has_dataset:
            self._reception = reception
        else:
            self._respond_unstored(reception)

    def _form_of(self, data: bytes, command: Command) -> StoreForm | None:
        return StoreForm.of(self._context_id, data, command, self._peer_max_pdu_bytes)

    def _judge(self, reception: Reception) -> None:
        """Find what speaks against storing an object before its dataset comes."""
        if self._unasked is not None:
            if not reception.command.is_moved:
                self._shared = self._unasked
            self._unasked = None
        reception.judge(self._ignored)
        if reception.status is None:
            self._judge_object(reception)

    def _judge_object(self, reception: Reception) -> None:
        """The part of it that may be different for each object of one form."""
        if not is_uid_value(reception.command.sop_instance):
            reception.refuse(Status.INVALID_SOP_INSTANCE, "Affected SOP Instance UID is missing or no UID")
        elif not self._shared.board.intake_is_open:
            reception.refuse(Status.OUT_OF_RESOURCES, "no space now, send it again later")
        elif self.outstanding >= _MOST_OUTSTANDING:
            raise ProtocolError(AbortReason.UNEXPECTED_PDU, "many requests without waiting for their answers")

    def _dataset_ends(self) -> None:
        reception, self._reception = self._reception, None
        assert reception
        self._write(reception, final=True)
        if reception.status is None:
            killpoints.reach("receiver.data-written")
            self.outstanding += 1
            self._shared.store.commit(reception, sync=self.sync)
        else:
            self._respond_unstored(reception)

    # The file.

    def _write(self, reception: Reception, *, final: bool) -> None:
        """Write the pieces to the file, unless the object is refused, or more must be seen first."""
        pieces = self._pieces
        try:
            if reception.status is None and (reception.size or self._begin(reception, final=final)):
                assert reception.part
                reception.size += write_all(reception.part.fd, pieces)
        except OSError as error:
            self.storage_failed(error, reception)
        pieces.clear()
        if self.sync:
            reception.write_back()

    def _begin(self, reception: Reception, *, final: bool) -> bool:
        """Look at the first bytes and put the file meta before them; False when it is refused, or more must come."""
        pieces = self._pieces
        if not reception.is_as_expected(pieces) and not reception.look_closely(pieces, final=final):
            return False
        if reception.part is None:
            reception.part = self.open_part()
        pieces.insert(0, reception.context.file_meta.encode(reception.command.sop_instance))
        if reception.head:
            pieces.insert(1, reception.head)
            reception.head = b""
        return True

    def storage_failed(self, error: Exception, reception: Reception | None = None) -> None:
        """An object, or the one under way, cannot be stored: its rest is read past, and it is answered at its end."""
        reception = reception or self._reception
        assert reception
        reception.fail(error)
        self._shared.repeats.add(
            "object_not_stored",
            self._peer,
            association=self._association,
            reason=getattr(error, "strerror", None) or type(error).__name__,
            remedy="free space on the storage, or repair it; the sender was answered 0xA700",
        )

    # Answers.

    def committed(self, reception: Reception) -> None:
        """The store has made a complete object an instance, or could not."""
        self.outstanding -= 1
        if reception.error is not None:
            self.storage_failed(reception.error, reception)
            self._respond_unstored(reception)
            return
        assert reception.part
        assert reception.stored
        self.stored += 1
        self.stored_bytes += reception.size
        # The sender is answered first: it makes its next object ready while the rest is done here.
        if reception.form is None:
            self._respond(reception.command, reception.context, Status.SUCCESS, "")
        elif not self._closed:
            self._send(reception.form.success(reception.command))
        killpoints.reach("receiver.answered")
        self._announce(reception.part, reception.size, reception.stored, reception.command.sop_instance)

    def note_stored(self, part: Part, size: int, stored: Moment, sop_instance: bytes) -> None:
        """Count an instance that was answered, and tell the extractors.

        Args:
            part: its file.
            size: bytes of the file.
            stored: when it became durable.
            sop_instance: its UID without padding.
        """
        self.stored += 1
        self.stored_bytes += size
        self._announce(part, size, stored, sop_instance)

    def _announce(self, part: Part, size: int, stored: Moment, sop_instance: bytes) -> None:
        self._shared.row.add_stored(size)
        self._shared.announce(StoredInstance(part.identifier, stored))
        if self._debug:
            self._shared.log.debug(
                "instance_stored",
                association=self._association,
                instance=part.identifier,
                bytes=size,
                sop_instance=sop_instance.decode("ascii"),
            )

    def _respond_unstored(self, reception: Reception) -> None:
        status = reception.status
        assert status is not None
        if reception.part is not None:
            reception.part.discard()
        if status != Status.SUCCESS:
            self.failed += 1
            self._shared.repeats.add(
                "request_failed",
                self._peer,
                association=self._association,
                command=f"0x{reception.command.field:04X}",
                status=f"0x{status:04X}",
                reason=reception.comment,
            )
        elif reception.command.field == CommandField.C_ECHO_RQ:
            self.echoed += 1
        else:
            self.ignored += 1
        self._respond(reception.command, reception.context, status, reception.comment)

    def _respond(self, command: Command, context: StorageContext, status: int, comment: str) -> None:
        if not self._closed:
            response = encode_response(command, status, comment)
            self._send(encode_command(context.context_id, response, self._peer_max_pdu_bytes))
