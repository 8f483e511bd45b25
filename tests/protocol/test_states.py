"""Life cycles: every pair of states is either in the table or refused."""

import itertools

import pytest

from protocol.errors import IllegalTransitionError
from protocol.states import (
    STEP_BACK,
    DeliveryState,
    GroupState,
    InstanceState,
    JobState,
    RequestState,
    RunState,
    TaskState,
    advance,
    is_final,
)

LEGAL = {
    ("Queued", "Creating"), ("Queued", "Faulted"),
    ("Creating", "Created"), ("Creating", "Queued"), ("Creating", "Faulted"),
    ("Created", "MetadataUploading"), ("Created", "Faulted"),
    ("MetadataUploading", "MetadataUploaded"), ("MetadataUploading", "Created"), ("MetadataUploading", "Faulted"),
    ("MetadataUploaded", "PayloadUploading"), ("MetadataUploaded", "Faulted"),
    ("PayloadUploading", "PayloadUploaded"), ("PayloadUploading", "MetadataUploaded"), ("PayloadUploading", "Faulted"),
    ("PayloadUploaded", "Starting"), ("PayloadUploaded", "Faulted"),
    ("Starting", "Completed"), ("Starting", "PayloadUploaded"), ("Starting", "Faulted"),
    ("Faulted", "Queued"), ("Faulted", "Created"), ("Faulted", "MetadataUploaded"), ("Faulted", "PayloadUploaded"),
    ("Faulted", "Discarded"),
}  # fmt: skip


@pytest.mark.parametrize(("current", "following"), list(itertools.product(JobState, JobState)))
def test_a_job_changes_only_as_the_design_says(current: JobState, following: JobState) -> None:
    if (str(current), str(following)) in LEGAL:
        assert advance(current, following) is following
    else:
        with pytest.raises(IllegalTransitionError, match=str(current)):
            advance(current, following)


def test_a_failed_step_goes_back_one_state_from_which_it_is_entered_again() -> None:
    for step, before in STEP_BACK.items():
        assert advance(step, before) is before
        assert advance(before, step) is step


KINDS = (InstanceState, GroupState, JobState, RunState, TaskState, DeliveryState, RequestState)


@pytest.mark.parametrize("kind", KINDS)
def test_every_life_cycle_ends_somewhere_and_no_state_is_followed_by_itself(kind: type) -> None:
    assert any(is_final(state) for state in kind)
    for state in kind:
        with pytest.raises(IllegalTransitionError):
            advance(state, state)
