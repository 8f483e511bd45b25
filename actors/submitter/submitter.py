"""Platform submission: job → created → metadata → payload → started. Owner of the submissions.

Steps run in threads; what they bring back is settled in the main loop, all of one turn in one transaction, and each
change of state is committed before the next step begins. While the ledger does not answer, what has changed waits in
memory to be saved, and nothing begins.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import msgspec

from actors.actor import Actor
from actors.submitter.caretaker import Caretaker
from actors.submitter.failure import Failure, failure_of
from actors.submitter.forgetting import forgetting
from actors.submitter.progress import Progress, begin_next, faulted, untaken, with_jobs
from actors.submitter.requests import Requests
from actors.submitter.reruns import Reruns
from actors.submitter.scheduler import Scheduler
from actors.submitter.steps import UNDER_WAY, Columns, Surroundings, Task
from protocol import killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.birth import Birth
from protocol.clock import NANOSECONDS
from protocol.config import Settings
from protocol.ledger import PAGE_ROWS, Job, Ledger, Submission, pages, tuples
from protocol.ledger.past import LOOK_SECONDS
from protocol.platforms import open_platform
from protocol.platforms.base import StepInterruptedError
from protocol.platforms.embedded import PATIENCE_SECONDS
from protocol.spool import Spool
from protocol.states import JobState

PLACES = 8
_BUSY_SECONDS = 2.0  # below the patience of whoever watches the heartbeats
_GRACE_SECONDS = 2.0  # for a call that is under way when this process is to end
_SWEEP_MARGIN_NS = 3600 * NANOSECONDS  # for commits that take long, and clocks that are set back
_OVER = (JobState.COMPLETED, JobState.FAULTED, JobState.DISCARDED)
_UNFINISHED = tuple(state for state in JobState if state not in _OVER)


class Interrupted(msgspec.Struct, frozen=True):
    """A step was broken off, since this process ends."""


Result = Columns | Failure | Interrupted


class Submitter(Actor):
    """Walks jobs to the platform."""

    kind = "submitter"
    sweep_seconds: ClassVar[float] = 5.0
    probe_seconds: ClassVar[float] = 10.0
    patience_seconds: ClassVar[float] = PATIENCE_SECONDS

    def __init__(self, birth: Birth, settings: Settings) -> None:
        super().__init__(birth, settings)
        self._scheduler = Scheduler(PLACES)
        self._under_way: dict[str, Progress] = {}
        self._arrived: list[str] = []
        self._results: list[tuple[str, Result]] = []
        self._unsaved: set[Progress] = set()
        self._begun: list[Task] = []
        self._told: list[Callable[[], None]] = []
        self._stopping = threading.Event()
        self._swept_ns = 0

    def start(self) -> None:
        """Take over what the last process left.

        Raises:
            ConfigurationError: the configured platform is none that can be used here.
        """
        self._platform = open_platform(self.settings, self.bus, self._stopping, self.patience_seconds)
        self._ledger = Ledger(self.settings.database, busy_seconds=_BUSY_SECONDS, waiting=self.wait_for_ledger)
        self._availability = Availability(self._ledger, self.log)
        self._spool = Spool(self.settings.storage.temporary)
        self._pool = ThreadPoolExecutor(PLACES, thread_name_prefix="step")
        self._requests = Requests(self._platform, self.log)
        self._caretaker = Caretaker(self, self._platform, self._ledger, self._availability, self._take_up)
        follow = self._caretaker.follow
        self._reruns = Reruns(self, self._platform, self._ledger, self._availability, follow)
        for page in pages(Submission.select().where(Submission.state.in_(_UNFINISHED)), Submission.job_id):
            for progress in with_jobs(page):
                self._enqueue(progress)
        self._sweep()
        self.every(self.sweep_seconds, self._sweep_if_answered)
        self._caretaker.start(self.probe_seconds)
        past = forgetting(self._ledger, self.log)
        self.every(LOOK_SECONDS, lambda: self._availability.attempt(lambda: past.look(self.settings)))
        self.after_turn()

    def after_turn(self) -> None:
        """Settle what came in this turn and begin what is next."""
        may_begin = not self.draining and self._scheduler.has_work(time.monotonic())
        if (self._arrived or self._results or self._unsaved or may_begin) and not self._availability.paused:
            self._settle()
        if self.draining and not self._scheduler.placed:
            self.finish()

    def drain(self) -> None:
        """Break steps off where they can be repeated; a call that a platform answers soon is let through."""
        self._stopping.set()
        self.after(_GRACE_SECONDS, self._platform.close)

    def stop(self) -> None:
        """Wait for the threads, since the bus cannot be closed under them; each is through within seconds."""
        self._stopping.set()
        self._platform.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._requests.stop()
        self._reruns.stop()
        self._caretaker.stop()
        self._ledger.close()

    def busy_with(self) -> str:
        """How much there is."""
        placed, waiting = self._scheduler.placed, self._scheduler.waiting
        return f"{placed} submitting, {waiting} waiting" if placed or waiting else "idle"

    # Messages.

    def handle_jobs_created(self, message: messages.JobsCreated) -> None:
        """New jobs stand in the ledger."""
        self._arrived += message.job_ids

    def handle_payloads_retrieved(self, _: messages.PayloadsRetrieved) -> None:
        """The retrieval for some jobs is over."""
        self._look_at_requests()

    def handle_create_job(self, command: messages.CreateJob) -> "Future[messages.Message]":
        """Create the job of an inference request that is not accepted yet."""
        return self._requests.create(command)

    def handle_cancel_job(self, command: messages.CancelJob) -> "Future[messages.Message]":
        """Give up the job of an inference request that was refused."""
        return self._requests.cancel(command)

    def handle_retry_jobs(self, command: messages.RetryJobs) -> "messages.Message | Future[messages.Message]":
        """Submit faulted jobs again, with all their tries before them, or have failed ones run again."""
        try:
            if command.failed:
                return self._reruns.take(command)
            return messages.Done(affected=sum(self._take_up(page) for page in faulted(command)))
        except LEDGER_AWAY as error:
            return self._refuse(error)

    def handle_discard_jobs(self, command: messages.DiscardJobs) -> messages.Message:
        """Give faulted jobs up; what the platform has of them is canceled afterwards."""
        discarded = 0
        try:
            # One whose data is still being retrieved has not faulted, and can be given up nevertheless, by its ID.
            for job_id in filter(self._requests.is_held, command.job_ids):
                self._fault(self._under_way[job_id], "it was given up before its data was there")
            self._save(self._unsaved)
            self._unsaved.clear()
            for page in faulted(command):
                for progress in page:
                    progress.discard()
                self._save(page)
                for progress in page:
                    self.log.info("job_discarded", job=progress.job.name, job_id=progress.job_id)
                discarded += len(page)
        except LEDGER_AWAY as error:
            return self._refuse(error)
        self._caretaker.cancel_discarded()
        return messages.Done(affected=discarded)

    def _fault(self, progress: Progress, reason: str) -> None:
        """A job goes no further, and nothing was under way."""
        progress.fail(reason, unreachable=False, retry_seconds=0.0, most_retries=-1)
        self._unsaved.add(progress)
        del self._under_way[progress.job_id]
        self._requests.forget(progress.job_id)

    def _refuse(self, error: Exception) -> messages.Refused:
        self._availability.failed(error)
        return messages.Refused(reason=f"the ledger does not answer now ({error}): try again", transient=True)

    # Taking over.

    def _sweep(self) -> None:
        """Find jobs whose message was lost."""
        since, now = self._swept_ns - _SWEEP_MARGIN_NS, time.time_ns()
        for page in untaken(since):
            self._arrived += page
        self._swept_ns = now

    def _sweep_if_answered(self) -> None:
        try:
            self._sweep()
        except LEDGER_AWAY as error:
            self._availability.failed(error)
        else:
            self._look_at_requests()

    def _look_at_requests(self) -> None:
        """Let go on, or fault, what has waited for a retrieval that is over."""
        try:
            over = self._requests.look()
            for each in over:
                progress = self._under_way[each.job_id]
                if each.failure:
                    self._fault(progress, each.failure)
                    self._told.append(partial(self._tell_failed, progress, JobState.CREATED, again=False))
                else:
                    self._enqueue(self._requests.release(each.job_id))
        except LEDGER_AWAY as error:
            self._availability.failed(error)

    def _take_over(self, job_ids: list[str]) -> Iterator[Progress]:
        """Jobs that have no submission yet; a message may come twice."""
        for start in range(0, len(job_ids), PAGE_ROWS):
            page = job_ids[start : start + PAGE_ROWS]
            rows = tuples(Submission.select(Submission.job_id).where(Submission.job_id.in_(page)))
            known = {job_id for (job_id,) in rows}
            new = [job_id for job_id in page if job_id not in known and job_id not in self._under_way]
            for job in list(Job.select().where(Job.job_id.in_(new))):
                yield Progress(job)

    def _enqueue(self, progress: Progress) -> None:
        """Let a job wait for its turn, and no longer than configured, whatever was done to the clock since."""
        self._under_way[progress.job_id] = progress
        if self._requests.holds(progress):
            return
        pause = (progress.row.next_try_ns - time.time_ns()) / NANOSECONDS
        pause = min(max(0.0, pause), self.settings.services.platform.retry_delay_seconds)
        self._scheduler.add(progress.job_id, progress.rank, time.monotonic() + pause)

    def _take_up(self, faulted: list[Progress]) -> int:
        """Faulted jobs go on; returns how many."""
        for progress in faulted:
            progress.take_up()
        self._save(faulted)
        for progress in faulted:
            self.log.info("job_taken_up", job=progress.job.name, job_id=progress.job_id)
            self._enqueue(progress)
        return len(faulted)

    # A turn.

    def _settle(self) -> None:
        """Commit what this turn brought, then tell of it and begin what follows."""
        try:
            arrived = list(self._take_over(list(dict.fromkeys(self._arrived))))
            self._arrived = []
            self._advance(arrived)
            self._save(self._unsaved)
        except LEDGER_AWAY as error:
            self._availability.failed(error)
            self.at(self._availability.retry_at, lambda: None)  # the turn after it tries again
            return
        self._unsaved.clear()
        killpoints.reach("submitter.committed")
        told, self._told = self._told, []
        for tell in told:
            tell()
        begun, self._begun = self._begun, []
        for task in begun:
            self._pool.submit(self._perform, task)

    def _advance(self, arrived: list[Progress]) -> None:
        """Change what is in memory; nothing of it holds before it was saved."""
        platform = self.settings.services.platform
        for progress in arrived:
            self._enqueue(progress)
            self._unsaved.add(progress)
        results, self._results = self._results, []
        for job_id, result in results:
            progress = self._under_way[job_id]
            self._told.append(self._apply(progress, result))
            self._unsaved.add(progress)
            if self._has_next_step(progress, result):
                self._begun.append(begin_next(progress, platform))
            else:
                self._scheduler.release(job_id)
        for job_id in () if self.draining else self._scheduler.take(time.monotonic()):
            self._begun.append(begin_next(self._under_way[job_id], platform))
            self._unsaved.add(self._under_way[job_id])

    def _save(self, changed: Collection[Progress]) -> None:
        """Commit changes, all or none.

        Raises:
            peewee.PeeweeException: the ledger does not answer; they may be saved again.
        """
        with self._ledger.transaction():
            for progress in changed:
                progress.save()
        for progress in changed:
            progress.saved()
        self._availability.committed()

    def _has_next_step(self, progress: Progress, result: Result) -> bool:
        done = not isinstance(result, Failure | Interrupted)
        if not done or progress.state is JobState.COMPLETED or self._requests.holds(progress):
            return False
        return not self.draining

    def _apply(self, progress: Progress, result: Result) -> Callable[[], None]:
        """Change a submission by what its step brought; returns what tells of it once it is committed."""
        if isinstance(result, Interrupted):
            return lambda: None
        if isinstance(result, Failure):
            return self._apply_failure(progress, result)
        progress.succeed(result)
        if progress.state is not JobState.COMPLETED:
            return lambda: None
        del self._under_way[progress.job_id]
        self._requests.forget(progress.job_id)
        return lambda: self._tell_completed(progress)

    def _apply_failure(self, progress: Progress, failure: Failure) -> Callable[[], None]:
        step = progress.state
        platform = self.settings.services.platform
        again = progress.fail(
            failure.reason,
            unreachable=failure.unreachable,
            retry_seconds=platform.retry_delay_seconds,
            most_retries=-1 if failure.permanent else platform.max_retries,
        )
        if again:
            self._enqueue(progress)
        else:
            del self._under_way[progress.job_id]
        return lambda: self._tell_failed(progress, step, again=again)

    def _tell_completed(self, progress: Progress) -> None:
        self.log.info(
            "job_submitted",
            job=progress.job.name,
            job_id=progress.job_id,
            pipeline_id=progress.job.pipeline_id,
            files=progress.row.uploaded,
            seconds=round((time.time_ns() - progress.job.created_ns) / NANOSECONDS, 3),
        )
        if progress.job.group_id is not None and progress.row.uploaded != progress.job.instances:
            self.log.warning(
                "payload_differs", job_id=progress.job_id, files=progress.row.uploaded, instances=progress.job.instances
            )
        self._caretaker.follow(progress.sought(), progress.row.platform_state)

    def _tell_failed(self, progress: Progress, step: JobState, *, again: bool) -> None:
        fields: dict[str, Any] = {
            "job": progress.job.name,
            "job_id": progress.job_id,
            "step": step.value,
            "tries": progress.row.tries,
            "reason": progress.row.last_error,
        }
        if again:
            self.log.warning("step_failed", **fields, again_seconds=self.settings.services.platform.retry_delay_seconds)
        elif progress.row.unreachable:
            self._caretaker.found_unreachable()
            self.log.error("job_faulted", **fields, remedy="it goes on by itself when the platform answers again")
        else:
            self.log.error("job_faulted", **fields, remedy="see the reason, then dicom-adapter jobs retry or discard")

    # In a thread.

    def _perform(self, task: Task) -> None:
        """Do a step and bring its result back."""
        around = Surroundings(
            platform=self._platform,
            spool=self._spool,
            settings=self.settings.services.platform,
            uploaded=lambda job_id, count: self.post(lambda: self._note_uploaded(job_id, count)),
        )
        result: Result
        try:
            result = UNDER_WAY[task.doing].perform(around, task)
        except StepInterruptedError:
            result = Interrupted()
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                # One job's trouble, tried again by policy; the others go on.
                self.log.unexpected("step_broke", job_id=task.job.job_id, step=task.doing.value)
                failure = Failure(f"unexpected {type(error).__name__}: see the log")
            result = failure
        self.post(lambda: self._results.append((task.job.job_id, result)))

    def _note_uploaded(self, job_id: str, count: int) -> None:
        progress = self._under_way[job_id]
        progress.set_uploaded(count)
        self._unsaved.add(progress)
