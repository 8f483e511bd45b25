"""The embedded platform: takes jobs from the submitter, queues them, and runs their pipelines as local commands.

What a run is stands in its row; what it does stands on disk and belongs to its shim, which outlives this actor. At
start runs that still go on are attached to, and runs whose shim is gone are concluded or put back into the queue.
"""

import contextlib
import errno
import heapq
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from actors.actor import Actor
from actors.platform.accounts import account_of
from actors.platform.attempt import Attempt, Limits, Shim, lost_tries
from actors.platform.inputs import Inputs
from actors.platform.leftovers import remove_tree
from actors.platform.verdict import Verdict, conclude
from protocol import messages
from protocol.errors import RefusedError
from protocol.ledger import Ledger, Pipeline, Run, pages
from protocol.priority import queue_rank
from protocol.spool import DIRECTORY_MODE, Spool, sync_directory
from protocol.states import RunState, advance, is_final

_GRACE_SECONDS = 5.0
_STOP_SHARE = 0.2  # of the time that the gateway's stop may take, for a pipeline to end by itself
_WORKERS = 4
_AGAIN_SECONDS = 30.0
_ATTACH_AGAIN_SECONDS = 0.05
_OUT_OF = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
_NAMESPACE = uuid.UUID("7a3b1f64-9f57-4d2e-8a52-2f2f1f0f6a11")


class ActiveRun:
    """A run that occupies a place: its input is made, it goes on, or it is being concluded.

    Args:
        row: its row.
        attempt: its try.
    """

    def __init__(self, row: Run, attempt: Attempt) -> None:
        self.row = row
        self.attempt = attempt
        self.shim: Shim | None = None


