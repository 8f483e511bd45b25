"""Has jobs that failed on the platform run there again, when a person has decided so."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from actors.actor import Actor
from actors.submitter.failure import Failure, failure_of
from actors.submitter.progress import any_failed, failed
from protocol import killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.ledger import Ledger, Submission
from protocol.platforms.base import NOTHING_KEPT, Platform, Sought, StepInterruptedError


class Reruns:
    """Asks the platform in a thread, a page of jobs at a time.

    That they are not over any more is committed first: whoever is killed before the answer, or does not hear it, finds
    them among the started ones, and asks the platform what became of them.

    Args:
        actor: whose loop it lives in.
        platform: asked in a thread.
        ledger: read and written in the loop.
        availability: told of commits.
        follow: told of each job that was asked for, and the state that it is in now.
    """

    def __init__(
        self,
        actor: Actor,
        platform: Platform,
        ledger: Ledger,
        availability: Availability,
        follow: Callable[[Sought, str], None],
    ) -> None:
        self._actor = actor
        self._platform = platform
        self._ledger = ledger
        self._availability = availability
        self._follow = follow
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rerun")

    def stop(self) -> None:
        """Wait for the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self, command: messages.RetryJobs) -> "messages.Message | Future[messages.Message]":
        """Have all jobs that a command means run again; the answer comes when the platform has taken them.

        Raises:
            peewee.PeeweeException: the ledger does not answer; it may be repeated.
        """
        pages = failed(command, self._platform.rerunnable(command.job_ids))
        found = [sought for page in pages if (sought := [progress.sought() for progress in page])]
        if not found:
            return messages.Refused(reason=NOTHING_KEPT) if any_failed(command) else messages.Done()
        state, decided_ns = self._platform.unfinished_states[0], time.time_ns()
        for number, page in enumerate(found):
            among = Submission.job_id.in_([job.job_id for job in page])
            try:
                with self._ledger.transaction():
                    Submission.update(platform_state=state, updated_ns=decided_ns).where(among).execute()
            except LEDGER_AWAY:
                self._settle(found[:number], state)  # these are committed, and nobody is asked to do anything
                raise
            self._availability.committed()
        killpoints.reach("submitter.rerun-committed")
        answer: Future[messages.Message] = Future()
        self._pool.submit(self._ask, found, state, decided_ns, answer)
        return answer

    def _ask(self, found: list[list[Sought]], state: str, decided_ns: int, answer: "Future[messages.Message]") -> None:
        """In the thread; whatever the platform says, what became of the jobs is then looked at like a started one's."""
        affected, refused = 0, messages.Refused(reason=NOTHING_KEPT)
        for page in found:
            try:
                affected += self._platform.run_again([job.job_id for job in page], decided_ns)
            except StepInterruptedError:
                refused = messages.Refused(reason="the submitter ends just now: try again", transient=True)
            except Exception as error:
                failure = failure_of(error)
                if failure is None:
                    self._actor.log.unexpected("rerun_broke")
                    failure = Failure(f"unexpected {type(error).__name__}: see the log")
                refused = messages.Refused(reason=failure.reason, transient=not failure.permanent)
            if refused.transient:
                break  # whoever asked has no patience for one page after the other
            killpoints.reach("submitter.rerun-asked")
        left = sum(map(len, found)) - affected
        if left:
            self._actor.log.warning("not_run_again", jobs=left, reason=refused.reason)
        self._actor.post(lambda: self._settle(found, state))
        answer.set_result(messages.Done(affected=affected) if affected else refused)

    def _settle(self, found: list[list[Sought]], state: str) -> None:
        for page in found:
            for job in page:
                self._follow(job, state)
