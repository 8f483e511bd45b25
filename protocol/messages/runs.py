"""What the submitter has the embedded platform do."""

import msgspec

from protocol.messages.base import Message
from protocol.states import RunState


class CreateRun(Message, frozen=True, kw_only=True):
    """Make a job on the embedded platform, or answer with the one that has this UUID already.

    Args:
        priority: one of `protocol.priority.PRIORITIES`.
    """

    job_id: str
    name: str
    pipeline_id: str
    priority: str
    metadata: dict[str, str]


class FindRun(Message, frozen=True, kw_only=True):
    """Look a job up by its UUID: answered `RunCreated`, or `Done` when the platform has none."""

    job_id: str


class RunCreated(Message, frozen=True, kw_only=True):
    """Answer: the platform's own identifiers, and how far the job is there.

    Args:
        payload_directory: where the payload's files belong.
        metadata: what the platform has of it.
        state: see `protocol.states.RunState`.
    """

    run_id: str
    payload_id: str
    payload_directory: str
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    state: RunState = RunState.CREATED


class AddRunMetadata(Message, frozen=True, kw_only=True):
    """Add metadata to a job that was created."""

    run_id: str
    metadata: dict[str, str]


class StartRun(Message, frozen=True, kw_only=True):
    """The payload is complete: queue the job's pipeline."""

    run_id: str


class CancelRun(Message, frozen=True, kw_only=True):
    """End a run, or take it from the queue."""

    run_id: str


class RunAgain(Message, frozen=True, kw_only=True):
    """Queue jobs whose run failed once more. May be repeated.

    Args:
        decided_ns: wall time at which a person decided so; what was queued by the same decision stays as it is.
    """

    job_ids: tuple[str, ...]
    decided_ns: int
