"""The rows of runs, and where each one's directory is. This actor owns both."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peewee as pw

from actors.platform.attempt import Attempt
from actors.platform.leftovers import remove_tree
from protocol import killpoints, messages
from protocol.availability import Availability
from protocol.errors import RefusedError
from protocol.ledger import PAGE_ROWS, Job, Ledger, Pipeline, Result, Run, pages, row_where, tuples
from protocol.ledger.choice import is_chosen
from protocol.ledger.results import awaits_export, with_files
from protocol.ledger.runs import keeps_input, may_read_input
from protocol.spool import DIRECTORY_MODE, Spool, sync_directory
from protocol.states import RUN_UNDER_WAY, RunState, advance

_NAMESPACE = uuid.UUID("7a3b1f64-9f57-4d2e-8a52-2f2f1f0f6a11")
_SYNCS_AT_ONCE = 8
_BEFORE_A_TRY = {"error": "", "exit_code": None, "last_output": "", "started_ns": None, "ended_ns": None}


class Runs:
    """All runs. Every method may raise what peewee raises; then nothing has changed in memory.

    Args:
        ledger: the ledger.
        availability: told of every commit.
        spool: where payloads are.
    """

    def __init__(self, ledger: Ledger, availability: Availability, spool: Spool) -> None:
        self._ledger = ledger
        self._availability = availability
        self._spool = spool
        self._syncing = ThreadPoolExecutor(_SYNCS_AT_ONCE, thread_name_prefix="sync")

    def of_job(self, job_id: str) -> Run | None:
        """The run of a job."""
        return row_where(Run, "job_id", job_id)

    def get(self, run_id: str) -> Run:
        """A run.

        Raises:
            RefusedError: there is none.
        """
        run = row_where(Run, "run_id", run_id)
        if run is None:
            raise RefusedError(f"there is no run {run_id}: the job has to be created first")
        return run

    def of_state(self, state: RunState) -> Iterator[Run]:
        """The runs of a state."""
        for page in pages(Run.select().where(Run.state == state), Run.run_id):
            yield from page

    def make_directories(self, job_ids: Sequence[str]) -> None:
        """Make the directories of new runs, under names that follow from the jobs', so that a repeat finds them.

        Raises:
            OSError: there is no room for a directory.
        """
        homes = [self.home(_ids(job_id)[1]) for job_id in job_ids]
        for home in homes:
            for directory in (home, home / "payload"):
                directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        if homes:
            # The disk takes many syncs at once in the time of two.
            list(self._syncing.map(sync_directory, [self._spool.platform, *homes]))
            killpoints.reach("platform.directories-made")

    def create(self, command: messages.CreateRun) -> Run:
        """Make a run, whose directories there are."""
        run_id, payload_id = _ids(command.job_id)
        pipeline = row_where(Pipeline, "pipeline_id", command.pipeline_id)
        with self._commit():
            run: Run = Run.create(
                run_id=run_id,
                job_id=command.job_id,
                payload_id=payload_id,
                name=command.name,
                pipeline_id=command.pipeline_id,
                priority=command.priority,
                metadata=command.metadata,
                exports=pipeline.exports if pipeline is not None else [],
                created_ns=time.time_ns(),
            )
        return run

    def add_metadata(self, run: Run, metadata: Mapping[str, str]) -> None:
        """Add to what is known of a run."""
        with self._commit():
            Run.update(metadata={**run.metadata, **metadata}).where(Run.run_id == run.run_id).execute()

    def move(self, run: Run, state: RunState, **columns: Any) -> None:
        """Commit a change of state."""
        following = advance(RunState(run.state), state)
        with self._commit():
            Run.update(state=following, **columns).where(Run.run_id == run.run_id).execute()
        run.state = following

    def succeed(self, run: Run, files: Sequence[str], **columns: Any) -> None:
        """Commit that a run succeeded, and what it left for its pipeline's destinations, in one transaction."""
        following = advance(RunState(run.state), RunState.SUCCEEDED)
        pipeline = row_where(Pipeline, "pipeline_id", run.pipeline_id)
        with self._commit():
            Run.update(state=following, **columns).where(Run.run_id == run.run_id).execute()
            Result.create(
                run_id=run.run_id,
                job_id=run.job_id,
                payload_id=run.payload_id,
                pipeline_id=run.pipeline_id,
                directory=str(self.attempt(run).output),
                files=list(files),
                exports=pipeline.exports if pipeline is not None else run.exports,
                created_ns=time.time_ns(),
            )
        run.state = following

    def run_again(self, job_ids: Sequence[str], decided_ns: int) -> tuple[list[Run], list[str]]:
        """Commit that runs that failed wait for their turn again.

        Args:
            job_ids: of which jobs.
            decided_ns: wall time of the decision; a run that was queued by it, or is under way again, stays as it is.

        Returns:
            The runs that wait now; and why others do not, a sentence each.
        """
        queued: list[Run] = []
        refusals: list[str] = []
        with self._commit():
            for job_id in job_ids:
                run = self.of_job(job_id)
                if run is None:
                    refusals.append("the platform does not know the job any more: have the study sent again")
                elif run.queued_ns == decided_ns or (run.keeps_input and run.state in RUN_UNDER_WAY):
                    continue
                elif run.state != RunState.FAILED:
                    refusals.append(f"the run is {run.state}: only a Failed one can be run again")
                elif not (run.keeps_input and self.payload(run.payload_id).exists()):
                    refusals.append("the run's input is not kept any more: have the study sent again")
                else:
                    run.queued_ns = decided_ns
                    self.move(run, RunState.PENDING, queued_ns=decided_ns, **_BEFORE_A_TRY)
                    queued.append(run)
        return queued, refusals

    def kept_inputs(self) -> int:
        """How many runs keep their input, to be run again."""
        return int(Run.select().where(keeps_input()).count())

    def give_up_inputs(self, ended_before_ns: int | None, most: int) -> list[str]:
        """Commit that runs that failed cannot be run again; returns their payloads, which may be removed then.

        Args:
            ended_before_ns: only those that ended before this, in ns of the wall clock; None is all that have ended,
                also those that ended later than it is now, since the clock was set back. The oldest first.
            most: how many.
        """
        is_over = Run.ended_ns.is_null(False) if ended_before_ns is None else Run.ended_ns < ended_before_ns
        query = Run.select(Run.run_id, Run.payload_id).where(keeps_input() & is_over)
        found = list(tuples(query.order_by(Run.ended_ns).limit(most)))
        if found:
            with self._commit():
                Run.update(keeps_input=False).where(Run.run_id.in_([run_id for run_id, _ in found])).execute()
        return [payload_id for _, payload_id in found]

    def discard_inputs(self, command: messages.JobsChosen) -> list[str]:
        """Commit that failed jobs cannot be run again; returns their payloads, which may be removed then."""
        query = Run.select(Run.run_id, Run.payload_id).where(keeps_input() & (Run.state == RunState.FAILED))
        found = list(tuples(query.where(_is_of(Run, command))))
        with self._commit():
            for start in range(0, len(found), PAGE_ROWS):
                some = [run_id for run_id, _ in found[start : start + PAGE_ROWS]]
                Run.update(keeps_input=False).where(Run.run_id.in_(some)).execute()
        return [payload_id for _, payload_id in found]

    def discardable(self, command: messages.JobsChosen) -> list[str]:
        """IDs of the runs of some jobs that have left something for which no export waits; read in any thread."""
        has_left_some = pw.fn.EXISTS(
            Run.select(pw.SQL("1")).where((Run.run_id == Result.run_id) & (Run.kept_bytes > 0))
        )
        kept = ~Result.discarded & (with_files() | has_left_some) & ~awaits_export()
        query = Result.select(Result.run_id).where(kept & _is_of(Result, command))
        return [row.run_id for page in pages(query, Result.run_id) for row in page]

    def discard_results(self, run_ids: Sequence[str]) -> int:
        """Commit that nobody needs the results of a page of runs, but for which exports wait; returns how many."""
        wanted = Result.run_id.in_(run_ids) & ~Result.discarded & ~awaits_export()
        with self._commit():
            return int(Result.update(discarded=True).where(wanted).execute())

    def forget_result(self, run_id: str) -> None:
        """What a run has left is deleted."""
        with self._commit():
            Run.update(kept_bytes=0).where(Run.run_id == run_id).execute()
            Result.delete().where(Result.run_id == run_id).execute()

    def describe(self, run: Run) -> messages.RunCreated:
        """What the submitter is told of a run."""
        return messages.RunCreated(
            run_id=run.run_id,
            payload_id=run.payload_id,
            payload_directory=str(self.payload(run.payload_id)),
            metadata=run.metadata,
            state=RunState(run.state),
        )

    def home(self, payload_id: str) -> Path:
        """The directory of a run."""
        return self._spool.platform / payload_id

    def payload(self, payload_id: str) -> Path:
        """Where the files are that a run reads."""
        return self.home(payload_id) / "payload"

    def attempt(self, run: Run) -> Attempt:
        """The latest try of a run."""
        return Attempt(self.home(run.payload_id), run.tries)

    def kept_bytes(self) -> int:
        """What runs that are over have left in the spool; a directory that somebody removed counts nothing."""
        homes = set(os.listdir(self._spool.platform))
        query = Run.select(Run.run_id, Run.payload_id, Run.kept_bytes).where(Run.kept_bytes > 0)
        return sum(
            run.kept_bytes for page in pages(query.namedtuples(), Run.run_id) for run in page if run.payload_id in homes
        )

    def remove_leftovers(self) -> None:
        """Remove payloads that no run can need any more, when the last process was killed before it had removed them.

        A payload without a row stays: it may come on record, or the ledger was lost. The guardian sees to those.
        """
        names = os.listdir(self._spool.platform)
        for start in range(0, len(names), PAGE_ROWS):
            query = Run.select(Run.payload_id).where(
                Run.payload_id.in_(names[start : start + PAGE_ROWS]) & ~may_read_input()
            )
            for (payload_id,) in tuples(query):
                payload = self.payload(payload_id)
                if payload.exists():
                    remove_tree(payload)

    @contextlib.contextmanager
    def _commit(self) -> Iterator[None]:
        if self._ledger.database.in_transaction():
            yield  # a batch is committed by whoever began it
            return
        with self._ledger.transaction():
            yield
        self._availability.committed()


def _is_of(table: Any, command: messages.JobsChosen) -> Any:
    """The condition that a row is of a job that a command means."""
    is_of = pw.fn.EXISTS(Job.select(pw.SQL("1")).where((Job.job_id == table.job_id) & is_chosen(command)))
    return table.job_id.in_(command.job_ids) & is_of if command.job_ids else is_of


def _ids(job_id: str) -> tuple[str, str]:
    """A run's ID and its payload's."""
    job = uuid.uuid5(_NAMESPACE, job_id)
    return str(uuid.uuid5(job, "run")), str(uuid.uuid5(job, "payload"))
