"""The submitter's part in inference requests: their jobs are created at once, and go on when the data is there.

The retriever has a job created before it accepts a request, so that a platform that does not answer costs the
requester a refusal, and nothing is kept. The job's submission finds it there, and waits until the retrieval is over.
"""

import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from actors.submitter import metadata
from actors.submitter.progress import Progress
from protocol import killpoints, messages
from protocol.errors import AdapterError, RefusedError
from protocol.ledger import PAGE_ROWS, InferenceRequest, Job, tuples
from protocol.logs import EventLogger
from protocol.platforms.base import JobRequest, Platform, Sought
from protocol.states import JobState, RequestState

_THREADS = 4
_NOTHING = "nothing of what was asked for could be retrieved"


class Retrieved(msgspec.Struct, frozen=True):
    """A retrieval that is over.

    Args:
        job_id: of the request's job.
        failure: why the job cannot go on; "" when it can.
    """

    job_id: str
    failure: str = ""


class Requests:
    """Creates jobs for the retriever, and holds the submissions whose data is not there.

    Args:
        platform: asked in threads.
        log: of the actor.
    """

    def __init__(self, platform: Platform, log: EventLogger) -> None:
        self._platform = platform
        self._log = log
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="request")
        self._creating: dict[str, Future[messages.Message]] = {}
        self._held: dict[str, Progress] = {}
        self._retrieved: set[str] = set()

    def stop(self) -> None:
        """Wait for the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    # Commands of the retriever.

    def create(self, command: messages.CreateJob) -> "Future[messages.Message]":
        """Create a job; asked again while that goes on, the answer is the same."""
        going = self._creating.get(command.job_id)
        if going is None or going.done():
            going = self._creating[command.job_id] = self._pool.submit(self._answer_create, command)
            self._creating = {job_id: each for job_id, each in self._creating.items() if not each.done()}
        return going

    def cancel(self, command: messages.CancelJob) -> "Future[messages.Message]":
        """Have the platform give a job up, after what is being done to create it."""
        return self._pool.submit(self._answer_cancel, command, self._creating.get(command.job_id))

    def _answer_create(self, command: messages.CreateJob) -> messages.Message:
        try:
            found = self._platform.find(_sought(command)) if command.again else None
            if found is None:
                found = self._platform.create(
                    JobRequest(
                        job_id=command.job_id,
                        name=command.name,
                        pipeline_id=command.pipeline_id,
                        priority=command.priority,
                        metadata=metadata.of_request(command.job_id, command.source),
                    )
                )
            killpoints.reach("submitter.request-job-created")
        except Exception as error:
            return self._refusal(error, "request_job_not_created")
        return messages.JobCreated(platform_job_id=found.platform_job_id, payload_id=found.payload_id)

    def _answer_cancel(
        self, command: messages.CancelJob, creating: "Future[messages.Message] | None"
    ) -> messages.Message:
        try:
            if creating is not None:
                creating.result()
            self._platform.cancel(_sought(command))
        except Exception as error:
            return self._refusal(error, "request_job_not_canceled")
        return messages.Done(affected=1)

    def _refusal(self, error: Exception, event: str) -> messages.Refused:
        if not isinstance(error, AdapterError):
            self._log.unexpected(event)
            return messages.Refused(reason=f"unexpected {type(error).__name__}: see the log", transient=True)
        return messages.Refused(reason=str(error), transient=not isinstance(error, RefusedError))

    # Submissions.

    def holds(self, progress: Progress) -> bool:
        """Whether a submission has to wait for its data; then it is held."""
        waits = progress.job.group_id is None and progress.state is JobState.CREATED
        if waits and progress.job_id not in self._retrieved:
            self._held[progress.job_id] = progress
            return True
        return False

    def is_held(self, job_id: str) -> bool:
        """Whether a submission waits for its data."""
        return job_id in self._held

    def forget(self, job_id: str) -> None:
        """A submission is over."""
        self._held.pop(job_id, None)
        self._retrieved.discard(job_id)

    def look(self) -> list[Retrieved]:
        """Which of the held submissions need not wait any more; they are held until `release`.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        found: list[Retrieved] = []
        held = list(self._held)
        for start in range(0, len(held), PAGE_ROWS):
            page = held[start : start + PAGE_ROWS]
            query = InferenceRequest.select(
                InferenceRequest.job_id, InferenceRequest.state, InferenceRequest.message, InferenceRequest.updated_ns
            ).where(InferenceRequest.job_id.in_(page))
            for job_id, state, message, updated_ns in tuples(query):
                if state == RequestState.COMPLETED:
                    found.append(Retrieved(job_id))
                # A person may have had it tried again since: then the retriever begins anew.
                elif state == RequestState.FAILED and updated_ns > self._held[job_id].row.updated_ns:
                    found.append(Retrieved(job_id, f"{_NOTHING}: {message}"))
        self._refresh([each.job_id for each in found])
        return found

    def release(self, job_id: str) -> Progress:
        """Let a held submission go."""
        self._retrieved.add(job_id)
        return self._held.pop(job_id)

    def _refresh(self, job_ids: Collection[str]) -> None:
        """How many instances there are is known only now."""
        for start in range(0, len(job_ids), PAGE_ROWS):
            page = list(job_ids)[start : start + PAGE_ROWS]
            for job_id, instances in tuples(Job.select(Job.job_id, Job.instances).where(Job.job_id.in_(page))):
                self._held[job_id].job.instances = instances


def _sought(command: messages.CreateJob | messages.CancelJob) -> Sought:
    """How to find the job; when its creation was tried last is not known, so it is as late as can be."""
    return Sought(
        job_id=command.job_id,
        pipeline_id=command.pipeline_id,
        created_ns=command.requested_ns,
        tried_ns=time.time_ns(),
    )
