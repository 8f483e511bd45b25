"""What is needed of a platform: the interface that every kind of platform implements.

All methods are called in worker threads, several at once, and each of them returns or raises within a bounded time. A
job is known by its own UUID on both sides; after an unknown outcome `find` tells what the platform has.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import BinaryIO, ClassVar

import msgspec

from protocol.errors import AdapterError, RefusedError

JOB_ID_KEY = "DicomAdapterJobId"
"""The name of the metadata that holds a job's own UUID."""
NOTHING_KEPT = "the platform does not keep what is needed to run it again: have the study sent again"
"""Why nothing is run again, and what to do."""


class PlatformError(AdapterError):
    """The platform answered, and it was no success: a fault of its own, or nothing that could be understood."""


class StepInterruptedError(AdapterError):
    """This process is about to end: the step is done again by the next one, and this was no failure."""


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """A job to look for; the more is known, the less a platform has to search.

    Args:
        job_id: our UUID.
        platform_job_id: the platform's own identifier, once it is known.
        pipeline_id: what the job runs.
        created_ns: wall time before which it cannot have been created on the platform; 0 when not known.
        tried_ns: wall time at which its creation was tried last, without an answer that was heard; 0 for never.
    """

    job_id: str
    platform_job_id: str = ""
    pipeline_id: str = ""
    created_ns: int = 0
    tried_ns: int = 0


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A job to be created.

    Args:
        job_id: our UUID.
        name: the job's name.
        pipeline_id: what to run.
        priority: one of `protocol.priority.PRIORITIES`.
        metadata: names and values, the UUID among them; each value at most 256 bytes.
    """

    job_id: str
    name: str
    pipeline_id: str
    priority: str
    metadata: dict[str, str]


class PlatformJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the platform has it.

    Args:
        job_id: our UUID.
        platform_job_id: the platform's own identifier.
        payload_id: of the job's payload.
        payload_directory: where its files belong, for platforms on this machine.
        metadata: what the platform knows of it already.
        started: whether it was started, whatever became of it.
    """

    job_id: str
    platform_job_id: str
    payload_id: str
    payload_directory: str = ""
    metadata: dict[str, str] = {}
    started: bool = False


class PayloadFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a payload.

    Args:
        name: below the payload's root; may hold patient data.
        path: on this machine, in the spool.
    """

    name: str
    path: str


class PlatformState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job that was started.

    Args:
        name: the platform's word for it.
        final: whether it will not change any more.
    """

    name: str
    final: bool


class Platform(ABC):
    """A platform that runs jobs.

    Every method raises `UnavailableError` when the platform cannot be reached or cannot do it now, `RefusedError`
    when it never will, `PlatformError` when it failed, `StorageError` when files on this machine are the trouble, and
    `StepInterruptedError`.
    """

    follow_seconds: ClassVar[float] = 1.0
    """How often it may be asked for the states of started jobs."""

    unfinished_states: ClassVar[tuple[str, ...]]
    """Words for the states of started jobs that are not final; the first one is a job's that was just started."""

    @abstractmethod
    def find(self, sought: Sought) -> PlatformJob | None:
        """Look a job up by our UUID; None when the platform answers that it has none."""

    @abstractmethod
    def create(self, request: JobRequest) -> PlatformJob:
        """Create a job."""

    @abstractmethod
    def add_metadata(self, job: PlatformJob, metadata: Mapping[str, str]) -> None:
        """Add metadata, of which the platform has none yet."""

    @abstractmethod
    def upload(self, job: PlatformJob, files: Sequence[PayloadFile], *, again: bool) -> None:
        """Bring files into the payload; the platform has answered for each when this returns.

        Args:
            job: as created.
            files: what belongs there.
            again: whether some may be there already, whole or in part; what is whole is not brought again.
        """

    @abstractmethod
    def start(self, job: PlatformJob) -> None:
        """Start a job whose payload is complete."""

    @abstractmethod
    def cancel(self, sought: Sought) -> None:
        """Let the platform give a job up, if it has it and it is not over."""

    def rerunnable(self, job_ids: Sequence[str]) -> Sequence[str]:  # noqa: ARG002 - most platforms keep nothing
        """UUIDs of jobs that failed there and can be run again, since it keeps what they need. Asked in the loop.

        Args:
            job_ids: only these; none means all.
        """
        return ()

    def run_again(self, job_ids: Sequence[str], decided_ns: int) -> int:  # noqa: ARG002 - most platforms keep nothing
        """Run jobs again that failed there; returns how many. May be repeated.

        Args:
            job_ids: some of those that are `rerunnable`, at most a page.
            decided_ns: when a person decided so; asked again with the same, it is done once.

        Raises:
            RefusedError: none of them can be, any more.
        """
        raise RefusedError(NOTHING_KEPT)

    @abstractmethod
    def states(self, jobs: Sequence[Sought]) -> dict[str, PlatformState]:
        """States of started jobs by our UUIDs; one that was not asked for this time is left out."""

    @abstractmethod
    def download(self, payload_id: str, name: str, target: BinaryIO) -> None:
        """Write a file of a payload, as a job left it, to an open file; what was written is not synced.

        Args:
            payload_id: the platform's own identifier of the payload.
            name: of the file, below the payload's root.
            target: where its bytes go; it holds some of them when this raises.

        Raises:
            RefusedError: the payload, or a file of that name in it, is not there.
        """

    def close(self) -> None:  # noqa: B027 - not every kind holds something
        """Break off what is under way in other threads, and let go of what is held."""