class Platform(Actor):
    """Runs pipelines."""

    kind = "platform"

    def start(self) -> None:
        """Go on where the last process was."""
        self._ledger = Ledger(self.settings.database)
        self._spool = Spool(self.settings.storage.temporary)
        self._spool.create()
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="run")
        self._input_maker = Inputs()
        self._waiting: list[tuple[int, str]] = []  # a heap of rank and run ID
        self._put_off = 0
        self._active: dict[str, ActiveRun] = {}
        self._remove_leftovers()
        for page in pages(Run.select().where(Run.state == RunState.RUNNING), Run.run_id):
            for row in page:
                self._take_over(row)
        for page in pages(Run.select().where(Run.state == RunState.PENDING), Run.run_id):
            for row in page:
                self._enqueue(row)
        self._start_waiting()

    def after_turn(self) -> None:
        """Start what has its turn."""
        self._start_waiting()

    def drain(self) -> None:
        """Leave runs alone when only this actor is restarted; end them when the gateway stops."""
        if self.gateway_stops:
            for active in self._active.values():
                if active.shim is not None:
                    active.shim.stop()
        self._finish_if_drained()

    def stop(self) -> None:
        """Let go of threads; what they were doing is done again by the next process."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._ledger.close()

    def busy_with(self) -> str:
        """How much there is."""
        waiting = len(self._waiting) + self._put_off
        return f"{len(self._active)} running, {waiting} waiting" if self._active or waiting else "idle"

    # Commands.

    def handle_create_run(self, command: messages.CreateRun) -> messages.Message:
        """Make a job, or answer with the one that there is."""
        run = Run.get_or_none(Run.job_id == command.job_id)
        if run is None:
            if Pipeline.get_or_none(Pipeline.pipeline_id == command.pipeline_id) is None:
                raise RefusedError(
                    f"the pipeline {command.pipeline_id} is not registered with the embedded platform: register it "
                    "(dicom-adapter create pipeline) or correct the AE title's pipeline settings, then retry the job"
                )
            run = self._create(command)
        return self._describe(run)

    def handle_find_run(self, command: messages.FindRun) -> messages.Message:
        """Look a job up."""
        run = Run.get_or_none(Run.job_id == command.job_id)
        return messages.Done() if run is None else self._describe(run)

    def handle_add_run_metadata(self, command: messages.AddRunMetadata) -> messages.Message:
        """Add to what is known of a job."""
        run = self._run(command.run_id)
        with self._ledger.transaction():
            Run.update(metadata={**run.metadata, **command.metadata}).where(Run.run_id == run.run_id).execute()
        return messages.Done(affected=1)

    def handle_start_run(self, command: messages.StartRun) -> messages.Message:
        """Queue a job; one that was started before stays as it is."""
        run = self._run(command.run_id)
        state = RunState(run.state)
        if state is RunState.CANCELED:
            raise RefusedError(f"the run {run.run_id} was canceled: it cannot be started any more")
        if state is not RunState.CREATED:
            return messages.Done()
        self._move(run, RunState.PENDING)
        self._enqueue(run)
        return messages.Done(affected=1)

    def handle_cancel_run(self, command: messages.CancelRun) -> messages.Message:
        """End a run, or take it from the queue."""
        run = self._run(command.run_id)
        if is_final(RunState(run.state)):
            return messages.Done()
        active = self._active.get(run.run_id)
        if active is None:
            self._move(run, RunState.CANCELED, ended_ns=time.time_ns())
            home = self._home(run.payload_id)
            self._in_thread(lambda: remove_tree(home))
        elif active.shim is None:
            return messages.Refused(reason="the run is just starting, or ending: try again", transient=True)
        else:
            active.shim.cancel()
        return messages.Done(affected=1)

    def handle_pipelines_changed(self, _: messages.PipelinesChanged) -> messages.Message:
        """Nothing is kept of pipelines between two runs, so a change holds from the next one on."""
        return messages.Done()

    def _create(self, command: messages.CreateRun) -> Run:
        """The directory first, under a name that follows from the job's, so that a repeat finds it."""
        job = uuid.uuid5(_NAMESPACE, command.job_id)
        run_id, payload_id = str(uuid.uuid5(job, "run")), str(uuid.uuid5(job, "payload"))
        for directory in (self._home(payload_id), self._home(payload_id) / "payload"):
            directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            sync_directory(directory.parent)
        with self._ledger.transaction():
            run: Run = Run.create(
                run_id=run_id,
                job_id=command.job_id,
                payload_id=payload_id,
                name=command.name,
                pipeline_id=command.pipeline_id,
                priority=command.priority,
                metadata=command.metadata,
                created_ns=time.time_ns(),
            )
        return run

    def _run(self, run_id: str) -> Run:
        run: Run | None = Run.get_or_none(Run.run_id == run_id)
        if run is None:
            raise RefusedError(f"there is no run {run_id}: the job has to be created first")
        return run

    def _describe(self, run: Run) -> messages.Message:
        return messages.RunCreated(
            run_id=run.run_id,
            payload_id=run.payload_id,
            payload_directory=str(self._home(run.payload_id) / "payload"),
            metadata=run.metadata,
            state=RunState(run.state),
        )

    # The queue.

    def _enqueue(self, run: Run) -> None:
        heapq.heappush(self._waiting, (queue_rank(run.priority, run.created_ns), run.run_id))

    def _start_waiting(self) -> None:
        while self._waiting and not self.draining and len(self._active) < self._places:
            run = self._run(heapq.heappop(self._waiting)[1])
            if run.state == RunState.PENDING:  # or it was canceled while it waited
                self._begin(run)

    @property
    def _places(self) -> int:
        return self.settings.services.platform.concurrent_runs

    def _begin(self, run: Run) -> None:
        run.tries += 1
        self._move(run, RunState.RUNNING, tries=run.tries, started_ns=time.time_ns())
        active = self._active[run.run_id] = ActiveRun(run, self._attempt(run))
        pipeline: Pipeline | None = Pipeline.get_or_none(Pipeline.pipeline_id == run.pipeline_id)
        if pipeline is None:
            self._conclude(active, f"the pipeline {run.pipeline_id} is not registered any more: register it again")
        else:
            self._in_thread(lambda: self._launch(active, pipeline))

    # In a thread.

    def _launch(self, active: ActiveRun, pipeline: Pipeline) -> None:
        stop = self.settings.services.stop_seconds * _STOP_SHARE
        limits = Limits(run_seconds=pipeline.timeout_seconds, grace_seconds=_GRACE_SECONDS, stop_seconds=stop)
        try:
            account = account_of(pipeline.user)
            active.attempt.prepare(self._input_maker, account)
            if self.gateway_stops:
                self.post(lambda: self._conclude(active))
                return
            shim = active.attempt.launch(pipeline.command, active.row.job_id, account, limits, self.birth.alive)
        except RefusedError as error:
            reason = str(error)
            self.post(lambda: self._conclude(active, reason))
        except OSError as error:
            problem = error
            with contextlib.suppress(OSError):
                active.attempt.give_up()
            self.post(lambda: self._cannot_launch(active, problem))
        else:
            self.post(lambda: self._launched(active, shim))

    def _judge(self, active: ActiveRun, refused: str) -> None:
        verdict = conclude(active.attempt, refused, lost_tries(active.attempt.home))
        self.post(lambda: self._concluded(active, verdict))

    def _in_thread(self, work: Callable[[], None]) -> None:
        """Run something in a thread; what it did not foresee is raised in the main loop."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # handed on, not swallowed
                unforeseen = error
                self.post(lambda: _raise(unforeseen))

        self._pool.submit(guarded)

    # A run's life, in the main loop.

    def _launched(self, active: ActiveRun, shim: Shim) -> None:
        self.log.info(
            "run_started",
            job=active.row.name,
            job_id=active.row.job_id,
            pipeline_id=active.row.pipeline_id,
            attempt=active.row.tries,
        )
        self._watch_shim(active, shim)

    def _watch_shim(self, active: ActiveRun, shim: Shim) -> None:
        active.shim = shim
        self.watch(shim.pidfd, lambda _: self._shim_ended(active, shim))
        if self.gateway_stops:
            shim.stop()
        self._finish_if_drained()

    def _shim_ended(self, active: ActiveRun, shim: Shim) -> None:
        self.unwatch(shim.pidfd)
        shim.close()
        active.shim = None
        self._conclude(active)

    def _cannot_launch(self, active: ActiveRun, error: OSError) -> None:
        """Wait for what is short; anything else ends the run."""
        if error.errno not in _OUT_OF:
            self._conclude(active, f"the run could not be prepared: {error.strerror}")
            return
        self.log.warning(
            "run_put_off",
            job_id=active.row.job_id,
            reason=error.strerror,
            again_seconds=_AGAIN_SECONDS,
            remedy="free space on the storage, or raise the process's limits",
        )
        del self._active[active.row.run_id]
        self._move(active.row, RunState.PENDING)
        self._put_off += 1
        self.after(_AGAIN_SECONDS, lambda: self._take_up(active.row))
        self._finish_if_drained()

    def _take_up(self, run: Run) -> None:
        self._put_off -= 1
        self._enqueue(run)

    def _conclude(self, active: ActiveRun, refused: str = "") -> None:
        self._in_thread(lambda: self._judge(active, refused))

    def _concluded(self, active: ActiveRun, verdict: Verdict) -> None:
        """Commit what became of a try; everything else of it has been seen to."""
        row = active.row
        del self._active[row.run_id]
        self._move(row, verdict.state, **verdict.columns())
        write = self.log.info if verdict.state is not RunState.FAILED else self.log.warning
        write(
            "run_ended",
            job=row.name,
            job_id=row.job_id,
            state=verdict.state.value,
            reason=verdict.error,
            left_behind=verdict.left_behind,
        )
        for problem in verdict.problems:
            self.log.warning("run_not_cleaned", job_id=row.job_id, reason=problem, remedy="remove it by hand")
        self.log.debug("run_output", job_id=row.job_id, output=verdict.last_output)
        if verdict.state is RunState.PENDING:
            self._enqueue(row)
        self._finish_if_drained()

    def _move(self, run: Run, state: RunState, **columns: Any) -> None:
        """Commit a change of state."""
        run.state = advance(RunState(run.state), state)
        with self._ledger.transaction():
            Run.update(state=run.state, **columns).where(Run.run_id == run.run_id).execute()

    def _finish_if_drained(self) -> None:
        """Restarted alone: wait for what is neither a waiting nor a going run. Stopped: wait for all."""
        if self.draining and (not self._active if self.gateway_stops else not self._unwatched()):
            self.finish()

    def _unwatched(self) -> list[ActiveRun]:
        return [active for active in self._active.values() if active.shim is None]

    # After a restart.

    def _take_over(self, run: Run) -> None:
        """Attach to a run that goes on; conclude one that has ended meanwhile."""
        active = self._active[run.run_id] = ActiveRun(run, self._attempt(run))
        self._attach(active)

    def _attach(self, active: ActiveRun) -> None:
        if not active.attempt.is_running():
            self._conclude(active)
            return
        shim = active.attempt.attach()
        if shim is None:
            self.after(_ATTACH_AGAIN_SECONDS, lambda: self._attach(active))
            return
        self.log.info("run_attached", job=active.row.name, job_id=active.row.job_id, attempt=active.row.tries)
        self._watch_shim(active, shim)

    def _remove_leftovers(self) -> None:
        """Remove payloads of runs that were over when the last process was killed before it had removed them."""
        unfinished: set[str] = set()
        states = (RunState.CREATED, RunState.PENDING, RunState.RUNNING)
        for page in pages(Run.select(Run.run_id, Run.payload_id).where(Run.state.in_(states)), Run.run_id):
            unfinished.update(row.payload_id for row in page)
        for home in self._spool.platform.iterdir():
            if home.name not in unfinished and (home / "payload").exists():
                remove_tree(home / "payload")

    def _home(self, payload_id: str) -> Path:
        return self._spool.platform / payload_id

    def _attempt(self, run: Run) -> Attempt:
        return Attempt(self._home(run.payload_id), run.tries)


def _raise(error: BaseException) -> None:
    raise error
