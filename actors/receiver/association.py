"""One connection as the acceptor's state machine, with every deadline that a peer must keep (PS3.8 §9.2).

What comes goes through the walker; PDUs other than P-DATA-TF are looked up in one table of transitions.
"""

import socket
import time
from collections.abc import Callable, Mapping

from actors.receiver.admission import Admitted, NamesNeeded, Refused, against, against_now
from actors.receiver.connection import Connection
from actors.receiver.dimse_log import LoggingService
from actors.receiver.file_meta import presentation_address
from actors.receiver.lane import Lane, open_lane
from actors.receiver.negotiation import Proposal, decode_request, encode_acceptance, negotiate
from actors.receiver.pdu import PduWalker, Rejection, encode_rejection
from actors.receiver.reception import Ends
from actors.receiver.service import Service
from actors.receiver.shared import Shared
from actors.receiver.state import State
from protocol.access import normalize_address
from protocol.board import host_key
from protocol.dimse.pdu import RELEASE_RP, AbortReason, PduType, ProtocolError, encode_abort
from protocol.spool import new_association_id

_ARTIM_SECONDS = 2.0  # for the peer to close, after the last PDU of an association
_NAMES_SECONDS = 3.0  # for the name server, while a peer waits for its answer
_MOST_IGNORED_BYTES = 4 * 1024 * 1024  # from a peer that has been told to go
_SPLICED_BYTES = 32 * 1024  # smaller fragments cost less in the receive buffer
_SHORT_PDU_BYTES = 4  # A-RELEASE-RQ, A-ABORT
_TITLES_BYTES = 68
_RELEASED = "released"
_CUT = "this receiver ends"


# A member of an enumeration costs more than a constant, for each receive.
_ESTABLISHED, _CLOSED = State.ESTABLISHED, State.CLOSED


