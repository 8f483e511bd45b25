"""The retriever: takes inference requests over, retrieves what they name, and hands it to their jobs.

Several requests are worked on at once, each in a thread; what threads bring back is written in the main loop. While
intake is paused nothing is begun, and what goes on stops before its next file.
"""

import functools
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, ClassVar

import msgspec

from actors.actor import Actor
from actors.retriever.forgetting import forgetting
from actors.retriever.journal import Journal
from actors.retriever.offers import Offers
from actors.retriever.outcome import Kept, Outcome, nothing, outcome_of
from actors.retriever.pending import MOST_DEATHS, Pending, chosen
from actors.retriever.shelf import clear_incoming, is_instance
from protocol import channels, killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.birth import Birth
from protocol.board import Intake
from protocol.clock import NANOSECONDS
from protocol.config import Settings
from protocol.errors import AdapterError
from protocol.inference import Order
from protocol.ledger import InferenceRequest, Job, Ledger, Retrieval, Submission, pages, tuples
from protocol.ledger.past import LOOK_SECONDS
from protocol.spool import Spool
from protocol.states import JobState, RequestState, advance
from protocol.vault import Vault

if TYPE_CHECKING:
    from actors.retriever.workshop import Workshop

MOST_TRIES = 3
_TRY_SECONDS = 3.0  # doubled after each try
_AWAY_SECONDS = 2.0  # doubled each time that a source is not there
_LONGEST_SECONDS = 60.0
_BUSY_SECONDS = 2.0  # below the patience of whoever watches the heartbeats
_BEGIN_SECONDS = 0.25
_GRACE_SECONDS = 2.0
_SWEEP_SECONDS = 5.0
_MOVES_SECONDS = 30.0  # well below `protocol.moves.EXPECTED_SECONDS`
_MESSAGE_LENGTH = 4000
_SUCCESS, _FAIL, _UNKNOWN = "Success", "Fail", "Unknown"


