"""Life cycles: one transition table per kind of row; every change of a state goes through `advance`."""

from enum import StrEnum
from typing import TypeVar

from protocol.errors import IllegalTransitionError


class InstanceState(StrEnum):
    """An instance on record."""

    GROUPED = "Grouped"  # member of its group, and so of the group's jobs
    SUPERSEDED = "Superseded"  # the same SOP Instance stands in the group with other bytes, by policy
    REPEATED = "Repeated"  # byte for byte what its group already holds
    QUARANTINED = "Quarantined"  # could not be described; kept until a person decides
    DISCARDED = "Discarded"  # a person's decision


class GroupState(StrEnum):
    """A group of instances under one AE title."""

    OPEN = "Open"
    CLOSED = "Closed"  # its jobs are decided
    RECLAIMED = "Reclaimed"  # its files are gone from the spool


class JobState(StrEnum):
    """A job's submission. Completed means: started on the platform."""

    QUEUED = "Queued"
    CREATING = "Creating"
    CREATED = "Created"
    METADATA_UPLOADING = "MetadataUploading"
    METADATA_UPLOADED = "MetadataUploaded"
    PAYLOAD_UPLOADING = "PayloadUploading"
    PAYLOAD_UPLOADED = "PayloadUploaded"
    STARTING = "Starting"
    COMPLETED = "Completed"
    FAULTED = "Faulted"
    DISCARDED = "Discarded"


class RunState(StrEnum):
    """A job on the embedded platform."""

    CREATED = "Created"
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


RUN_UNDER_WAY = (RunState.CREATED, RunState.PENDING, RunState.RUNNING)
"""A run that is not over; a Failed one becomes Pending when a person has it run again."""

PLATFORM_STATES = (*RunState, "Evicted", "Terminated", "Unknown")
"""What a job's `platformState` may say: those of the embedded platform's runs, and what only Clara Platform has."""


class TaskState(StrEnum):
    """An export task, as the Results Service names its states; a person may cancel one."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELED = "Canceled"


class DeliveryState(StrEnum):
    """One file on its way to one destination."""

    PENDING = "Pending"  # to be sent, for the first time or again
    DELIVERED = "Delivered"  # the destination has acknowledged it
    REFUSED = "Refused"  # it would never be taken


class RequestState(StrEnum):
    """An inference request's retrieval, as `/api/inference/status` names it."""

    OFFERED = "Offered"  # its job is being created on the platform; nobody outside knows of it yet
    QUEUED = "Queued"
    IN_PROCESS = "InProcess"
    COMPLETED = "Completed"
    FAILED = "Failed"  # told as Completed, with status Fail: nothing was retrieved


State = TypeVar("State", InstanceState, GroupState, JobState, RunState, TaskState, DeliveryState, RequestState)

_I, _G, _J, _R = InstanceState, GroupState, JobState, RunState
_T, _D, _Q = TaskState, DeliveryState, RequestState

# Where a step that failed goes back to, to be tried again (design: one state back).
STEP_BACK: dict[JobState, JobState] = {
    _J.CREATING: _J.QUEUED,
    _J.METADATA_UPLOADING: _J.CREATED,
    _J.PAYLOAD_UPLOADING: _J.METADATA_UPLOADED,
    _J.STARTING: _J.PAYLOAD_UPLOADED,
}

# One table a kind: members of different kinds may have equal names, and would be equal keys.
_TRANSITIONS: dict[type[StrEnum], dict[StrEnum, frozenset[StrEnum]]] = {
    _I: {
        _I.GROUPED: frozenset({_I.SUPERSEDED}),
        _I.SUPERSEDED: frozenset(),
        _I.REPEATED: frozenset(),
        _I.QUARANTINED: frozenset({_I.GROUPED, _I.SUPERSEDED, _I.REPEATED, _I.DISCARDED}),
        _I.DISCARDED: frozenset(),
    },
    _G: {
        _G.OPEN: frozenset({_G.CLOSED}),
        _G.CLOSED: frozenset({_G.RECLAIMED}),
        _G.RECLAIMED: frozenset(),
    },
    _J: {
        _J.QUEUED: frozenset({_J.CREATING, _J.FAULTED}),
        _J.CREATING: frozenset({_J.CREATED, _J.QUEUED, _J.FAULTED}),
        _J.CREATED: frozenset({_J.METADATA_UPLOADING, _J.FAULTED}),
        _J.METADATA_UPLOADING: frozenset({_J.METADATA_UPLOADED, _J.CREATED, _J.FAULTED}),
        _J.METADATA_UPLOADED: frozenset({_J.PAYLOAD_UPLOADING, _J.FAULTED}),
        _J.PAYLOAD_UPLOADING: frozenset({_J.PAYLOAD_UPLOADED, _J.METADATA_UPLOADED, _J.FAULTED}),
        _J.PAYLOAD_UPLOADED: frozenset({_J.STARTING, _J.FAULTED}),
        _J.STARTING: frozenset({_J.COMPLETED, _J.PAYLOAD_UPLOADED, _J.FAULTED}),
        _J.COMPLETED: frozenset(),
        _J.FAULTED: frozenset({_J.QUEUED, _J.CREATED, _J.METADATA_UPLOADED, _J.PAYLOAD_UPLOADED, _J.DISCARDED}),
        _J.DISCARDED: frozenset(),
    },
    _R: {
        _R.CREATED: frozenset({_R.PENDING, _R.CANCELED}),
        _R.PENDING: frozenset({_R.RUNNING, _R.FAILED, _R.CANCELED}),
        _R.RUNNING: frozenset({_R.SUCCEEDED, _R.FAILED, _R.CANCELED, _R.PENDING}),
        _R.SUCCEEDED: frozenset(),
        _R.FAILED: frozenset({_R.PENDING}),  # a person has it run again
        _R.CANCELED: frozenset(),
    },
    _T: {
        _T.PENDING: frozenset({_T.IN_PROGRESS, _T.CANCELED}),
        _T.IN_PROGRESS: frozenset({_T.PENDING, _T.SUCCEEDED, _T.FAILED, _T.CANCELED}),
        _T.SUCCEEDED: frozenset(),
        _T.FAILED: frozenset({_T.PENDING, _T.CANCELED}),  # a person tries it again, or gives it up
        _T.CANCELED: frozenset(),
    },
    _D: {
        _D.PENDING: frozenset({_D.DELIVERED, _D.REFUSED}),
        _D.DELIVERED: frozenset(),
        _D.REFUSED: frozenset({_D.PENDING}),  # a person tries it again
    },
    _Q: {
        _Q.OFFERED: frozenset({_Q.QUEUED}),
        _Q.QUEUED: frozenset({_Q.IN_PROCESS}),
        _Q.IN_PROCESS: frozenset({_Q.QUEUED, _Q.COMPLETED, _Q.FAILED}),
        _Q.COMPLETED: frozenset(),
        _Q.FAILED: frozenset({_Q.QUEUED}),  # a person has its job tried again
    },
}


def advance(current: State, following: State) -> State:
    """Return `following` when the life cycle allows it after `current`.

    Raises:
        IllegalTransitionError: the table does not have this pair.
    """
    if following not in _TRANSITIONS[type(current)][current]:
        raise IllegalTransitionError(
            f"{type(current).__name__} cannot go from {current} to {following}: "
            "this is a fault of the program; please report it with the log of this process."
        )
    return following


def is_final(state: State) -> bool:
    """Whether nothing comes after this state."""
    return not _TRANSITIONS[type(state)][state]