class Association:
    """A connection, and what it becomes.

    Args:
        shared: of this process.
        accepted: the connection's socket.
        peer: its address as `accept` gave it.
        closed: called once, when the connection is gone.
    """

    def __init__(
        self, shared: Shared, accepted: socket.socket, peer: tuple[str, int], closed: Callable[["Association"], None]
    ) -> None:
        self._shared = shared
        self._limits = shared.settings.dicom.scp.limits
        self._host = normalize_address(peer[0])
        self._peer = presentation_address(self._host, peer[1])
        self._closed = closed
        self.state = State.AWAITING_REQUEST
        self._walker = PduWalker(self)
        self._walking = False
        self._timed_pdu = 0
        self._ignored_bytes = 0
        self._slot: int | None = None
        self._service: Service | None = None
        self._lane: Lane | None = None
        self._identifier = ""
        self._titles = ("", "")
        self._proposal: Proposal | None = None
        self._started = time.monotonic()
        synced = shared.settings.storage.sync_on_store
        self._connection = Connection(
            shared.loop, accepted, shared.buffer, self, self._limits.first_bytes_seconds, synced=synced
        )

    @property
    def associated(self) -> bool:
        """Whether it holds an association slot."""
        return self._slot is not None

    def cut(self) -> None:
        """End it if that breaks nothing in two; after each answer it looks again by itself."""
        if self.state is State.AWAITING_REQUEST and self._walker.between_pdus:
            self._close(_CUT)
            return
        if self._lane is not None:
            self._lane.recall()
        if self.state is State.ESTABLISHED and self._between_objects():
            self._abort(None, _CUT)

    def end(self) -> None:
        """End it now."""
        if self.state in (State.ESTABLISHED, State.RELEASING):
            self._abort(None, _CUT)
        self._close(_CUT)

    # What the connection tells.

    def received(self, data: memoryview) -> None:
        """Walk what came."""
        if self.state is _CLOSED:
            return
        if self.state is not _ESTABLISHED and self.state is State.AWAITING_CLOSE:
            self._ignored_bytes += len(data)
            if self._ignored_bytes > _MOST_IGNORED_BYTES:
                self._close("")
            return
        self._walking = True
        try:
            is_amid = self._walker.feed(data)  # a PDU, or a message
            service = self._service
            if service is not None:
                is_amid = service.pause(is_amid=is_amid)
            if is_amid:
                self._await_more(service)
        except ProtocolError as error:
            # AA-1 while there is no association, else AA-8.
            self._abort(None if self._service is None else error.reason, str(error))
        finally:
            self._walking = False
        self._settle()

    def spliced(self, count: int) -> None:
        """A piece of a large object's dataset, in the pipe."""
        service = self._service
        if service is None or self.state is not _ESTABLISHED:  # it was told to go since that was planned
            self._shared.pipe.drop(count)
            return
        self._walking = True
        service.spliced(count)
        if self._walker.skip(count):
            self._await_more(service)
        self._walking = False
        self._settle()

    def dataset_ended(self) -> None:
        """A dataset that came by another way is complete; what follows it is told by `received`."""
        assert self._service
        self._walking = True
        self._service.message_ends()
        self._walking = False

    def _await_more(self, service: Service | None) -> None:
        """More must come before there is anything to answer; of a large object, plan to splice it."""
        self._connection.acknowledge()
        pipe, walker = self._shared.pipe, self._walker
        if service is not None and service.in_bulk and pipe.works and walker.fragment_bytes >= _SPLICED_BYTES:
            self._connection.splice(pipe, walker.fragment_left)

    def drained(self) -> None:
        """All answers are on their way; a PDU that had to wait for that has its whole time."""
        self._timed_pdu = 0
        self._settle()

    def lost(self, how: str) -> None:
        """AA-4, AA-5, AR-5."""
        self._close(how)

    def time_is_up(self) -> None:
        """What the peer was given time for has not come."""
        if self.state is State.AWAITING_REQUEST:
            self._close("no A-ASSOCIATE-RQ in time")  # ARTIM: AA-2
        elif self.state is State.AWAITING_ADMISSION:
            self._admit(last_word=True)
        elif self.state is State.AWAITING_CLOSE:
            self._close("")
        elif self._connection.blocked:
            self._close("the peer does not read our answers")
        elif self._service is not None and self._service.outstanding:
            self._connection.expect(self._limits.idle_seconds)  # the peer waits for our disk, not we for it
        elif self._walker.between_pdus:
            self._abort(AbortReason.NOT_SPECIFIED, f"idle for {self._limits.idle_seconds:g} s")
        else:
            self._abort(AbortReason.NOT_SPECIFIED, f"a PDU took longer than {self._limits.pdu_seconds:g} s")

    def _settle(self) -> None:
        """After anything was received or answered: what is due, and until when the peer has time."""
        state = self.state
        if state is _CLOSED:
            return
        if self._connection.failure:
            self._close(self._connection.failure)
        elif state is _ESTABLISHED:
            walker = self._walker
            if self._shared.cutting and self._between_objects():
                self._abort(None, _CUT)
            elif walker.between_pdus:
                self._connection.expect_more(self._limits.idle_seconds)
                if self._lane is not None:
                    self._lane.enter()
            elif self._timed_pdu != walker.pdus:
                # Absolute from here on: what trickles in does not move it.
                self._connection.expect_more(self._limits.pdu_seconds)
            self._timed_pdu = walker.pdus
        elif state is State.RELEASING and self._service is not None and not self._service.outstanding:
            self._send(RELEASE_RP)
            self._conclude(_RELEASED)

    def _between_objects(self) -> bool:
        return self._service is not None and self._service.between_messages and self._walker.between_pdus

    def _send(self, data: bytes) -> None:
        self._connection.send(data, self._limits.write_seconds)

    def _answer(self, data: bytes) -> None:
        """Send a response of the service, which may come at any time."""
        self._send(data)
        if not self._walking:
            self._settle()

    # What the walker finds.

    def pdu_begins(self, kind: int, length: int) -> None:
        """Refuse what does not belong here, or is too long, before it is collected."""
        if kind == PduType.P_DATA_TF and self.state is State.ESTABLISHED:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, f"P-DATA-TF of {length} bytes")
        if (self.state, kind) not in _TRANSITIONS:
            if not PduType.A_ASSOCIATE_RQ <= kind <= PduType.A_ABORT:
                raise ProtocolError(AbortReason.UNRECOGNIZED_PDU, f"unknown PDU type 0x{kind:02X}")
            raise ProtocolError(AbortReason.UNEXPECTED_PDU, f"{PduType(kind).name} in {self.state.value}")
        if kind == PduType.A_ASSOCIATE_RQ:
            if not _TITLES_BYTES <= length <= self._limits.max_associate_bytes:
                raise ProtocolError(AbortReason.INVALID_PARAMETER, f"A-ASSOCIATE-RQ of {length} bytes")
        elif length != _SHORT_PDU_BYTES:
            raise ProtocolError(AbortReason.INVALID_PARAMETER, f"{PduType(kind).name} of {length} bytes")

    def pdu(self, kind: int, body: bytes) -> bool:
        """Take the transition; what follows is of interest as long as the association is."""
        _TRANSITIONS[self.state, kind](self, body)
        return self.state not in (State.AWAITING_CLOSE, State.CLOSED)

    # Transitions.

    def _take_request(self, body: bytes) -> None:
        """Sta2, A-ASSOCIATE-RQ: AE-6."""
        self._proposal = decode_request(body)
        self._titles = (self._proposal.calling, self._proposal.called)
        self._admit(last_word=False)

    def _admit(self, *, last_word: bool) -> None:
        proposal, scp = self._proposal, self._shared.settings.dicom.scp
        assert proposal
        outcome = against(proposal) or self._shared.admission.decide(
            called=proposal.called,
            calling=proposal.calling,
            host=self._host,
            any_source=not scp.reject_unknown_sources,
            last_word=last_word,
            own=self._shared.settings.dicom.scu.ae_title,
        )
        if isinstance(outcome, Admitted):
            intake_is_open = self._shared.board.intake_is_open
            verification = scp.verification.enabled
            outcome = against_now(proposal, verification=verification, intake_is_open=intake_is_open) or outcome
        if isinstance(outcome, NamesNeeded):
            self.state = State.AWAITING_ADMISSION
            self._connection.pause()
            self._connection.expect(_NAMES_SECONDS)
            self._shared.names.refresh(outcome.names, self._names_refreshed)
        elif isinstance(outcome, Refused):
            self._reject(outcome.rejection, outcome.reason, outcome.hint)
        else:
            self._slot = self._shared.row.claim_slot(
                host_key(self._host), scp.maximum_number_of_associations, scp.maximum_associations_per_host
            )
            if self._slot is None:
                self._reject(Rejection.LOCAL_LIMIT_EXCEEDED, "the maximum number of associations is reached")
            else:
                self._accept(proposal, outcome)

    def _names_refreshed(self) -> None:
        if self.state is State.AWAITING_ADMISSION:
            self._admit(last_word=True)
            self._settle()

    def _accept(self, proposal: Proposal, admitted: Admitted) -> None:
        """Sta3, A-ASSOCIATE response primitive (accept): AE-7."""
        scp = self._shared.settings.dicom.scp
        agreement = negotiate(proposal, scp.verification.transfer_syntaxes if scp.verification.enabled else ())
        host, port = self._connection.local
        local = presentation_address(normalize_address(host), port)
        self._identifier = new_association_id()
        self._service = (LoggingService if scp.log_dimse_datasets else Service)(
            self._shared.moved if admitted.moved and self._shared.moved else self._shared,
            unasked=self._shared if admitted.shared else None,
            association=self._identifier,
            accepted=agreement.contexts,
            ends=Ends(proposal.calling, proposal.called, self._peer, local),
            ignored=admitted.rule.ignored_sop_classes,
            peer=self._host,
            peer_max_pdu_bytes=proposal.max_pdu_bytes,
            send=self._answer,
        )
        if self.state is State.AWAITING_ADMISSION:
            self._connection.resume()
        self._lane = open_lane(self._shared, self, self._connection, self._walker, self._service)
        self.state = State.ESTABLISHED
        self._walker.welcome_data(self._service, self._limits.max_pdu_bytes)
        self._send(encode_acceptance(proposal, agreement, self._limits.max_pdu_bytes))
        self._proposal = None
        self._shared.log.info(
            "association_accepted",
            association=self._identifier,
            peer=self._peer,
            calling=proposal.calling,
            called=proposal.called,
            contexts=f"{len(agreement.contexts)}/{len(agreement.results)}",
            implementation=proposal.implementation,
        )

    def _reject(self, rejection: Rejection, reason: str, hint: str = "") -> None:
        """Sta3, A-ASSOCIATE response primitive (reject): AE-8."""
        told = {"hint": hint} if hint else {}
        calling, called = self._titles
        self._shared.repeats.add(
            "association_rejected", self._host, calling=calling, called=called, reason=reason, **told
        )
        self._send(encode_rejection(rejection))
        self._conclude("")
        self._half_close()

    def _release(self, _: bytes) -> None:
        """Sta6, A-RELEASE-RQ: AR-2; the response waits for what is still to be answered."""
        self.state = State.RELEASING
        self._walker.refuse_data()

    def _peer_aborts(self, _: bytes) -> None:
        """Any state, A-ABORT: AA-3, AA-2."""
        self._close("aborted by the peer")

    # The end.

    def _abort(self, reason: AbortReason | None, what: str) -> None:
        self._send(encode_abort(reason))
        self._conclude(f"aborted: {what}")
        self._half_close()

    def _conclude(self, how: str) -> None:
        """The last PDU was sent: give the slot back, and let the peer close, or we destroy what it has not read."""
        if self._connection.failure:
            self._close(self._connection.failure)
            return
        if self.state is State.AWAITING_ADMISSION:
            self._connection.resume()
        self._over(how)
        self.state = State.AWAITING_CLOSE
        self._connection.expect(_ARTIM_SECONDS)

    def _half_close(self) -> None:
        if self.state is State.AWAITING_CLOSE:
            self._connection.half_close()

    def _close(self, how: str) -> None:
        if self.state is State.CLOSED:
            return
        self._over(how)
        self.state = State.CLOSED
        self._connection.close()
        self._closed(self)

    def _over(self, how: str) -> None:
        """Whatever this was, it is over: nothing stays in transit, no slot is held, and one line tells of it."""
        if self.state is State.AWAITING_CLOSE:
            return
        service, (calling, called) = self._service, self._titles
        if self._lane is not None:
            self._lane.leave(is_over=True)
        if service is None:
            if how:
                self._shared.repeats.add("connection_ended", self._host, reason=how)
            return
        service.close()
        if self._slot is not None:
            self._shared.row.free_slot(self._slot)
            self._slot = None
        write = self._shared.log.info if how == _RELEASED else self._shared.log.warning
        write(
            "association_ended",
            association=self._identifier,
            peer=self._peer,
            calling=calling,
            called=called,
            how=how,
            stored=service.stored,
            bytes=service.stored_bytes,
            failed=service.failed,
            ignored=service.ignored,
            echoed=service.echoed,
            seconds=round(time.monotonic() - self._started, 3),
        )


_TRANSITIONS: Mapping[tuple[State, int], Callable[[Association, bytes], None]] = {
    (State.AWAITING_REQUEST, PduType.A_ASSOCIATE_RQ): Association._take_request,
    (State.AWAITING_REQUEST, PduType.A_ABORT): Association._peer_aborts,
    (State.ESTABLISHED, PduType.A_RELEASE_RQ): Association._release,
    (State.ESTABLISHED, PduType.A_ABORT): Association._peer_aborts,
    (State.RELEASING, PduType.A_ABORT): Association._peer_aborts,
}
"""Everything else that is not P-DATA-TF in Sta6 is answered by A-ABORT: AA-1 in Sta2, AA-8 later."""
