"""Inference requests as programs see them: accepted by the retriever, and their status put together from the ledger."""

import time
from typing import Annotated

from msgspec import Meta

from actors.api.book import Book
from actors.api.entities import Entity
from actors.api.orders import UNPROCESSABLE, read_order
from actors.api.owners import Owners
from actors.api.problems import InvalidError, ProblemError
from protocol import channels, messages
from protocol.clock import NANOSECONDS, iso
from protocol.errors import NotFoundError, RefusedError, UnavailableError
from protocol.ledger import InferenceRequest, Run, Submission
from protocol.states import RequestState

_OFFER_SECONDS = 24.0  # in which the retriever has to have it accepted
_PATIENCE_SECONDS = _OFFER_SECONDS + 4.0  # so that it is the retriever that decides
_ASK_SECONDS = 6.0  # then it is asked again, since an answer may be lost with a retriever that is restarted

# The words of the platforms for what became of a job, and the original's for its state and status.
_OF_PLATFORM = {
    "": ("Pending", "Healthy"),
    "created": ("Pending", "Healthy"),
    "pending": ("Pending", "Healthy"),
    "running": ("Running", "Healthy"),
    "stopped": ("Stopped", "Healthy"),
    "healthy": ("Stopped", "Healthy"),
    "succeeded": ("Stopped", "Healthy"),
    "failed": ("Stopped", "Faulted"),
    "faulted": ("Stopped", "Faulted"),
    "canceled": ("Stopped", "Canceled"),
    "evicted": ("Stopped", "Evicted"),
    "terminated": ("Stopped", "Terminated"),
    "unknown": ("Stopped", "Faulted"),
}


class AcceptedRequest(Entity, frozen=True, kw_only=True):
    """A request that was accepted; its job is on the platform."""

    transaction_id: Annotated[str, Meta(examples=["ABCDEF123456"])]
    job_id: Annotated[
        str, Meta(description="The platform's job ID.", examples=["8c3c7d0a-7d53-5b3b-8b4e-2f4f0f0b3a77"])
    ]
    payload_id: Annotated[str, Meta(examples=["1f0b8a9e-6f0d-5a57-9b0a-5f1f6f1d2c33"])]


class PlatformStatus(Entity, frozen=True, kw_only=True):
    """The request's job on the platform."""

    job_id: str
    payload_id: str
    status: Annotated[str, Meta(description="Healthy, Faulted, Canceled, Evicted or Terminated.", examples=["Healthy"])]
    state: Annotated[str, Meta(description="Pending, Running or Stopped.", examples=["Running"])]
    priority: Annotated[str, Meta(examples=["Normal"])]
    created: str | None
    started: str | None
    stopped: str | None


class DicomStatus(Entity, frozen=True, kw_only=True):
    """The retrieval."""

    state: Annotated[str, Meta(description="Queued, InProcess or Completed.", examples=["InProcess"])]
    status: Annotated[str, Meta(description="Unknown, Success or Fail.", examples=["Unknown"])]


class InferenceStatus(Entity, frozen=True, kw_only=True):
    """How far a request is."""

    transaction_id: Annotated[str, Meta(examples=["ABCDEF123456"])]
    platform: PlatformStatus
    dicom: DicomStatus
    message: Annotated[str, Meta(description="What is missing, and why.", examples=[""])]


class Inference:
    """Has requests accepted, and tells how far they are.

    Args:
        book: the ledger.
        owners: the retriever among them.
    """

    def __init__(self, book: Book, owners: Owners) -> None:
        self._book = book
        self._owners = owners

    def submit(self, data: bytes) -> AcceptedRequest:
        """Accept a request: its job is created on the platform before this returns.

        Raises:
            ProblemError: 400, it is no JSON; 409, its transaction ID belongs to another request.
            InvalidError: 422, it is not valid, or its pipeline is none.
            UnavailableError: the platform does not answer; nothing was kept.
        """
        order = read_order(data)
        try:
            until_ns = time.time_ns() + int(_OFFER_SECONDS * NANOSECONDS)
            answer = self._ask(messages.AcceptRequest(order=order, until_ns=until_ns))
        except RefusedError as error:
            raise InvalidError([f"the platform refuses the job: {error}"], UNPROCESSABLE) from None
        if isinstance(answer, messages.RequestAccepted):
            return AcceptedRequest(
                transaction_id=order.transaction_id, job_id=answer.job_id, payload_id=answer.payload_id
            )
        raise self._conflict(order.transaction_id)

    def status(self, identifier: str) -> InferenceStatus:
        """The status of a request.

        Args:
            identifier: its transaction ID, the platform's job ID, or ours.

        Raises:
            NotFoundError: there is none.
        """
        with self._book.use():
            row = _find(identifier)
            if row is None:
                raise NotFoundError(f"there is no inference request {identifier!r}: give its transaction ID or job ID")
            submission: Submission | None = Submission.get_or_none(Submission.job_id == row.job_id)
            run: Run | None = Run.get_or_none(Run.job_id == row.job_id)
        return _status(row, submission, run)

    def _ask(self, command: messages.AcceptRequest) -> messages.Message:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            asked = time.monotonic()
            remaining = deadline - asked
            try:
                return self._owners.ask_for(channels.RETRIEVER_COMMANDS, command, min(_ASK_SECONDS, remaining))
            except UnavailableError:
                # A refusal comes at once, silence takes its time: only silence is worth asking again.
                if time.monotonic() - asked < _ASK_SECONDS or time.monotonic() >= deadline:
                    raise

    def _conflict(self, transaction_id: str) -> ProblemError:
        status = self.status(transaction_id)
        return ProblemError(
            409,
            f"the transaction ID {transaction_id!r} belongs to another request, which is {status.dicom.state} "
            f"({status.dicom.status}) as job {status.platform.job_id}: use a transaction ID of its own",
        )


def _find(identifier: str) -> InferenceRequest | None:
    accepted = InferenceRequest.state != RequestState.OFFERED
    for condition in (
        InferenceRequest.transaction_id == identifier,
        (InferenceRequest.platform_job_id == identifier) & (InferenceRequest.platform_job_id != ""),
        InferenceRequest.job_id == identifier.lower(),
    ):
        found: InferenceRequest | None = InferenceRequest.get_or_none(condition & accepted)
        if found is not None:
            return found
    return None


def _status(row: InferenceRequest, submission: Submission | None, run: Run | None) -> InferenceStatus:
    word = run.state if run else submission.platform_state if submission else ""
    state, status = _OF_PLATFORM.get(word.lower(), ("Running", "Healthy"))
    over = row.state in (RequestState.COMPLETED, RequestState.FAILED)
    return InferenceStatus(
        transaction_id=row.transaction_id,
        platform=PlatformStatus(
            job_id=row.platform_job_id,
            payload_id=row.payload_id,
            status=status,
            state=state,
            priority=row.priority.capitalize(),
            created=iso(row.created_ns),
            started=iso(run.started_ns) if run and run.started_ns else None,
            stopped=iso(run.ended_ns) if run and run.ended_ns else None,
        ),
        dicom=DicomStatus(state=RequestState.COMPLETED if over else row.state, status=row.status),
        message=row.message,
    )
