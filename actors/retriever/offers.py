"""Accepting a request: it is on record first, then its job is created on the platform, then it is accepted, or gone.

    Offered ──job created──▶ Queued (its `Job` row with it)      anything else ──▶ no row, but a `Withdrawal`

A withdrawal is what has to be undone on the platform when an answer was lost; it is repeated until the platform knows.
"""

import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec

from actors.actor import Actor
from actors.retriever.journal import Journal
from protocol import killpoints, messages
from protocol.bus import Client
from protocol.channels import SUBMITTER_COMMANDS
from protocol.clock import NANOSECONDS
from protocol.errors import AdapterError, RefusedError, UnavailableError
from protocol.inference import Order
from protocol.ledger import InferenceRequest, Job, Withdrawal, tuples
from protocol.naming import JobNames
from protocol.states import RequestState, advance
from protocol.vault import Vault

_MOST_SECONDS = 60.0  # that an offer may take, whatever was done to the clock
_ASK_SECONDS = 6.0  # then it is asked again, since an answer may be lost with a submitter that is restarted
_CANCEL_SECONDS = 30.0
_PAUSE_SECONDS = 0.5
_MOST_REFUSALS = 1  # once more, since an answer of the platform may have been lost with its connection
_THREADS = 8

Answered = messages.Message  # JobCreated, or Refused


