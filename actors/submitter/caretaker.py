"""What the submitter does beside the steps: follow started jobs, probe for a lost platform, cancel discarded jobs."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from actors.actor import Actor
from actors.submitter.failure import failure_of
from actors.submitter.progress import Progress, with_jobs
from protocol.availability import LEDGER_AWAY, Availability
from protocol.errors import RefusedError
from protocol.ledger import PAGE_ROWS, Ledger, Submission, pages
from protocol.platforms.base import Platform, PlatformError, PlatformState, Sought
from protocol.states import JobState, RunState

_CANCEL_SECONDS = 5.0
FEW = 2  # jobs that are taken up when the platform answers again; doubled each time that it still does

Found = TypeVar("Found")


class Caretaker:
    """Slow chores, each in a thread of its own, none twice at a time.

    Args:
        actor: whose loop it lives in.
        platform: asked in threads.
        ledger: read and written in the loop.
        availability: of the ledger; what was not done while it did not answer comes up again by itself.
        take_up: lets faulted jobs go on.
    """

    def __init__(
        self,
        actor: Actor,
        platform: Platform,
        ledger: Ledger,
        availability: Availability,
        take_up: Callable[[list[Progress]], int],
    ) -> None:
        self._actor = actor
        self._platform = platform
        self._ledger = ledger
        self._availability = availability
        self._take_up = take_up
        self._pool = ThreadPoolExecutor(3, thread_name_prefix="chore")
        self._going: set[str] = set()
        self._followed: dict[str, tuple[str, Sought]] = {}
        self._handful = FEW
        self._discarded_waiting = True

    def start(self, probe_seconds: float) -> None:
        """Find what is to be followed, and begin.

        Args:
            probe_seconds: how often a platform that was away is asked whether it is back.
        """
        query = Submission.select(Submission.job_id, Submission.platform_job_id, Submission.platform_state).where(
            Submission.platform_state.in_(self._platform.unfinished_states)
        )
        for page in pages(query, Submission.job_id):
            for row in page:
                self.follow(Sought(job_id=row.job_id, platform_job_id=row.platform_job_id), row.platform_state)
        self._actor.every(self._platform.follow_seconds, self._follow_all)
        self._actor.every(probe_seconds, lambda: self._with_ledger(self._probe))
        self._actor.every(_CANCEL_SECONDS, lambda: self._with_ledger(self._cancel_some))

    def stop(self) -> None:
        """Wait for the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    # Started jobs.

    def follow(self, job: Sought, state: str) -> None:
        """Watch what becomes of a job that was just started."""
        self._followed[job.job_id] = (state, job)

    def _follow_all(self) -> None:
        followed = [job for _, job in self._followed.values()]
        if followed:
            self._do("follow", lambda: self._platform.states(followed), self._note_states)

    def _note_states(self, states: dict[str, PlatformState]) -> None:
        changed = {job_id: state for job_id, state in states.items() if self._followed[job_id][0] != state.name}
        if not changed:
            return
        with self._ledger.transaction():
            for job_id, state in changed.items():
                Submission.update(platform_state=state.name, updated_ns=time.time_ns()).where(
                    Submission.job_id == job_id
                ).execute()
        for job_id, state in changed.items():
            _, job = self._followed.pop(job_id)
            if not state.final:
                self._followed[job_id] = (state.name, job)

    # A platform that was away.

    def found_unreachable(self) -> None:
        """A job has faulted because the platform could not be reached: begin with few again."""
        self._handful = FEW

    def _probe(self) -> None:
        """Ask for one of the jobs that faulted because the platform was away; any answer will do."""
        query = Submission.select().where((Submission.state == JobState.FAULTED) & Submission.unreachable)
        rows = list(query.order_by(Submission.updated_ns).limit(self._handful))
        if rows:
            job_ids = [row.job_id for row in rows]
            sought = with_jobs(rows[:1])[0].sought()
            self._do("probe", lambda: self._platform.find(sought), lambda _: self._answered(job_ids))

    def _answered(self, job_ids: list[str]) -> None:
        rows = list(Submission.select().where(Submission.job_id.in_(job_ids), Submission.state == JobState.FAULTED))
        taken_up = self._take_up(with_jobs(rows))
        self._actor.log.info("platform_answers_again", jobs=taken_up)
        self._handful = min(2 * self._handful, PAGE_ROWS)

    # Discarded jobs.

    def cancel_discarded(self) -> None:
        """Jobs were discarded: free what the platform has of them."""
        self._discarded_waiting = True
        self._with_ledger(self._cancel_some)

    def _cancel_some(self) -> None:
        if not self._discarded_waiting:
            return
        query = Submission.select().where((Submission.state == JobState.DISCARDED) & (Submission.platform_state == ""))
        rows = list(query.limit(PAGE_ROWS))
        self._discarded_waiting = bool(rows)
        if rows:
            discarded = [progress.sought() for progress in with_jobs(rows)]
            self._do("cancel", lambda: self._cancel(discarded), self._note_canceled)

    def _cancel(self, discarded: list[Sought]) -> list[str]:
        """Cancel jobs; returns those that need not be tried again. One that makes trouble keeps no other from it."""
        done: list[str] = []
        for job in discarded:
            try:
                self._platform.cancel(job)
            except PlatformError as error:
                self._actor.log.debug("job_not_canceled", job_id=job.job_id, reason=str(error))
                continue
            except RefusedError as error:
                self._actor.log.warning("job_not_canceled", job_id=job.job_id, reason=str(error))
            done.append(job.job_id)
        return done

    def _note_canceled(self, job_ids: list[str]) -> None:
        with self._ledger.transaction():
            Submission.update(platform_state=RunState.CANCELED.value).where(Submission.job_id.in_(job_ids)).execute()

    # Threads.

    def _with_ledger(self, work: Callable[[], None]) -> None:
        """Do something that comes up again by itself when the ledger does not answer now."""
        try:
            work()
        except LEDGER_AWAY as error:
            self._availability.failed(error)

    def _do(self, chore: str, work: Callable[[], Found], then: Callable[[Found], None]) -> None:
        """Do something in a thread, and then something with its result in the loop; not twice at a time."""
        if chore not in self._going:
            self._going.add(chore)
            self._pool.submit(self._work, chore, work, then)

    def _work(self, chore: str, work: Callable[[], Found], then: Callable[[Found], None]) -> None:
        try:
            found = work()
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                self._actor.log.unexpected("chore_broke", chore=chore)
            else:
                self._actor.log.debug("chore_failed", chore=chore, reason=failure.reason)
            self._actor.post(lambda: self._going.discard(chore))
        else:
            self._actor.post(lambda: self._finish(chore, found, then))

    def _finish(self, chore: str, found: Found, then: Callable[[Found], None]) -> None:
        self._going.discard(chore)
        self._with_ledger(lambda: then(found))
