"""Jobs on Clara Platform: created with our UUID in their metadata, found again by it, and never adopted by likeness."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from protocol.clock import NANOSECONDS
from protocol.config import Settings
from protocol.errors import AdapterError, RefusedError, UnavailableError
from protocol.platforms.base import (
    JOB_ID_KEY,
    JobRequest,
    PayloadFile,
    Platform,
    PlatformError,
    PlatformJob,
    PlatformState,
    Sought,
)
from protocol.platforms.clara.connection import Connection, ExistsError, NotThereError, header, identifier
from protocol.platforms.clara.generated import jobs_pb2, map_of, put_map
from protocol.platforms.clara.payloads import Payloads
from protocol.states import RunState

_PRIORITIES = {
    "lower": jobs_pb2.JOB_PRIORITY_LOWER,
    "normal": jobs_pb2.JOB_PRIORITY_NORMAL,
    "higher": jobs_pb2.JOB_PRIORITY_HIGHER,
    "immediate": jobs_pb2.JOB_PRIORITY_IMMEDIATE,
}
_GONE = PlatformState(name="Unknown", final=True)
_UNDER_WAY = {jobs_pb2.JOB_STATE_PENDING: RunState.PENDING.value, jobs_pb2.JOB_STATE_RUNNING: RunState.RUNNING.value}
_ENDS = {
    jobs_pb2.JOB_STATUS_HEALTHY: RunState.SUCCEEDED.value,
    jobs_pb2.JOB_STATUS_FAULTED: RunState.FAILED.value,
    jobs_pb2.JOB_STATUS_CANCELED: RunState.CANCELED.value,
    jobs_pb2.JOB_STATUS_EVICTED: "Evicted",
    jobs_pb2.JOB_STATUS_TERMINATED: "Terminated",
}
_YEAR_ONE_SECONDS = 62_135_596_800  # from 0001-01-01, from which the platform counts, to 1970-01-01
_CLOCKS_DIFFER_SECONDS = 86_400
_STATES_AT_ONCE = 50
_LOOK_AGAIN_SECONDS = 0.5


class ClaraPlatform(Platform):
    """Talks to Clara Platform.

    Args:
        settings: the effective ones.
        stopping: set when this process is about to end.

    Raises:
        ConfigurationError: a certificate or key cannot be used.
    """

    follow_seconds = 5.0
    unfinished_states = (RunState.PENDING.value, RunState.RUNNING.value)
    late_seconds: ClassVar[float] = 10.0
    """How long after an unanswered try to create a job it may still appear."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        platform = settings.services.platform
        self._connection = Connection(platform.endpoint, platform.tls, platform.timeout_seconds, stopping)
        self._payloads = Payloads(self._connection, platform.parallel_uploads)
        self._jobs = self._connection.jobs
        self._stopping = stopping
        self._settled: set[str] = set()
        self._asked = 0

    def find(self, sought: Sought) -> PlatformJob | None:
        """Look a job up by its identifier on the platform, else by our UUID in the list of jobs.

        A try that was not answered may still be under way there: for `late_seconds` after it, looking goes on.
        """
        if sought.platform_job_id:
            return self._known(sought.job_id, self._status(sought.platform_job_id))
        wait_until = time.monotonic()
        if sought.tried_ns and sought.job_id not in self._settled:
            left = self.late_seconds - (time.time_ns() - sought.tried_ns) / NANOSECONDS
            wait_until += min(left, self.late_seconds)
        while True:
            found = self._listed(sought)
            if found is not None or time.monotonic() >= wait_until:
                return found
            self._stopping.wait(_LOOK_AGAIN_SECONDS)

    def create(self, request: JobRequest) -> PlatformJob:
        """Create a job. Metadata that must be there is given here: a name that exists cannot be added later."""
        message = jobs_pb2.JobsCreateRequest(
            header=header(),
            name=request.name,
            pipeline_id=identifier(request.pipeline_id),
            priority=_PRIORITIES[request.priority],
        )
        put_map(message.metadata, request.metadata)
        try:
            answer = self._connection.ask("create the job", self._jobs.Create, message)
        except (RefusedError, PlatformError):
            self._settled.add(request.job_id)
            raise
        except UnavailableError:
            self._settled.discard(request.job_id)
            raise
        self._settled.discard(request.job_id)
        if not _has_identifiers(answer):
            raise PlatformError("Clara Platform answered without identifiers when a job was to be created")
        return PlatformJob(
            job_id=request.job_id,
            platform_job_id=answer.job_id.value,
            payload_id=answer.payload_id.value,
            metadata=request.metadata,
        )

    def add_metadata(self, job: PlatformJob, metadata: Mapping[str, str]) -> None:
        """Add metadata, all of it or, when the platform refuses, none."""
        try:
            self._add_metadata(job.platform_job_id, metadata)
        except ExistsError:
            # What the process before this one had sent was added after it was read here.
            status = self._status(job.platform_job_id)
            known = {name.casefold() for name in map_of(status.metadata)} if status else set()
            missing = {name: value for name, value in metadata.items() if name.casefold() not in known}
            if len(missing) == len(metadata):
                raise
            if missing:
                self._add_metadata(job.platform_job_id, missing)

    def upload(self, job: PlatformJob, files: Sequence[PayloadFile], *, again: bool) -> None:
        """Upload files, several at once; again, only what is not there whole."""
        self._payloads.upload(job.payload_id, files, again=again)

    def start(self, job: PlatformJob) -> None:
        """Start a job; a platform that refuses since it was started before is no failure."""
        message = jobs_pb2.JobsStartRequest(header=header(), job_id=identifier(job.platform_job_id))
        try:
            self._connection.ask("start the job", self._jobs.Start, message)
        except (RefusedError, PlatformError):
            if not _is_started(self._status(job.platform_job_id)):
                raise

    def cancel(self, sought: Sought) -> None:
        """Give a job up, if the platform has it and it is not over."""
        found = self.find(sought)
        if found is None or not (status := self._status(found.platform_job_id)):
            return
        if status.state != jobs_pb2.JOB_STATE_STOPPED:
            self._cancel(found.platform_job_id, "discarded by a person")

    def states(self, jobs: Sequence[Sought]) -> dict[str, PlatformState]:
        """States of some of the jobs, the next ones at the next call."""
        first = self._asked % len(jobs)
        asked = [*jobs[first:], *jobs[:first]][:_STATES_AT_ONCE]
        self._asked = first + len(asked)
        found = {}
        for job in asked:
            try:
                state = _state(self._status(job.platform_job_id))
            except UnavailableError:
                raise
            except AdapterError:  # of this job alone; it is asked for again
                continue
            if state:
                found[job.job_id] = state
        return found

    def download(self, payload_id: str, name: str, target: BinaryIO) -> None:
        """Download a file of a payload."""
        self._payloads.download(payload_id, name, target)

    def close(self) -> None:
        """End all calls."""
        self._connection.close()

    def _status(self, platform_job_id: str) -> Any:
        """The platform's answer about a job; None when it has none of this identifier.

        Raises:
            PlatformError: the answer is about something else.
        """
        message = jobs_pb2.JobsStatusRequest(header=header(), job_id=identifier(platform_job_id))
        try:
            answer = self._connection.ask("tell a job's state", self._jobs.Status, message)
        except NotThereError:
            return None
        if answer.job_id.value != platform_job_id:
            raise PlatformError("Clara Platform was asked for a job's state, and answered about another or none")
        return answer

    def _known(self, job_id: str, job: Any) -> PlatformJob | None:
        """A job's status or its line in the list."""
        if job is None:
            return None
        return PlatformJob(
            job_id=job_id,
            platform_job_id=job.job_id.value,
            payload_id=job.payload_id.value,
            metadata=map_of(job.metadata),
            started=_is_started(job),
        )

    def _listed(self, sought: Sought) -> PlatformJob | None:
        """Look for our UUID in the list of jobs.

        A job that was created twice all the same, since an answer came later than anybody waits for it, was started at
        most once: the others are given up here.
        """
        message = jobs_pb2.JobsListRequest(header=header())
        if sought.pipeline_id:
            message.filter.pipeline_id.add(value=sought.pipeline_id)
        if sought.created_ns:
            since = sought.created_ns // NANOSECONDS - _CLOCKS_DIFFER_SECONDS
            message.filter.created_after.value = since + _YEAR_ONE_SECONDS
        found = []
        for answer in self._connection.stream("list its jobs", self._jobs.List, message):
            job = answer.job_details
            names = {name.casefold(): value for name, value in map_of(job.metadata).items()}
            if names.get(JOB_ID_KEY.casefold()) == sought.job_id and _has_identifiers(job):
                found.append(job)
        found.sort(key=_first_to_keep)
        for job in found[1:]:
            if not _is_started(job):
                self._cancel(job.job_id.value, "created twice")
        return self._known(sought.job_id, found[0]) if found else None

    def _add_metadata(self, platform_job_id: str, metadata: Mapping[str, str]) -> None:
        message = jobs_pb2.JobsAddMetadataRequest(header=header(), job_id=identifier(platform_job_id))
        put_map(message.metadata, metadata)
        self._connection.ask("add metadata to the job", self._jobs.AddMetadata, message, private=True)

    def _cancel(self, platform_job_id: str, reason: str) -> None:
        message = jobs_pb2.JobsCancelRequest(header=header(), job_id=identifier(platform_job_id), reason=reason)
        self._connection.ask("cancel the job", self._jobs.Cancel, message)


def _has_identifiers(job: Any) -> bool:
    """Whether an answer names a job and its payload so that they can be kept: text that every database takes."""
    return all(value and value.isprintable() for value in (job.job_id.value, job.payload_id.value))


def _first_to_keep(job: Any) -> tuple[bool, bool, int, str]:
    """The order of jobs that have the same UUID: the one to go on with is first."""
    canceled = job.status == jobs_pb2.JOB_STATUS_CANCELED
    return canceled, not _is_started(job), job.created.value, job.job_id.value


def _is_started(job: Any) -> bool:
    """Whether a job was started, as far as the platform tells; one that waits for its turn may look as before."""
    if job is None:
        return False
    return job.state in (jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_STOPPED) or job.started.value > 0


def _state(job: Any) -> PlatformState | None:
    """What became of a job, in the words of `RunState` where it has them; None for what this version does not know."""
    if job is None:
        return _GONE
    if job.state in _UNDER_WAY:
        return PlatformState(name=_UNDER_WAY[job.state], final=False)
    if job.state == jobs_pb2.JOB_STATE_STOPPED:
        return PlatformState(name=_ENDS.get(job.status, "Unknown"), final=True)
    return None
