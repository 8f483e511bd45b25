"""A submission's changes of state."""

import pytest

from actors.submitter.progress import Progress
from actors.submitter.steps import STEPS
from protocol.errors import IllegalTransitionError
from protocol.ledger import Job, Submission
from protocol.states import STEP_BACK, JobState

ORDER = [
    *(JobState.QUEUED, JobState.CREATING, JobState.CREATED, JobState.METADATA_UPLOADING, JobState.METADATA_UPLOADED),
    *(JobState.PAYLOAD_UPLOADING, JobState.PAYLOAD_UPLOADED, JobState.STARTING, JobState.COMPLETED),
]


def a_job() -> Progress:
    return Progress(Job(job_id="1", name="n", priority="normal", created_ns=5))


def at(state: JobState) -> Progress:
    """A job that went the whole way up to a state."""
    progress = a_job()
    while progress.state is not state:
        if progress.state in STEPS:
            progress.begin()
        else:
            progress.succeed({})
    return progress


def test_the_way_goes_through_every_state_in_order() -> None:
    """And each is recorded with its time, for `trace`."""
    progress = at(JobState.COMPLETED)
    assert [state for state, _ in progress.row.steps] == [state.value for state in ORDER]
    times = [wall_ns for _, wall_ns in progress.row.steps]
    assert times == sorted(times)


@pytest.mark.parametrize("doing", STEP_BACK)
def test_a_failed_step_goes_back_by_one_and_is_tried_so_often(doing: JobState) -> None:
    """maxRetries tries after the first one, for each step anew."""
    progress = at(doing)
    for tries in (1, 2, 3):
        assert progress.fail("why", unreachable=False, retry_seconds=100, most_retries=3)
        assert (progress.state, progress.row.tries) == (STEP_BACK[doing], tries)
        assert progress.row.next_try_ns - progress.row.updated_ns == pytest.approx(100e9, rel=0.01)
        assert progress.begin().again
    assert not progress.fail("why", unreachable=True, retry_seconds=100, most_retries=3)
    assert progress.state is JobState.FAULTED
    assert (progress.row.last_error, progress.row.unreachable) == ("why", True)


def test_success_forgets_earlier_failures() -> None:
    progress = at(JobState.CREATING)
    progress.fail("why", unreachable=True, retry_seconds=0, most_retries=3)
    progress.begin()
    progress.succeed({"platform_job_id": "p"})
    row = progress.row
    assert (row.tries, row.last_error, row.next_try_ns, row.platform_job_id) == (0, "", 0, "p")
    assert not progress.begin().again


@pytest.mark.parametrize("doing", STEP_BACK)
def test_a_faulted_job_is_taken_up_at_the_step_that_failed(doing: JobState) -> None:
    """What was done is not done again."""
    progress = at(doing)
    progress.fail("why", unreachable=True, retry_seconds=0, most_retries=0)
    progress.take_up()
    assert (progress.state, progress.row.tries, progress.row.unreachable) == (STEP_BACK[doing], 0, False)
    assert progress.begin().again


def test_only_faulted_jobs_are_discarded_or_taken_up() -> None:
    for state in ORDER:
        with pytest.raises(IllegalTransitionError):
            at(state).discard()
    progress = at(JobState.CREATING)
    progress.fail("why", unreachable=False, retry_seconds=0, most_retries=-1)
    progress.discard()
    with pytest.raises(IllegalTransitionError):
        progress.take_up()


def test_a_job_found_under_way_may_have_had_its_effect() -> None:
    row = Submission(job_id="1", state=JobState.CREATING, steps=[], tries=0, updated_ns=0)
    progress = Progress(Job(job_id="1", name="n", priority="normal", created_ns=5), row)
    assert progress.begin().again
    assert progress.state is JobState.CREATING


def test_a_job_that_fails_for_days_does_not_grow_without_end() -> None:
    progress = at(JobState.CREATING)
    for _ in range(300):
        progress.fail("x" * 5000, unreachable=True, retry_seconds=0, most_retries=10**6)
        progress.begin()
    assert len(progress.row.steps) == 200
    assert len(progress.row.last_error) == 1000


def test_a_job_that_failed_waits_behind_those_that_did_not() -> None:
    failed, fresh = at(JobState.CREATING), a_job()
    failed.fail("why", unreachable=False, retry_seconds=0, most_retries=3)
    assert fresh.rank < failed.rank
