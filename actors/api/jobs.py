"""Jobs as people and programs see them: the decision (`Job`), its way to the platform (`Submission`), and its run."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import peewee as pw
from msgspec import Meta

from actors.api.book import Book
from actors.api.entities import Entity
from actors.api.owners import Owners
from actors.api.validation import Body, known_state, text
from protocol import channels, messages
from protocol.clock import NANOSECONDS, iso
from protocol.config.kinds import Kind, Refused, as_text
from protocol.errors import NotFoundError, RefusedError
from protocol.ledger import PAGE_ROWS, Job, Result, Run, Submission, tuples
from protocol.ledger.results import awaits_export, with_files
from protocol.states import PLATFORM_STATES, RUN_UNDER_WAY, JobState, RunState

_ENDED = (RunState.SUCCEEDED, RunState.FAILED)  # of which something may be kept
_FIRST_YEAR, _LAST_YEAR = 1971, 2261  # whose moments are positive and fit into 64 bits of nanoseconds


class JobSummary(Entity, frozen=True, kw_only=True):
    """A job in a list. A job that the submitter has not taken over yet is Queued."""

    job_id: Annotated[str, Meta(examples=["5f2b6c1e-63c5-4a55-93c0-0d4c2ad0c4a1"])]
    payload_id: str
    job_name: Annotated[str, Meta(examples=["covidaet-covid-20240131121500"])]
    pipeline_id: str
    ae_title: Annotated[str, Meta(examples=["COVIDAET"])]
    state: Annotated[str, Meta(examples=["Completed"])]
    platform_state: Annotated[str, Meta(description="What became of it on the platform.", examples=["Succeeded"])]
    priority: Annotated[str, Meta(examples=["normal"])]
    source: Annotated[str, Meta(examples=["COVIDAET (AeTitle)"])]
    instances: Annotated[int, Meta(examples=[400])]
    tries: Annotated[int, Meta(description="Failures of the step under way.", examples=[0])]
    last_error: str
    created: Annotated[str, Meta(examples=["2024-01-31T12:15:00.000Z"])]
    updated: Annotated[str, Meta(examples=["2024-01-31T12:15:03.000Z"])]


class Step(Entity, frozen=True, kw_only=True):
    """When a job took a state."""

    state: str
    time: str


class RunDetail(Entity, frozen=True, kw_only=True):
    """What the embedded platform knows of a job."""

    run_id: str
    state: str
    tries: int
    exit_code: int | None
    error: str
    last_output: str
    created: str
    started: str | None
    ended: str | None
    keeps_input: Annotated[bool, Meta(description="It failed, and can be run again.")]
    keeps_results: Annotated[bool, Meta(description="What it has made is in the storage still.")]


class JobDetail(JobSummary, frozen=True, kw_only=True):
    """A job with its steps and its run."""

    platform_job_id: str
    steps: tuple[Step, ...]
    run: RunDetail | None


class Affected(Entity, frozen=True, kw_only=True):
    """How many rows a command changed."""

    affected: Annotated[int, Meta(examples=[1])]


class Jobs:
    """Lists jobs, and passes a person's decisions on to the submitter, or to the embedded platform.

    Args:
        book: the ledger.
        owners: both among them.
    """

    def __init__(self, book: Book, owners: Owners) -> None:
        self._book = book
        self._owners = owners

    def select(
        self, limit: int, offset: int, *, state: str, platform_state: str, ae_title: str, pipeline_id: str
    ) -> list[JobSummary]:
        """Jobs, the newest first. An empty text does not restrict.

        Raises:
            InvalidError: there is no such state.
        """
        query = _joined()
        if state:
            wanted = known_state("state", state, JobState)
            condition = Submission.state == wanted
            query = query.where(condition | Submission.state.is_null() if wanted == JobState.QUEUED else condition)
        if platform_state:
            wanted = known_state("platformState", platform_state, PLATFORM_STATES)
            query = query.where(Submission.platform_state == wanted)
        if ae_title:
            query = query.where(Job.ae_title == ae_title)
        if pipeline_id:
            query = query.where(pw.fn.LOWER(Job.pipeline_id) == pipeline_id.lower())
        query = query.order_by(Job.created_ns.desc(), Job.job_id).limit(min(limit, PAGE_ROWS)).offset(offset)
        with self._book.use():
            return [_summary(row) for row in list(query)]

    def one(self, job_id: str) -> JobDetail:
        """A job with all that is known of it.

        Raises:
            NotFoundError: there is none.
        """
        with self._book.use():
            row = _joined().where(Job.job_id == job_id.lower()).first()
            if row is None:
                raise NotFoundError(f"there is no job {job_id!r}: see /api/jobs for those there are")
            run = Run.get_or_none(Run.job_id == row.job_id)
            keeps_results = (
                run is not None and Result.select().where((Result.run_id == run.run_id) & with_files()).exists()
            )
        submission = getattr(row, "submission", None)
        return JobDetail(
            **msgspec.structs.asdict(_summary(row)),
            platform_job_id=submission.platform_job_id if submission else "",
            steps=steps_of(submission),
            run=_run(run, keeps_results=keeps_results) if run else None,
        )

    def retry(self, job_id: str) -> int:
        """Submit a faulted job again, or have one that failed on the platform run again there.

        Raises:
            NotFoundError, RefusedError, UnavailableError: it is not known, did not fail, or nobody answers.
        """
        job = self.one(job_id)
        if job.state == JobState.COMPLETED and job.platform_state in RUN_UNDER_WAY:
            raise RefusedError(f"the job is on the platform, and {job.platform_state}: wait until it has ended")
        failed = job.platform_state == RunState.FAILED
        return self._decide(job_id, messages.RetryJobs(job_ids=(job_id.lower(),), failed=failed))

    def discard(self, job_id: str) -> int:
        """Give a faulted job up, or what an ended one has left on the embedded platform; raises as `retry`."""
        job = self.one(job_id)
        if job.state == JobState.FAULTED or job.run is None or job.run.state not in _ENDED:
            return self._decide(job_id, messages.DiscardJobs(job_ids=(job_id.lower(),)))
        command = messages.DiscardRuns(state=RunState(job.run.state), job_ids=(job_id.lower(),))
        affected = self._owners.ask(channels.PLATFORM_COMMANDS, command)
        if not affected:
            raise RefusedError(self._why_not_discarded(job.run.run_id))
        return affected

    def _why_not_discarded(self, run_id: str) -> str:
        with self._book.use():
            found = tuples(Result.select(Result.discarded, awaits_export()).where(Result.run_id == run_id))
        for discarded, awaited in found:
            if discarded:
                return "it was discarded already: it is deleted within minutes, if no export waits for it"
            if awaited:
                words = "an export waits for the job's results, or failed: retry or cancel it first"
                return f"{words} (dicom-adapter exports list)"
        return "the job has ended, and nothing is kept of it"

    def retry_all(self, body: bytes) -> int:
        """Submit all faulted jobs of a filter again, or have all that failed on the platform run again.

        Raises:
            InvalidError, RefusedError, UnavailableError: the filter is not valid; or nobody answers.
        """
        which = Body(body)
        failed = which.read("platformState", _run_state("be run again", RunState.FAILED), None) is not None
        return self._owners.ask(channels.SUBMITTER_COMMANDS, messages.RetryJobs(**_filter(which), failed=failed))

    def discard_all(self, body: bytes) -> int:
        """Give all faulted jobs of a filter up, or what all that ended have left; raises as `retry_all`."""
        which = Body(body)
        state = which.read("platformState", _run_state("be discarded", *_ENDED), None)
        if state is None:
            return self._owners.ask(channels.SUBMITTER_COMMANDS, messages.DiscardJobs(**_filter(which)))
        return self._owners.ask(channels.PLATFORM_COMMANDS, messages.DiscardRuns(**_filter(which), state=state))

    def _decide(self, job_id: str, command: messages.RetryJobs | messages.DiscardJobs) -> int:
        job = self.one(job_id)
        affected = self._owners.ask(channels.SUBMITTER_COMMANDS, command)
        if not affected:
            may_be = "a Faulted one, or one whose pipeline Failed, can be retried"
            if isinstance(command, messages.DiscardJobs):
                may_be = "a Faulted one, or one that Succeeded or Failed on the embedded platform, can be discarded"
            found = f"{job.state}, and {job.platform_state} there" if job.platform_state else job.state
            raise RefusedError(f"the job is {found}: only {may_be}")
        return affected


def steps_of(submission: Submission | None) -> tuple[Step, ...]:
    """The states that a job took, with their times."""
    taken: Sequence[Sequence[Any]] = submission.steps if submission else ()
    return tuple(Step(state=state, time=iso(at)) for state, at in taken)


def _joined() -> Any:
    return Job.select(Job, Submission).join(
        Submission, pw.JOIN.LEFT_OUTER, on=(Job.job_id == Submission.job_id), attr="submission"
    )


def _summary(row: Any) -> JobSummary:
    submission = getattr(row, "submission", None)
    return JobSummary(
        job_id=row.job_id,
        payload_id=submission.payload_id if submission else "",
        job_name=row.name,
        pipeline_id=row.pipeline_id,
        ae_title=row.ae_title,
        state=submission.state if submission else JobState.QUEUED,
        platform_state=submission.platform_state if submission else "",
        priority=row.priority,
        source=row.source,
        instances=row.instances,
        tries=submission.tries if submission else 0,
        last_error=submission.last_error if submission else "",
        created=iso(row.created_ns),
        updated=iso(submission.updated_ns if submission else row.created_ns),
    )


def _run(run: Run, *, keeps_results: bool) -> RunDetail:
    return RunDetail(
        run_id=run.run_id,
        state=run.state,
        tries=run.tries,
        exit_code=run.exit_code,
        error=run.error,
        last_output=run.last_output,
        created=iso(run.created_ns),
        started=None if run.started_ns is None else iso(run.started_ns),
        ended=None if run.ended_ns is None else iso(run.ended_ns),
        keeps_input=run.keeps_input,
        keeps_results=keeps_results,
    )


def _filter(body: Body) -> dict[str, Any]:
    """A filter of jobs; a field that is not known is an error, since ignoring it would affect more than was meant."""
    found = {
        "ae_title": body.read("aeTitle", text(16, "an AE title"), ""),
        "pipeline_id": body.read("pipelineId", text(64, "an ID"), ""),
        "since_ns": body.read("since", _moment(), 0),
        "until_ns": body.read("until", _moment(), 0),
    }
    body.refuse_unknown()
    body.refuse_null()
    body.done()
    return found


def _run_state(what: str, *states: RunState) -> Kind:
    """The kind of a state of runs on the embedded platform.

    Args:
        what: that is done to jobs of these states.
        states: that may be given.
    """

    def parse(value: object) -> RunState:
        given = as_text(value).casefold()
        for state in states:
            if state.casefold() == given:
                return state
        raise Refused(f"cannot {what}")

    return Kind(f"{', '.join(states)}, or nothing for jobs that faulted before they were started", parse)


def _moment() -> Kind:
    """The kind of moments: ISO 8601; without an offset it is UTC, as all times that this system tells."""

    def parse(value: object) -> int:
        try:
            moment = datetime.fromisoformat(as_text(value))
        except ValueError:
            raise Refused("is no time") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        # In whole microseconds, since a float of seconds does not hold them.
        since_1970 = moment - datetime(1970, 1, 1, tzinfo=UTC)
        if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            raise Refused("is out of range")
        return (since_1970.days * 86_400 + since_1970.seconds) * NANOSECONDS + since_1970.microseconds * 1000

    return Kind(f"a time such as 2024-01-31T12:00:00Z, from {_FIRST_YEAR} to {_LAST_YEAR}", parse)
