"""What the submitter needs of a platform: the interface that every kind of platform implements.

All methods are called in worker threads, several at once, and each of them returns or raises within a bounded time. A
job is known by its own UUID on both sides; after an unknown outcome `find` tells what the platform has.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import msgspec

from protocol.errors import AdapterError


class StepInterruptedError(AdapterError):
    """This process is about to end: the step is done again by the next one, and this was no failure."""


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
    when it never will, `StorageError` when files on this machine are the trouble, and `StepInterruptedError`.
    """

    unfinished_states: ClassVar[tuple[str, ...]]
    """Words for the states of started jobs that are not final; the first one is a job's that was just started."""

    @abstractmethod
    def find(self, job_id: str) -> PlatformJob | None:
        """Look a job up by our UUID; None when the platform answers that it has none."""

    @abstractmethod
    def create(self, request: JobRequest) -> PlatformJob:
        """Create a job."""

    @abstractmethod
    def add_metadata(self, job: PlatformJob, metadata: Mapping[str, str]) -> None:
        """Add metadata, of which the platform has none yet."""

    @abstractmethod
    def upload(self, job: PlatformJob, files: Sequence[PayloadFile]) -> None:
        """Bring files into the payload; they are there durably when this returns. It may be repeated."""

    @abstractmethod
    def start(self, job: PlatformJob) -> None:
        """Start a job whose payload is complete."""

    @abstractmethod
    def cancel(self, job_id: str) -> None:
        """Let the platform give a job up, if it has it and it is not over."""

    @abstractmethod
    def states(self, job_ids: Collection[str]) -> dict[str, PlatformState]:
        """States of started jobs; what the platform does not know is left out."""
