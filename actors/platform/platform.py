"""The embedded platform: takes jobs from the submitter, queues them, and runs their pipelines as local commands.

What a run is stands in its row; what it does stands on disk and belongs to its shim, which outlives this actor. At
start runs that still go on are attached to, and runs whose shim is gone are concluded or put back into the queue.
"""

import contextlib
import heapq
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from actors.actor import Actor
from actors.platform.accounts import account_of
from actors.platform.attempt import Attempt, Limits, Shim, lost_tries
from actors.platform.desk import Desk, unregistered
from actors.platform.discarding import Discarding
from actors.platform.forgetting import forgetting
from actors.platform.freeing import Freeing
from actors.platform.inputs import Inputs
from actors.platform.launching import ForkServer
from actors.platform.leftovers import remove_tree
from actors.platform.repeating import OUT_OF, repeatable
from actors.platform.runs import Runs
from actors.platform.usage import Usage
from actors.platform.verdict import Verdict, conclude
from actors.platform.written import Written
from protocol import killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.channels import RESULTS
from protocol.errors import RefusedError
from protocol.ledger import Ledger, Pipeline, Run, row_where
from protocol.ledger.past import LOOK_SECONDS
from protocol.priority import queue_rank
from protocol.spool import Spool
from protocol.states import RUN_UNDER_WAY, RunState

_BUSY_SECONDS = 2.0  # below the patience of whoever watches the heartbeats
_GRACE_SECONDS = 5.0
_STOP_SHARE = 0.2  # of the time that the gateway's stop may take, for a pipeline to end by itself
_WORKERS = 4
_MOST_OVER = 8
_CONCLUDE_AGAIN_SECONDS = 5.0
_AGAIN_SECONDS, _ATTACH_AGAIN_SECONDS = 30.0, 0.05


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
        self.is_over = False  # its pipeline has ended: it is being concluded, and its place is another's