class Offers:
    """Requests that are being accepted.

    Args:
        actor: whose loop it lives in.
        journal: of the same loop.
        vault: seals what is secret.
        accepted: called with each request that is accepted and committed.
    """

    def __init__(
        self, actor: Actor, journal: Journal, vault: Vault, accepted: Callable[[InferenceRequest], None]
    ) -> None:
        self._actor = actor
        self._journal = journal
        self._vault = vault
        self._accepted = accepted
        self._names = JobNames(_taken)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="offer")
        self._stopping = threading.Event()
        self._waiting: dict[str, tuple[InferenceRequest, Future[messages.Message]]] = {}
        self._withdrawing = False

    def resume(self) -> None:
        """Go on with what the last process was accepting.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        for row in list(InferenceRequest.select().where(InferenceRequest.state == RequestState.OFFERED)):
            self._waiting[row.transaction_id] = (row, Future())
            self._begin(row, again=True)

    def stop(self) -> None:
        """Wait for the threads; what is not answered yet is taken up by the next process."""
        self._stopping.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def offer(self, order: Order, until_ns: int) -> "messages.Message | Future[messages.Message]":
        """Take a request over, or find it among those that were.

        Args:
            order: the request.
            until_ns: wall time after which it must not be accepted any more.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        digest = self._vault.digest(msgspec.json.encode(order))
        row, future = self._waiting.get(order.transaction_id, (None, None))
        row = row or InferenceRequest.get_or_none(InferenceRequest.transaction_id == order.transaction_id)
        if row is not None and row.digest != digest:
            if future is None:
                return messages.RequestDiffers()
            return messages.Refused(
                reason="another request with this transaction ID is being accepted: try again", transient=True
            )
        if future is not None:
            return future
        if row is not None:
            return messages.RequestAccepted(job_id=row.platform_job_id, payload_id=row.payload_id)
        return self._record(order, digest, until_ns)

    def _record(self, order: Order, digest: str, until_ns: int) -> "Future[messages.Message]":
        now_ns = time.time_ns()
        moment = datetime.fromtimestamp(now_ns / NANOSECONDS, tz=UTC)
        row = InferenceRequest(
            transaction_id=order.transaction_id,
            job_id=str(uuid.uuid4()),
            job_name=self._names.new(order.transaction_id, order.algorithm, moment),
            pipeline_id=order.pipeline_id,
            priority=order.job_priority,
            digest=digest,
            request=self._vault.seal(msgspec.json.encode(order).decode()),
            outputs=self._vault.seal(order.outputs_as_json().decode()),
            state=RequestState.OFFERED,
            next_try_ns=until_ns,
            created_ns=now_ns,
            updated_ns=now_ns,
        )
        future: Future[messages.Message] = Future()
        self._waiting[row.transaction_id] = (row, future)

        def recorded() -> None:
            killpoints.reach("retriever.offered")
            self._begin(row, again=False)

        self._journal.add(lambda: _insert(row), recorded)
        return future

    # The job, created by the submitter.

    def _begin(self, row: InferenceRequest, *, again: bool) -> None:
        command = messages.CreateJob(
            job_id=row.job_id,
            name=row.job_name,
            pipeline_id=row.pipeline_id,
            priority=row.priority,
            source=row.transaction_id,
            requested_ns=row.created_ns,
            again=again,
        )
        deadline = time.monotonic() + _seconds_left(row)
        self._pool.submit(self._create, row.transaction_id, command, deadline)

    def _create(self, transaction_id: str, command: messages.CreateJob, deadline: float) -> None:
        """In a thread: ask until there is an answer, or the time is over."""
        answer: Answered = messages.Refused(reason="the platform did not answer in time: try again", transient=True)
        refusals = 0
        while not self._stopping.is_set():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            asked = time.monotonic()
            try:
                answer = self._ask(command, min(_ASK_SECONDS, remaining))
                break
            except RefusedError as error:
                answer = messages.Refused(reason=str(error))
                break
            except UnavailableError as error:
                if time.monotonic() - asked < min(_ASK_SECONDS, remaining):  # it did answer
                    answer = messages.Refused(reason=str(error), transient=True)
                    refusals += 1
                    if refusals > _MOST_REFUSALS:
                        break
                    self._stopping.wait(_PAUSE_SECONDS)
            command = msgspec.structs.replace(command, again=True)
        if not self._stopping.is_set():
            self._actor.post(lambda: self._answered(transaction_id, answer))

    def _ask(self, command: messages.Message, seconds: float) -> messages.Message:
        client: Client = self._actor.bus.client(SUBMITTER_COMMANDS)
        try:
            return client.ask(command, seconds)
        finally:
            client.close()

    def _answered(self, transaction_id: str, answer: Answered) -> None:
        killpoints.reach("retriever.job-created")
        row, _ = self._waiting[transaction_id]
        if isinstance(answer, messages.JobCreated) and _seconds_left(row) > 0:
            row.platform_job_id, row.payload_id = answer.platform_job_id, answer.payload_id
            self._journal.add(lambda: self._accept(row), lambda: self._tell_accepted(row))
            return
        if not isinstance(answer, messages.Refused):
            answer = messages.Refused(reason="the platform answered too late: try again", transient=True)
        self._journal.add(lambda: _withdraw(row), lambda: self._tell_withdrawn(row, answer))

    def _accept(self, row: InferenceRequest) -> None:
        now_ns = time.time_ns()
        state = advance(RequestState.OFFERED, RequestState.QUEUED)
        InferenceRequest.update(
            state=state,
            platform_job_id=row.platform_job_id,
            payload_id=row.payload_id,
            next_try_ns=0,
            updated_ns=now_ns,
        ).where(InferenceRequest.transaction_id == row.transaction_id).execute()
        name = row.job_name
        if _taken([name]):  # by a job of an AE title, a moment ago
            name = self._names.new(row.transaction_id, "", datetime.fromtimestamp(now_ns / NANOSECONDS, tz=UTC))
        Job.create(
            job_id=row.job_id,
            group_id=None,
            ae_title="",
            name=name,
            pipeline_id=row.pipeline_id,
            priority=row.priority,
            source=row.transaction_id,
            instances=0,
            created_ns=row.created_ns,
        )

    def _tell_accepted(self, row: InferenceRequest) -> None:
        killpoints.reach("retriever.accepted")
        row.state, row.next_try_ns = RequestState.QUEUED, 0
        _, future = self._waiting.pop(row.transaction_id)
        self._actor.log.info("request_accepted", transaction_id=row.transaction_id, job=row.job_name, job_id=row.job_id)
        self._accepted(row)
        future.set_result(messages.RequestAccepted(job_id=row.platform_job_id, payload_id=row.payload_id))

    def _tell_withdrawn(self, row: InferenceRequest, answer: Answered) -> None:
        killpoints.reach("retriever.withdrawn")
        _, future = self._waiting.pop(row.transaction_id)
        reason = answer.reason if isinstance(answer, messages.Refused) else ""
        self._actor.log.warning("request_not_accepted", transaction_id=row.transaction_id, reason=reason)
        future.set_result(answer)

    # Withdrawals.

    def undo_withdrawn(self) -> None:
        """Have the platform give up jobs whose requests were not accepted; called every few seconds.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        if self._withdrawing:
            return
        query = Withdrawal.select().order_by(Withdrawal.created_ns).limit(100)
        commands = [
            messages.CancelJob(job_id=row.job_id, pipeline_id=row.pipeline_id, requested_ns=row.requested_ns)
            for row in list(query)
        ]
        if commands:
            self._withdrawing = True
            self._pool.submit(self._undo, commands)

    def _undo(self, commands: list[messages.CancelJob]) -> None:
        done: list[str] = []
        try:
            for command in commands:
                if self._stopping.is_set():
                    break
                self._ask(command, _CANCEL_SECONDS)
                done.append(command.job_id)
        except AdapterError as error:
            self._actor.log.debug("withdrawal_waits", reason=str(error))
        finally:
            self._actor.post(lambda: self._undone(done))

    def _undone(self, job_ids: list[str]) -> None:
        self._withdrawing = False
        if job_ids:
            self._journal.add(lambda: _forget(job_ids))


def _insert(row: InferenceRequest) -> None:
    row.save(force_insert=True)


def _withdraw(row: InferenceRequest) -> None:
    InferenceRequest.delete().where(InferenceRequest.transaction_id == row.transaction_id).execute()
    Withdrawal.create(
        job_id=row.job_id, pipeline_id=row.pipeline_id, requested_ns=row.created_ns, created_ns=time.time_ns()
    )


def _forget(job_ids: list[str]) -> None:
    Withdrawal.delete().where(Withdrawal.job_id.in_(job_ids)).execute()


def _seconds_left(row: InferenceRequest) -> float:
    """Until whoever waits for the answer gives up; while it is Offered, that stands where the next try does later."""
    return min(_MOST_SECONDS, (row.next_try_ns - time.time_ns()) / NANOSECONDS)


def _taken(names: Sequence[str]) -> Collection[str]:
    of_jobs = tuples(Job.select(Job.name).where(Job.name.in_(names)))
    of_requests = tuples(
        InferenceRequest.select(InferenceRequest.job_name).where(
            InferenceRequest.job_name.in_(names) & (InferenceRequest.state == RequestState.OFFERED)
        )
    )
    return {name for (name,) in (*of_jobs, *of_requests)}
