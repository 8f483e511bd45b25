"""The lane: where an association's usual objects go from the socket into their files without the interpreter.

What it does is written in C (`native/`), which needs a compiler when the gateway is installed. Without one, every
object takes the way of `Connection`, `PduWalker` and `Service`, which know everything that a peer may do. With it, an
association enters the lane between two objects, as soon as its requests have a form, and leaves it for whatever is not
usual: another request, another dataset than was announced, a large object, an error, a deadline, an end. It leaves
wherever it stands, also in the middle of an object: then these three are given what they would know if they had
received it themselves.
"""

import os
import select
from typing import Protocol

from actors.receiver.connection import Connection, lost_text
from actors.receiver.forms import StoreForm
from actors.receiver.pdu import PduWalker
from actors.receiver.service import Service
from actors.receiver.shared import Shared
from protocol import clock, killpoints

PURE_PYTHON = "DICOM_ADAPTER_PURE_PYTHON"

try:
    from actors.receiver import _lane
except ImportError as error:
    NOT_USED = f"{error.msg}: install a C compiler and Python's headers (gcc, python3-dev), then install again"
else:
    NOT_USED = f"{PURE_PYTHON} is set" if os.environ.get(PURE_PYTHON) else ""
"""Why this process has no lane; "" when it has."""

_EPOLLIN = select.EPOLLIN
_LONGEST_COMMAND = 1024  # as in native/lane.h
if not NOT_USED:
    _STORED, _COMPLETE, _UNUSUAL, _LOST = _lane.STORED, _lane.COMPLETE, _lane.UNUSUAL, _lane.LOST


class Owner(Protocol):
    """Whose lane it is; it has left when it is told."""

    def received(self, data: memoryview) -> None:
        """These bytes are still to be walked."""

    def dataset_ended(self) -> None:
        """The dataset under way is complete; `received` follows."""

    def lost(self, how: str) -> None:
        """The peer closed the connection, or it failed."""


