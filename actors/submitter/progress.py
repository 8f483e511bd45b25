"""One submission under way: its row, and each change of its state with what goes along with it.

Nothing here is committed: the submitter saves what changed, many jobs in one transaction.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import peewee as pw

from actors.submitter.steps import STEPS, UNDER_WAY, Columns, Task, is_needless
from protocol import messages
from protocol.config import settings
from protocol.ledger import PAGE_ROWS, Job, Submission, pages, tuples
from protocol.ledger.choice import is_chosen
from protocol.platforms.base import Sought
from protocol.priority import queue_rank
from protocol.states import STEP_BACK, JobState, RunState, advance

_STEPS_KEPT = 200
_ERROR_LENGTH = 1000


class Progress:
    """A job and its submission.

    Args:
        job: the decision, owned by the processor.
        row: our row; None when the job is taken over now.
    """

    def __init__(self, job: Job, row: Submission | None = None) -> None:
        self.job = job
        self._new = row is None
        self.row = row or Submission(job_id=job.job_id, state=JobState.QUEUED, steps=[], created_ns=time.time_ns())
        # A step that is found under way, or that failed, may have had its effect.
        # A request's job was created before its submission began.
        self._again = not self._new or job.group_id is None
        self._changed: dict[str, Any] = {}
        if self._new:
            self._record(JobState.QUEUED)

    @property
    def job_id(self) -> str:
        """The job's UUID."""
        return self.job.job_id

    @property
    def state(self) -> JobState:
        """Where it is."""
        return JobState(self.row.state)

    @property
    def rank(self) -> int:
        """Its place among those that wait: after a failure it is counted from then, so that others go first."""
        return queue_rank(self.job.priority, self.row.updated_ns if self.row.tries else self.job.created_ns)

    def begin(self) -> Task:
        """Enter the next step, or again the one that was under way when the last process ended."""
        doing = STEPS[self.state].doing if self.state in STEPS else self.state
        tried_ns = next((when for state, when in reversed(self.row.steps) if state == doing), 0)
        if self.state in STEPS:
            self._advance(doing)
        return Task(
            job=self.job,
            doing=self.state,
            platform_job_id=self.row.platform_job_id,
            payload_id=self.row.payload_id,
            payload_directory=self.row.payload_directory,
            uploaded=self.row.uploaded,
            again=self._again,
            tried_ns=tried_ns,
        )

    def sought(self) -> Sought:
        """How to find the job on the platform."""
        return Sought(
            job_id=self.job_id,
            platform_job_id=self.row.platform_job_id,
            pipeline_id=self.job.pipeline_id,
            created_ns=self.job.created_ns,
        )

    def succeed(self, columns: Columns) -> None:
        """The step under way is done."""
        self._advance(UNDER_WAY[self.state].done)
        self._set(tries=0, next_try_ns=0, last_error="", unreachable=False, **columns)
        self._again = False

    def fail(self, error: str, *, unreachable: bool, retry_seconds: float, most_retries: int) -> bool:
        """The step under way failed: back by one state, or Faulted when that was once too often.

        Args:
            error: a sentence for people, without patient data.
            unreachable: whether the platform could not be reached, or for want of something here not be asked.
            retry_seconds: the pause before the next try.
            most_retries: how often a step is tried again; -1 for a failure that will not go away.

        Returns:
            Whether there will be another try.
        """
        tries = self.row.tries + 1
        self._again = True
        self._set(tries=tries, last_error=error[:_ERROR_LENGTH], unreachable=unreachable)
        if tries > most_retries:
            self._advance(JobState.FAULTED)
            return False
        self._advance(STEP_BACK[self.state])
        self._set(next_try_ns=time.time_ns() + int(retry_seconds * 1e9))
        return True

    def take_up(self) -> None:
        """A faulted job goes on with the step that failed, with all its tries before it."""
        failed = (JobState(state) for state, _ in reversed(self.row.steps))
        resumed = next((STEP_BACK[state] for state in failed if state in STEP_BACK), JobState.QUEUED)
        self._advance(resumed)
        self._set(tries=0, next_try_ns=0, unreachable=False)

    def discard(self) -> None:
        """A person gives a faulted job up."""
        self._advance(JobState.DISCARDED)

    def set_uploaded(self, count: int) -> None:
        """So many files are on the platform."""
        self._set(uploaded=count)

    def save(self) -> None:
        """Write what changed; the caller commits, and calls `saved` when that has succeeded."""
        if self._new:
            self.row.save(force_insert=True)
        elif self._changed:
            Submission.update(**self._changed).where(Submission.job_id == self.job_id).execute()

    def saved(self) -> None:
        """What `save` wrote is committed."""
        self._new = False
        self._changed = {}

    def _advance(self, state: JobState) -> None:
        advance(self.state, state)
        self._record(state)

    def _record(self, state: JobState) -> None:
        """What `trace` shows; a job that is retried for days does not grow without end."""
        now = time.time_ns()
        self._set(state=state.value, steps=[*self.row.steps, [state.value, now]][-_STEPS_KEPT:], updated_ns=now)

    def _set(self, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(self.row, name, value)
        self._changed |= columns


def begin_next(progress: Progress, platform: settings.Platform) -> Task:
    """Enter the next step at which there is something to do; there always is one, the start."""
    task = progress.begin()
    while is_needless(task, platform):
        progress.succeed({})
        task = progress.begin()
    return task


def with_jobs(rows: Sequence[Submission]) -> list[Progress]:
    """Submissions with their jobs.

    Args:
        rows: at most a page.
    """
    jobs = {job.job_id: job for job in list(Job.select().where(Job.job_id.in_([row.job_id for row in rows])))}
    return [Progress(jobs[row.job_id], row) for row in rows if row.job_id in jobs]  # else it was just forgotten


def untaken(since_ns: int) -> Iterator[list[str]]:
    """IDs of jobs that have no submission, in pages.

    Args:
        since_ns: those that were created then or later, in ns of the wall clock.
    """
    query = (
        Job.select(Job.job_id)
        .join(Submission, pw.JOIN.LEFT_OUTER, on=(Submission.job_id == Job.job_id))
        .where(Submission.job_id.is_null() & (Job.created_ns >= since_ns))
        .order_by(Job.created_ns, Job.job_id)  # by `job_id` alone, SQLite would look at all jobs there ever were
        .limit(PAGE_ROWS)
    )
    for offset in itertools.count(0, PAGE_ROWS):
        page = [job_id for (job_id,) in tuples(query.offset(offset))]
        if page:
            yield page
        if len(page) < PAGE_ROWS:
            return


def faulted(command: messages.JobsChosen) -> Iterator[list[Progress]]:
    """The faulted jobs that a command means, in pages."""
    yield from _meant(command, Submission.state == JobState.FAULTED)


def failed(command: messages.RetryJobs, rerunnable: Sequence[str]) -> Iterator[list[Progress]]:
    """The jobs that a command means, that failed on the platform, and that can be run again, in pages.

    Args:
        command: which.
        rerunnable: UUIDs of the jobs that can be.
    """
    for start in range(0, len(rerunnable), PAGE_ROWS):
        among = Submission.job_id.in_(rerunnable[start : start + PAGE_ROWS])
        yield from _meant(command, among & (Submission.platform_state == RunState.FAILED))


def any_failed(command: messages.RetryJobs) -> bool:
    """Whether a command means any job that failed on the platform."""
    return any(page for page in _meant(command, Submission.platform_state == RunState.FAILED))


def _meant(command: messages.JobsChosen, state: Any) -> Iterator[list[Progress]]:
    query = Submission.select(Submission).join(Job, on=(Job.job_id == Submission.job_id))
    query = query.where(state & is_chosen(command))
    for page in pages(query, Submission.job_id):
        yield with_jobs(page)
