"""The steps of a job's way to the platform, one function each; every one may be repeated after an unknown outcome.

They run in worker threads. A step that may have had an effect already (`again`) looks up by the job's UUID what the
platform has, before it does anything.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from actors.submitter import metadata, payload
from protocol import killpoints
from protocol.config import settings
from protocol.errors import RefusedError
from protocol.ledger import Job
from protocol.platforms.base import JobRequest, Platform, PlatformJob, Sought
from protocol.spool import Spool
from protocol.states import JobState


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A step to be done.

    Args:
        job: the decision.
        doing: the state that the job is in meanwhile.
        platform_job_id, payload_id, payload_directory: as known from its creation.
        uploaded: files known to be on the platform.
        again: whether the step may have been done, or begun, before.
        tried_ns: wall time at which it was begun before.
    """

    job: Job
    doing: JobState
    platform_job_id: str
    payload_id: str
    payload_directory: str
    uploaded: int
    again: bool
    tried_ns: int = 0

    def sought(self) -> Sought:
        """How to find the job on the platform."""
        return Sought(
            job_id=self.job.job_id,
            platform_job_id=self.platform_job_id,
            pipeline_id=self.job.pipeline_id,
            created_ns=self.job.created_ns,
            tried_ns=self.tried_ns,
        )

    def platform_job(self) -> PlatformJob:
        """What is known of the job on the platform."""
        return PlatformJob(
            job_id=self.job.job_id,
            platform_job_id=self.platform_job_id,
            payload_id=self.payload_id,
            payload_directory=self.payload_directory,
        )


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What steps work with.

    Args:
        platform: where jobs go.
        spool: where files are.
        settings: of the platform.
        uploaded: told how many files of a job are there, while more follow.
    """

    platform: Platform
    spool: Spool
    settings: settings.Platform
    uploaded: Callable[[str, int], None]


Columns = Mapping[str, Any]
"""What a step found out, for the submission's row."""


def create(around: Surroundings, task: Task) -> Columns:
    """Create the job, unless it was created by a try whose answer was lost."""
    job = task.job
    found = around.platform.find(task.sought()) if task.again else None
    if found is None:
        found = around.platform.create(
            JobRequest(
                job_id=job.job_id,
                name=job.name,
                pipeline_id=job.pipeline_id,
                priority=job.priority,
                metadata=metadata.of_job(job),
            )
        )
        killpoints.reach("submitter.created")
    return {
        "platform_job_id": found.platform_job_id,
        "payload_id": found.payload_id,
        "payload_directory": found.payload_directory,
    }


def is_needless(task: Task, platform: settings.Platform) -> bool:
    """Whether a step would do nothing: a job has its metadata since its creation, unless more is configured."""
    return task.doing is JobState.METADATA_UPLOADING and task.job.group_id is not None and not platform.upload_metadata


def add_metadata(around: Surroundings, task: Task) -> Columns:
    """Add the configured tags; a platform may refuse a name that it has, so only what is missing is sent."""
    job = task.job
    wanted = {"Instances": str(job.instances)} if job.group_id is None else {}
    if around.settings.upload_metadata:
        wanted |= metadata.of_instances(job, around.settings.metadata_dicom_source)
    if task.again:
        known = _found(around, task).metadata
        wanted = {name: value for name, value in wanted.items() if name not in known}
    if wanted:
        around.platform.add_metadata(task.platform_job(), wanted)
        killpoints.reach("submitter.metadata-added")
    return {}


def upload(around: Surroundings, task: Task) -> Columns:
    """Bring the files to the platform, page by page, leaving out what is known to be there."""
    count = 0
    for page in payload.files(task.job, around.spool):
        if count > task.uploaded:
            around.uploaded(task.job.job_id, count)
        missing = page[max(0, task.uploaded - count) :]
        count += len(page)
        if missing:
            around.platform.upload(task.platform_job(), missing, again=task.again)
    killpoints.reach("submitter.uploaded")
    return {"uploaded": count}


def start(around: Surroundings, task: Task) -> Columns:
    """Start the job, unless it was started by a try whose answer was lost."""
    if not (task.again and _found(around, task).started):
        around.platform.start(task.platform_job())
        killpoints.reach("submitter.started")
    return {"platform_state": around.platform.unfinished_states[0]}


def _found(around: Surroundings, task: Task) -> PlatformJob:
    found = around.platform.find(task.sought())
    if found is None:
        raise RefusedError("the platform does not know the job any more: discard it, and send the study again")
    return found


class Step(msgspec.Struct, frozen=True):
    """One line of the way: the state meanwhile, the state afterwards, and what is done."""

    doing: JobState
    done: JobState
    perform: Callable[[Surroundings, Task], Columns]


STEPS: dict[JobState, Step] = {
    JobState.QUEUED: Step(JobState.CREATING, JobState.CREATED, create),
    JobState.CREATED: Step(JobState.METADATA_UPLOADING, JobState.METADATA_UPLOADED, add_metadata),
    JobState.METADATA_UPLOADED: Step(JobState.PAYLOAD_UPLOADING, JobState.PAYLOAD_UPLOADED, upload),
    JobState.PAYLOAD_UPLOADED: Step(JobState.STARTING, JobState.COMPLETED, start),
}
"""From each settled state, the step that follows."""

UNDER_WAY: dict[JobState, Step] = {step.doing: step for step in STEPS.values()}
"""From each state under way, its step."""