class Lane:
    """The lane of one association.

    Args:
        shared: of this process.
        owner: the association.
        connection: receives where the lane does not.
        walker: walks what the lane does not.
        service: stores what the lane does not.

    Attributes:
        taken: whether the association is in it.
    """

    def __init__(  # made by `open_lane` alone
        self, shared: Shared, owner: Owner, connection: Connection, walker: PduWalker, service: Service
    ) -> None:
        self._shared = shared
        self._limits = shared.settings.dicom.scp.limits
        self._owner = owner
        self._connection = connection
        self._walker = walker
        self._service = service
        self._pace = shared.pace
        self._form: StoreForm | None = None
        self._lane: _lane.Lane | None = None  # of that form
        self.taken = False

    def enter(self) -> None:
        """What comes from now on is taken here, if the association is between two objects with nothing to answer."""
        form, shared = self._service.usual_form, self._shared
        if form is None or self.taken or self._connection.blocked or not self._walker.between_messages:
            return
        if shared.cutting or not shared.board.intake_is_open:
            return
        if form is not self._form:
            self._form, self._lane = form, self._made(form)
        if self._lane is None:
            return
        self.taken = True
        self._lane.enter(*self._connection.hand_over(self._ready, self.recall))
        # A PDU that takes too long has begun after this: it is seen in time.
        self._connection.expect(min(self._limits.idle_seconds, self._limits.pdu_seconds))

    def leave(self, *, is_over: bool = False) -> bytes:
        """Give everything back, wherever it stands.

        Args:
            is_over: the association is, so that nobody wants what there is of an object.

        Returns:
            What was received, and not walked.
        """
        lane, form = self._lane, self._form
        if not self.taken or lane is None or form is None:
            return b""
        self.taken = False
        failure = None
        try:
            lane.settle_file(not is_over)
        except OSError as error:
            failure = error
        self._pace.waited(lane.waited)
        self._connection.take_back(lane.quick, lane.amid_since, lane.deadline, is_amid_pdu=lane.amid_pdu)
        self._note(lane)
        if lane.phase != _lane.BETWEEN_OBJECTS:
            self._service.resume(form, form.command(lane.message_id, lane.sop_instance), lane.part, lane.size)
        if failure is not None:
            self._service.storage_failed(failure)
        if lane.phase in (_lane.BETWEEN_FRAGMENTS, _lane.IN_FRAGMENT) and lane.has_begun:
            self._walker.resume(form.context_id, lane.fragment_left, lane.fragment_bytes, is_last=lane.is_last)
        return lane.rest

    def recall(self) -> None:
        """Leave; what is not walked is the beginning of something."""
        rest, lane = self.leave(), self._lane
        if not rest or lane is None:
            return
        self._owner.received(memoryview(rest))
        if lane.amid_pdu and not self._connection.closed and not self._walker.between_pdus:
            self._connection.expect_at(lane.deadline)  # the PDU is no new one

    def _made(self, form: StoreForm) -> "_lane.Lane | None":
        patterns = self._service.context_of(form).patterns(form)
        if patterns is None or self._limits.max_command_bytes < _LONGEST_COMMAND:
            return None
        return _lane.Lane(
            fd=self._connection.fd,
            buffer=self._shared.buffer,
            context_id=form.context_id,
            longest_pdu=self._limits.max_pdu_bytes,
            head=form.head,
            middle=form.middle,
            sync=self._service.sync,
            idle_seconds=self._limits.idle_seconds,
            pdu_seconds=self._limits.pdu_seconds,
            patterns=patterns,
            open_part=self._service.open_part,
            reach=killpoints.reach if killpoints.ARMED else None,
        )

    def _ready(self, events: int) -> None:
        lane, service, shared = self._lane, self._service, self._shared
        assert lane
        if events != _EPOLLIN or service.outstanding or shared.cutting or not shared.board.intake_is_open:
            self.recall()
            if not self._connection.closed:
                self._connection.ready(events)
            return
        try:
            outcome = lane.turn(self._pace.ways(id(self)) if service.sync else 0)
        except OSError as error:
            self._storage_failed(lane, error)
            return
        finally:
            self._pace.waited(lane.waited)
        if outcome == _STORED:
            self._note(lane)
        elif outcome == _COMPLETE:
            self._completed(lane)
        elif outcome == _UNUSUAL:
            rest, unsent = self.leave(), lane.unsent
            if unsent is not None:
                self._connection.send(unsent, self._limits.write_seconds)
            self._owner.received(memoryview(rest))
        elif outcome == _LOST:
            self.leave(is_over=True)
            self._owner.lost(lost_text(lane.error))

    def _completed(self, lane: "_lane.Lane") -> None:
        """An object is to be synced beside others before it is answered, which the service does."""
        form = self._form
        assert form
        self._note(lane)
        self._service.resume(form, form.command(lane.message_id, lane.sop_instance), lane.part, lane.size)
        lane.next_object()
        self._owner.dataset_ended()
        if lane.rest:
            self._owner.received(memoryview(self.leave()))

    def _storage_failed(self, lane: "_lane.Lane", error: OSError) -> None:
        is_ended = lane.phase == _lane.DATASET_ENDED
        rest = self.leave()
        self._service.storage_failed(error)
        if is_ended:
            self._owner.dataset_ended()
        self._owner.received(memoryview(rest))

    def _note(self, lane: "_lane.Lane") -> None:
        for part, size, sop_instance in lane.stored:
            self._service.note_stored(part, size, clock.now(), sop_instance)
        lane.stored.clear()


def open_lane(shared: Shared, owner: Owner, connection: Connection, walker: PduWalker, service: Service) -> Lane | None:
    """The lane of an association, where there is one; see `Lane`."""
    return None if NOT_USED else Lane(shared, owner, connection, walker, service)