class Retriever(Actor):
    """Owner of inference requests and retrievals."""

    kind: ClassVar[str] = "retriever"

    def __init__(self, birth: Birth, settings: Settings) -> None:
        super().__init__(birth, settings)
        self._pending: dict[str, Pending] = {}
        self._looks_again = False
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._workshop: Workshop | None = None

    def start(self) -> None:
        """Take over what the last process left.

        Raises:
            StorageError: the key of the secrets cannot be used.
        """
        self._spool = Spool(self.settings.storage.temporary)
        self._spool.create()
        self._vault = Vault(self._spool.root)
        self._ledger = Ledger(self.settings.database, busy_seconds=_BUSY_SECONDS, waiting=self.wait_for_ledger)
        self._availability = Availability(self._ledger, self.log)
        self._journal = Journal(self, self._ledger, self._availability)
        self._jobs = self.bus.sender(channels.JOBS)
        clear_incoming(self._spool)
        self._offers = Offers(self, self._journal, self._vault, self._accepted)
        unfinished = InferenceRequest.state.in_((RequestState.QUEUED, RequestState.IN_PROCESS))
        for page in pages(InferenceRequest.select().where(unfinished), InferenceRequest.transaction_id):
            for row in page:
                self._take_up(Pending(row))
        self._offers.resume()
        self.every(_SWEEP_SECONDS, self._sweep)
        past = forgetting(self._ledger, self.log, self._spool)
        self.every(LOOK_SECONDS, lambda: self._availability.attempt(lambda: past.look(self.settings)))
        self.every(_MOVES_SECONDS, self._refresh_moves)

    def after_turn(self) -> None:
        """Write what this turn brought."""
        self._journal.settle()
        if self.draining and self._journal.empty and not any(each.going for each in self._pending.values()):
            self.finish()

    def drain(self) -> None:
        """Have every round stop, soon; the next process goes on."""
        self._stopping.set()
        self.after(_GRACE_SECONDS, self._leave)
        self.after_turn()

    def stop(self) -> None:
        """Wait for the threads that use the bus, since it cannot be closed under them."""
        self._stopping.set()
        self._offers.stop()
        self._ledger.close()

    def busy_with(self) -> str:
        """How much there is."""
        going = sum(each.going for each in self._pending.values())
        waiting = len(self._pending) - going
        return f"{going} retrieving, {waiting} waiting" if self._pending else "idle"

    def _leave(self) -> None:
        """End, although some rounds have not stopped: that they go on no more is on record, so that it is no death."""
        if self._journal.empty:  # else one may be over, and that not yet written
            for pending in self._pending.values():
                if pending.going:
                    self._change(pending, state=advance(RequestState.IN_PROCESS, RequestState.QUEUED))
            self._journal.settle()
        self.finish()

    # Requests come.

    def handle_accept_request(self, command: messages.AcceptRequest) -> "messages.Message | Future[messages.Message]":
        """Take a request over, once its job is on the platform."""
        if self.draining:
            return messages.Refused(reason="the retriever ends: try again", transient=True)
        try:
            return self._offers.offer(command.order, command.until_ns)
        except LEDGER_AWAY as error:
            self._availability.failed(error)
            return messages.Refused(reason=f"the ledger does not answer now ({error}): try again", transient=True)

    def _accepted(self, row: InferenceRequest) -> None:
        self._jobs.send(messages.JobsCreated(job_ids=(row.job_id,)))
        self._wait(Pending(row))
        self._begin_some()

    def _take_up(self, pending: Pending) -> None:
        """Go on with what the last process left; what was under way when it died may have been its death."""
        if pending.row.state == RequestState.IN_PROCESS:
            deaths = pending.row.deaths + 1
            if deaths >= MOST_DEATHS:
                remedy = "report it; dicom-adapter jobs retry begins again"
                self.log.error(
                    "retrieval_given_up", transaction_id=pending.row.transaction_id, deaths=deaths, remedy=remedy
                )
                pending.going = True
                self._pending[pending.job_id] = pending
                self._end(pending, f"given up: {deaths} processes in a row ended while they retrieved it")
                return
            self._change(pending, state=advance(RequestState.IN_PROCESS, RequestState.QUEUED), deaths=deaths)
        self._wait(pending)

    def _wait(self, pending: Pending) -> None:
        """Let a request wait for its next round, and no longer than ever, whatever was done to the clock since."""
        pause = (pending.row.next_try_ns - time.time_ns()) / NANOSECONDS
        pending.due = time.monotonic() + min(max(0.0, pause), _LONGEST_SECONDS)
        self._pending[pending.job_id] = pending
        self._look_again()

    def _look_again(self) -> None:
        """Look every moment while anything waits: an idle gateway is not woken for it."""
        if not self._looks_again:
            self._looks_again = True
            self.after(_BEGIN_SECONDS, self._look)

    def _look(self) -> None:
        self._looks_again = False
        self._begin_some()
        if self._pending:
            self._look_again()

    # Rounds.

    def _begin_some(self) -> None:
        if self.draining or self._availability.paused or self.board.intake is not Intake.OPEN:
            return
        for pending in chosen(self._pending.values(), time.monotonic()):
            pending.going = True
            if pending.row.state == RequestState.QUEUED:
                self._change(pending, state=advance(RequestState.QUEUED, RequestState.IN_PROCESS))
            self._journal.add(_nothing, functools.partial(self._start_round, pending))

    def _start_round(self, pending: Pending) -> None:
        """A thread that nobody waits for at the end: what it is doing then is done again by the next process."""
        threading.Thread(target=self._retrieve, args=(pending,), daemon=True, name="retrieve").start()

    def _open_workshop(self) -> "Workshop":
        """Several threads may need it first."""
        from actors.retriever.workshop import Workshop  # noqa: PLC0415 - the start of this process is waited for

        with self._lock:
            if self._workshop is None:
                self._workshop = Workshop(self._spool, self.board)
            return self._workshop

    def _retrieve(self, pending: Pending) -> None:
        """In a thread: one round."""
        try:
            order = msgspec.json.decode(self._vault.open(pending.row.request), type=Order)
            outcome = (
                self._open_workshop()
                .round(
                    order,
                    pending.job_id,
                    self.settings,
                    stopped=lambda: self._stopping.is_set() or pending.stopped.is_set(),
                    report=lambda kept: self.post(lambda: self._record(pending, kept)),
                )
                .run()
            )
        except Exception as error:
            known = outcome_of(error)
            if known is None:
                self.log.unexpected("retrieval_broke", transaction_id=pending.row.transaction_id)
            outcome = known or nothing(f"unexpected {type(error).__name__}: see the log")
        finally:
            self._ledger.close()  # this thread's connection
        self.post(lambda: self._round_ended(pending, outcome))

    def _record(self, pending: Pending, kept: list[Kept]) -> None:
        """Files of a round are durable."""
        self.board.add_retrieved(sum(each.size for each in kept if not each.counted))
        rows = [{"job_id": pending.job_id, **_columns(each)} for each in kept]
        if pending.suspected:
            self._change(pending, deaths=0)

        def write() -> None:
            Retrieval.insert_many(rows).on_conflict_ignore().execute()

        self._journal.add(write, lambda: killpoints.reach("retriever.recorded"))

    def _round_ended(self, pending: Pending, outcome: Outcome) -> None:
        """Decide what follows; the files of the round are written before, in the same order."""
        again = advance(RequestState.IN_PROCESS, RequestState.QUEUED)
        message = "; ".join((*(f"missing: {each}" for each in outcome.missing), *outcome.problems))[:_MESSAGE_LENGTH]
        if pending.stopped.is_set():
            self._end(pending, "its job was discarded")
        elif outcome.broken_off:
            self._again(pending, again, 0 if self._stopping.is_set() else _AWAY_SECONDS, message=outcome.broken_off)
        elif not outcome.missing:
            self._end(pending, message)
        elif outcome.away:
            pending.away += 1
            self._again(pending, again, _AWAY_SECONDS * 2 ** min(pending.away, 10), message=message)
        elif pending.row.tries + 1 < MOST_TRIES:
            pending.row.tries += 1
            pending.away = 0
            self._again(pending, again, _TRY_SECONDS * 2**pending.row.tries, message=message)
        else:
            pending.row.tries += 1
            self._end(pending, message)

    def _again(self, pending: Pending, state: RequestState, seconds: float, *, message: str) -> None:
        pause = min(seconds, _LONGEST_SECONDS)
        tries = pending.row.tries
        self._change(
            pending,
            state=state,
            tries=tries,
            deaths=0,
            message=message,
            next_try_ns=time.time_ns() + int(pause * NANOSECONDS),
        )

        def then() -> None:
            pending.going = False
            self._wait(pending)
            if not self._stopping.is_set():
                told = {"transaction_id": pending.row.transaction_id, "tries": tries, "again_seconds": pause}
                self.log.warning("retrieval_incomplete", **told, reason=message)

        self._journal.add(_nothing, then)

    def _end(self, pending: Pending, message: str) -> None:
        """The retrieval is over, with all, with some, or with nothing; which it is stands in the ledger."""
        self._journal.add(functools.partial(self._write_end, pending, message), lambda: self._tell_end(pending))

    def _write_end(self, pending: Pending, message: str) -> None:
        paths = [path for (path,) in tuples(Retrieval.select(Retrieval.path).where(Retrieval.job_id == pending.job_id))]
        instances = sum(map(is_instance, paths))
        found = bool(paths) and not pending.stopped.is_set()
        state = RequestState.COMPLETED if found else RequestState.FAILED
        row = pending.row
        row.status, row.message, row.updated_ns = _SUCCESS if found else _FAIL, message, time.time_ns()
        InferenceRequest.update(
            state=advance(RequestState.IN_PROCESS, state),
            status=row.status,
            message=message,
            tries=row.tries,
            updated_ns=row.updated_ns,
        ).where(InferenceRequest.job_id == pending.job_id).execute()
        Job.update(instances=instances).where(Job.job_id == pending.job_id).execute()

    def _tell_end(self, pending: Pending) -> None:
        killpoints.reach("retriever.completed")
        self._pending.pop(pending.job_id, None)
        row = pending.row
        write = self.log.info if row.status == _SUCCESS and not row.message else self.log.warning
        seconds = round((time.time_ns() - row.created_ns) / NANOSECONDS, 3)
        write(
            "retrieval_over", transaction_id=row.transaction_id, status=row.status, seconds=seconds, reason=row.message
        )
        self._jobs.send(messages.PayloadsRetrieved(job_ids=(pending.job_id,)))

    def _change(self, pending: Pending, **columns: str | int) -> None:
        columns["updated_ns"] = time.time_ns()
        for name, value in columns.items():
            setattr(pending.row, name, value)

        def write() -> None:
            InferenceRequest.update(**columns).where(InferenceRequest.job_id == pending.job_id).execute()

        self._journal.add(write)

    # What others did meanwhile.

    def _sweep(self) -> None:
        try:
            self._offers.undo_withdrawn()
            self._stop_discarded()
            self._begin_failed_again()
        except LEDGER_AWAY as error:
            self._availability.failed(error)

    def _stop_discarded(self) -> None:
        """A job that a person gave up needs no data."""
        job_ids = list(self._pending)
        for start in range(0, len(job_ids), 500):
            some = job_ids[start : start + 500]
            query = Submission.select(Submission.job_id).where(
                Submission.job_id.in_(some) & (Submission.state == JobState.DISCARDED)
            )
            for (job_id,) in tuples(query):
                pending = self._pending[job_id]
                pending.stopped.set()
                if not pending.going:
                    pending.going = True
                    self._change(pending, state=advance(RequestState.QUEUED, RequestState.IN_PROCESS))
                    self._end(pending, "its job was discarded")

    def _begin_failed_again(self) -> None:
        """A job for which nothing was retrieved, and that a person has tried again, gets all its tries."""
        query = (
            InferenceRequest.select()
            .join(Submission, on=(Submission.job_id == InferenceRequest.job_id))
            .where(
                (InferenceRequest.state == RequestState.FAILED)
                & (Submission.state == JobState.CREATED)
                & (Submission.updated_ns > InferenceRequest.updated_ns)
            )
        )
        for row in list(query):
            if row.job_id not in self._pending:
                pending = Pending(row)
                state = advance(RequestState.FAILED, RequestState.QUEUED)
                self._change(pending, state=state, status=_UNKNOWN, message="", tries=0, deaths=0, next_try_ns=0)
                self._wait(pending)

    def _refresh_moves(self) -> None:
        try:
            if self._workshop is not None:
                self._workshop.arrivals.refresh()
        except AdapterError as error:
            self.log.warning("moves_not_written", reason=str(error))


def _nothing() -> None:
    """Written for what only waits its turn."""


def _columns(kept: Kept) -> dict[str, object]:
    columns = msgspec.structs.asdict(kept)
    del columns["counted"]
    return columns