class Platform(Actor):
    """Runs pipelines."""

    kind = "platform"
    needs_capabilities = True  # to run pipelines as other users

    def start(self) -> None:
        """Go on where the last process was."""
        self._ledger = Ledger(self.settings.database, busy_seconds=_BUSY_SECONDS, waiting=self.wait_for_ledger)
        self.availability = Availability(self._ledger, self.log)
        spool = Spool(self.settings.storage.temporary)
        spool.create()
        self._runs = Runs(self._ledger, self.availability, spool)
        self._desk = Desk(self._ledger, self.availability, self._runs, self._enqueue)
        self._usage = Usage(self.board.set_platform_bytes, self._runs.kept_bytes())
        self._results = self.bus.sender(RESULTS)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="run")
        self._input_maker = Inputs()
        self._fork_server = ForkServer(self.birth.alive)
        self._fork_server.start()
        self._waiting: list[tuple[int, str]] = []  # a heap of rank and run ID
        self._put_off = 0
        self._active: dict[str, ActiveRun] = {}
        self._runs.remove_leftovers()
        for row in self._runs.of_state(RunState.RUNNING):
            self._take_over(row)
        for row in self._runs.of_state(RunState.PENDING):
            self._enqueue(row)
        if self.settings.storage.quota_bytes is not None:
            Written(self, self._usage, self._going_on)
        self._discarding = Discarding(self, self._runs, Freeing(self, self._runs, self._usage.freed, self.availability))
        past = forgetting(self._ledger, self.log, self._runs, self._usage)
        self.every(LOOK_SECONDS, lambda: self.availability.attempt(lambda: past.look(self.settings)))
        self._start_waiting()

    def after_turn(self) -> None:
        """Settle what came in this turn, and start what has its turn."""
        self._desk.settle()
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
        self._fork_server.close()
        self._ledger.close()

    def busy_with(self) -> str:
        """How much there is."""
        waiting = len(self._waiting) + self._put_off
        return f"{len(self._active)} running, {waiting} waiting" if self._active or waiting else "idle"

    # Commands.

    def handle_create_run(self, command: messages.CreateRun) -> "Future[messages.Message]":
        """Make a job, or answer with the one that there is."""
        return self._desk.take(command)

    @repeatable
    def handle_find_run(self, command: messages.FindRun) -> messages.Message:
        """Look a job up."""
        run = self._runs.of_job(command.job_id)
        return messages.Done() if run is None else self._runs.describe(run)

    def handle_add_run_metadata(self, command: messages.AddRunMetadata) -> "Future[messages.Message]":
        """Add to what is known of a job."""
        return self._desk.take(command)

    def handle_start_run(self, command: messages.StartRun) -> "Future[messages.Message]":
        """Queue a job; one that was started before stays as it is."""
        return self._desk.take(command)

    @repeatable
    def handle_cancel_run(self, command: messages.CancelRun) -> messages.Message:
        """End a run, or take it from the queue."""
        run = self._runs.get(command.run_id)
        if run.state not in RUN_UNDER_WAY:
            return messages.Done()
        active = self._active.get(run.run_id)
        if active is None:
            self._runs.move(run, RunState.CANCELED, ended_ns=time.time_ns(), keeps_input=False, kept_bytes=0)
            self._usage.freed(run.kept_bytes)
            self.in_thread(lambda: remove_tree(self._runs.home(run.payload_id)))
        elif active.shim is None:
            return messages.Refused(reason="the run is just starting, or ending: try again", transient=True)
        else:
            active.shim.cancel()
        return messages.Done(affected=1)

    @repeatable
    def handle_run_again(self, command: messages.RunAgain) -> messages.Message:
        """Queue what failed once more; refused when that is nothing."""
        queued, refusals = self._runs.run_again(command.job_ids, command.decided_ns)
        killpoints.reach("platform.rerun-queued")
        for run in queued:
            self.log.info("run_taken_up", job=run.name, job_id=run.job_id, attempt=run.tries + 1)
            self._enqueue(run)
        if len(refusals) == len(command.job_ids):
            return messages.Refused(reason=next(iter(refusals), "no job was named"))
        return messages.Done(affected=len(command.job_ids) - len(refusals))

    def handle_discard_runs(self, command: messages.DiscardRuns) -> "messages.Message | Future[messages.Message]":
        """Give up what runs that are over have left."""
        return self._discarding.take(command)

    def handle_pipelines_changed(self, _: messages.PipelinesChanged) -> messages.Message:
        """Nothing is kept of pipelines between two runs, so a change holds from the next one on."""
        return messages.Done()

    # The queue.

    def _enqueue(self, run: Run) -> None:
        heapq.heappush(self._waiting, (queue_rank(run.priority, run.queued_ns or run.created_ns), run.run_id))

    def _start_waiting(self) -> None:
        while self._waiting and not self.draining and self._occupied() < self._places:
            if self.availability.paused:
                return
            try:
                run = row_where(Run, "run_id", self._waiting[0][1])
                if run is not None and run.state == RunState.PENDING:  # or it was canceled while it waited
                    self._begin(run)
            except LEDGER_AWAY as error:
                self.availability.failed(error)
                self.at(self.availability.retry_at, lambda: None)  # the turn after it tries again
                return
            heapq.heappop(self._waiting)

    def _occupied(self) -> int:
        """How many runs have a place; those whose pipeline has ended wait for the disk only, but they are bounded."""
        over = sum(active.is_over for active in self._active.values())
        return len(self._active) - min(over, _MOST_OVER)

    @property
    def _places(self) -> int:
        return self.settings.services.platform.concurrent_runs

    def _begin(self, run: Run) -> None:
        pipeline = row_where(Pipeline, "pipeline_id", run.pipeline_id)
        run.tries += 1
        self._runs.move(run, RunState.RUNNING, tries=run.tries, started_ns=time.time_ns())
        killpoints.reach("platform.run-begun")
        active = self._active[run.run_id] = ActiveRun(run, self._runs.attempt(run))
        if pipeline is None:
            self._conclude(active, unregistered(run.pipeline_id))
        else:
            self.in_thread(lambda: self._launch(active, pipeline))

    def surely(self, work: Callable[[], None]) -> None:
        """Do something that begins with a commit: again and again, while the ledger does not answer."""
        try:
            if not self.availability.paused:
                work()
                return
        except LEDGER_AWAY as error:
            self.availability.failed(error)
        self.at(self.availability.retry_at, lambda: self.surely(work))

    # In a thread.

    def _launch(self, active: ActiveRun, pipeline: Pipeline) -> None:
        stop = self.settings.services.stop_seconds * _STOP_SHARE
        limits = Limits(run_seconds=pipeline.timeout_seconds, grace_seconds=_GRACE_SECONDS, stop_seconds=stop)
        try:
            account = account_of(pipeline.user)
            copied = active.attempt.prepare(self._input_maker, account)
            killpoints.reach("platform.input-made")
            self.post(lambda: self._usage.copied(active.row.run_id, copied))
            if self.gateway_stops:
                self.post(lambda: self._conclude(active))
                return
            shim = active.attempt.launch(pipeline.command, active.row.job_id, account, limits, self._fork_server)
            killpoints.reach("platform.shim-started")
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
        try:
            verdict = conclude(active.attempt, refused, lost_tries(active.attempt.home))
        except OSError as error:
            if error.errno not in OUT_OF:
                raise
            reason = error.strerror
            self.post(lambda: self._conclude_later(active, refused, reason))
            return
        self.post(lambda: self.surely(lambda: self._concluded(active, verdict)))

    def in_thread(self, work: Callable[[], None]) -> None:
        """Run something in a thread; what it did not foresee is raised in the main loop."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # handed on, not swallowed
                unforeseen = error
                self.post(lambda: _raise(unforeseen))

        self._pool.submit(guarded)

    # A run's life, in the main loop.

    def _launched(self, active: ActiveRun, shim: Shim | None) -> None:
        row = active.row
        self.log.info("run_started", job=row.name, job_id=row.job_id, pipeline_id=row.pipeline_id, attempt=row.tries)
        if shim is None:
            self._attach(active)
        else:
            self._watch_shim(active, shim)

    def _watch_shim(self, active: ActiveRun, shim: Shim) -> None:
        active.shim = shim
        self.watch(shim.pidfd, lambda _: self._shim_ended(active, shim))
        if self.gateway_stops:
            shim.stop()
        self._finish_if_drained()

    def _shim_ended(self, active: ActiveRun, shim: Shim) -> None:
        killpoints.reach("platform.shim-ended")
        self.unwatch(shim.pidfd)
        shim.close()
        active.shim = None
        active.is_over = True
        self._conclude(active)

    def _cannot_launch(self, active: ActiveRun, error: OSError) -> None:
        """Wait for what is short; anything else ends the run."""
        if error.errno not in OUT_OF:
            self._conclude(active, f"the run could not be prepared: {error.strerror}")
            return
        self.log.warning(
            "run_put_off",
            job_id=active.row.job_id,
            reason=error.strerror,
            again_seconds=_AGAIN_SECONDS,
            remedy="free space on the storage, or raise the process's limits",
        )
        self.surely(lambda: self._put_back(active))

    def _put_back(self, active: ActiveRun) -> None:
        self._runs.move(active.row, RunState.PENDING)
        del self._active[active.row.run_id]
        self._usage.ended(active.row.run_id, 0)
        self._put_off += 1
        self.after(_AGAIN_SECONDS, lambda: self._take_up(active.row))
        self._finish_if_drained()

    def _take_up(self, run: Run) -> None:
        self._put_off -= 1
        self._enqueue(run)

    def _conclude(self, active: ActiveRun, refused: str = "") -> None:
        self.in_thread(lambda: self._judge(active, refused))

    def _conclude_later(self, active: ActiveRun, refused: str, reason: str | None) -> None:
        """A run's end is told when its result is durable and its try is cleaned up, which takes what is short now."""
        self.log.warning(
            "run_not_concluded", job_id=active.row.job_id, reason=reason, again_seconds=_CONCLUDE_AGAIN_SECONDS
        )
        self.after(_CONCLUDE_AGAIN_SECONDS, lambda: self._conclude(active, refused))

    def _concluded(self, active: ActiveRun, verdict: Verdict) -> None:
        """Commit what became of a try; everything else of it has been seen to."""
        row = active.row
        if verdict.state is RunState.SUCCEEDED:
            self._runs.succeed(row, verdict.files, **verdict.columns())
        else:
            self._runs.move(row, verdict.state, **verdict.columns())
        killpoints.reach("platform.run-ended")
        if verdict.files:
            self._results.send(messages.ResultsRegistered(run_ids=(row.run_id,)))
            killpoints.reach("platform.results-announced")
        del self._active[row.run_id]
        self._usage.ended(row.run_id, verdict.kept_bytes)
        if verdict.state is not RunState.PENDING:
            self._usage.freed(row.kept_bytes)  # of a try before, when it is run again
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

    def _finish_if_drained(self) -> None:
        """Restarted alone: wait for what is neither a waiting nor a going run. Stopped: wait for all."""
        if self.draining and (not self._active if self.gateway_stops else not self._unwatched()):
            self.finish()

    def _unwatched(self) -> list[ActiveRun]:
        return [active for active in self._active.values() if active.shim is None]

    def _going_on(self) -> dict[str, Attempt]:
        return {active.row.run_id: active.attempt for active in self._active.values() if active.shim is not None}

    # After a restart.

    def _take_over(self, run: Run) -> None:
        """Attach to a run that goes on; conclude one that has ended meanwhile."""
        active = self._active[run.run_id] = ActiveRun(run, self._runs.attempt(run))
        self._usage.copied(run.run_id, active.attempt.copied_bytes())
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


def _raise(error: BaseException) -> None:
    raise error
