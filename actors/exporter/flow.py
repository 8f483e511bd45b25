"""What happens to a task that has begun: its files are found, sent to each destination, and its try is judged."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from actors.exporter import destinations
from actors.exporter.destinations import Route
from actors.exporter.lanes import Lanes, pause_seconds
from actors.exporter.payloads import Payloads
from actors.exporter.records import EMBEDDED, Records
from actors.exporter.sender import Outcome, Report
from actors.exporter.tasks import FAILURE, ActiveTask, Batch, Fetched, Missing, Verdict, judge
from protocol import killpoints
from protocol.availability import LEDGER_AWAY
from protocol.config.settings import Scu
from protocol.errors import AdapterError
from protocol.logs import EventLogger
from protocol.states import TaskState
from protocol.vault import Vault

_TOO_EARLY_SECONDS = 1.0
_AGAIN_SECONDS = 15.0


class Flow:
    """All tasks that have begun.

    Args:
        records: their rows.
        payloads: their files.
        lanes: the destinations' turns.
        vault: opens credentials.
        scu: how things are sent.
        log: of the actor.
        helpers: threads that find files.
        senders: threads that send them.
        post: has the main loop call something.
        surely: has the main loop do something that begins with a commit.
        stopping: set when this process is about to end.
    """

    def __init__(  # each by name
        self,
        *,
        records: Records,
        payloads: Payloads,
        lanes: Lanes[Batch],
        vault: Vault,
        scu: Scu,
        log: EventLogger,
        helpers: ThreadPoolExecutor,
        senders: ThreadPoolExecutor,
        post: Callable[[Callable[[], None]], None],
        surely: Callable[[Callable[[], None]], None],
        stopping: threading.Event,
    ) -> None:
        self._records = records
        self._payloads = payloads
        self._lanes = lanes
        self._vault = vault
        self._scu = scu
        self._log = log
        self._helpers = helpers
        self._senders = senders
        self._post = post
        self._surely = surely
        self._stopping = stopping
        self._chance = random.Random()  # noqa: S311 # jitter
        self._reports: list[tuple[Missing, Report]] = []
        self._silent: set[str] = set()  # destinations of which it was told that they do not answer
        self.tasks: dict[str, ActiveTask] = {}
        self.preparing = 0

    def begin(self, task: ActiveTask) -> None:
        """Find a task's destinations and files."""
        self.tasks[task.row.task_id] = task
        self.preparing += 1
        self._helpers.submit(self._prepare, task)

    def resume(self, task: ActiveTask) -> None:
        """Go on with a task that the last process had begun."""
        self.begin(task)

    def send(self, clock: float) -> None:
        """Start what has its turn."""
        for batch in self._lanes.take(clock):
            self._senders.submit(self._deliver, batch)

    def cancel(self, task_id: str) -> None:
        """A person has given a task up, and its row says so."""
        task = self.tasks.pop(task_id, None)
        if task is not None:
            task.over = True
            task.stopping.set()
            for batch in task.batches:
                self._lanes.remove(batch)
            self._payloads_done(task)

    def stop(self) -> None:
        """Begin no further file."""
        for task in self.tasks.values():
            task.stopping.set()

    def close(self) -> None:
        """Wait for the threads that send."""
        self._senders.shutdown(wait=True, cancel_futures=True)

    def gather(self) -> None:
        """Have what destinations have answered committed."""
        if self._reports:
            reports, self._reports = self._reports, []

            def note() -> None:
                self._records.note_reports(reports)
                killpoints.reach("exporter.deliveries-recorded")

            self._surely(note)

    # In threads.

    def _prepare(self, task: ActiveTask) -> None:
        route, fetched, reason = Route(), Fetched(), ""
        try:
            route = destinations.route(task.row, self._vault)
            if route.targets:
                wanted = self._records.wanted(task.row, route.targets)
                fetched = self._payloads.fetch(task.row, wanted, task.stopping)
        except LEDGER_AWAY as error:
            reason = f"the ledger could not be read: {type(error).__name__}"
        except AdapterError as error:
            reason = str(error)
        except Exception as error:
            # One task's trouble, tried again later; the others go on.
            self._log.unexpected("preparation_broke", task_id=task.row.task_id)
            reason = f"unexpected {type(error).__name__}: see the log"
        self._post(lambda: self._prepared(task, route, fetched, reason))

    def _deliver(self, batch: Batch) -> None:
        down = ""

        def report(said: Report) -> None:
            if said.outcome is Outcome.DELIVERED:
                killpoints.reach("exporter.answered")
            self._post(lambda: self._answered(batch, said))

        try:
            batch.target.sender(self._scu).deliver(batch.files, report, batch.task.stopping)
        except AdapterError as error:  # DestinationDownError among them
            down = str(error)
        except Exception as error:
            self._log.unexpected("delivery_broke", task_id=batch.task.row.task_id, destination=batch.lane)
            down = f"unexpected {type(error).__name__}: see the log"
        self._post(lambda: self._ended(batch, down))

    # In the main loop.

    def _prepared(self, task: ActiveTask, route: Route, fetched: Fetched, reason: str) -> None:
        self.preparing -= 1
        if task.over:
            self._payloads_done(task)
            return
        if self._stopping.is_set():
            return  # the next process begins anew
        row = task.row
        task.problem = route.problem or fetched.refused
        if reason or fetched.too_early:
            pause = _TOO_EARLY_SECONDS if fetched.too_early else _AGAIN_SECONDS
            self._surely(lambda: self._put_back(task, reason, pause))
        elif not route.targets or fetched.refused or not row.files:
            task.problem = task.problem or "the task names no files"
            self._surely(lambda: self._give_up(task))
        elif len(fetched.problems) / row.files > self._scu.export.failure_threshold:
            lost = next(iter(fetched.problems.values()))
            task.problem = f"{len(fetched.problems)} of {row.files} files cannot be had: {lost}"
            self._surely(lambda: self._give_up(task))
        else:
            self._surely(lambda: self._plan(task, route, fetched))

    def _put_back(self, task: ActiveTask, reason: str, pause: float) -> None:
        if task.over:
            return
        known = reason == task.row.last_error
        self._records.put_back(task.row, reason, pause)
        if reason and not task.rests:  # that a destination is down was told
            write = self._log.debug if known else self._log.warning
            write("task_put_off", task_id=task.row.task_id, reason=reason, again_seconds=pause)
        self._forget(task)

    def _plan(self, task: ActiveTask, route: Route, fetched: Fetched) -> None:
        if task.over:
            return
        missing = self._records.plan(task.row, route.targets, dict(fetched.problems))
        killpoints.reach("exporter.deliveries-planned")
        task.targets = tuple(target.name for target in route.targets)
        batches = [
            Batch(task, target, missing[target.name], fetched.paths) for target in route.targets if missing[target.name]
        ]
        # One that is down has its turn after its pause: what goes elsewhere does not wait for that.
        downs = [self._lanes.down_seconds(batch.lane, time.monotonic()) for batch in batches]
        task.rests = max(downs, default=0.0)
        task.batches = {batch for batch, down in zip(batches, downs, strict=True) if not down}
        for batch in batches:
            if batch in task.batches:
                self._lanes.add(batch)
        if not task.batches:
            self._judge(task)

    def _answered(self, batch: Batch, said: Report) -> None:
        missing = batch.answered(said.uri)
        if missing is None:
            return
        batch.progress = batch.progress or said.outcome is Outcome.DELIVERED
        self._reports.append((missing, said))
        self._log.debug(
            "delivery",
            task_id=batch.task.row.task_id,
            destination=batch.lane,
            file=said.uri,
            outcome=said.outcome.value,
            reason=said.reason,
        )

    def _ended(self, batch: Batch, down: str) -> None:
        """An association, or a series of calls, is over."""
        self.gather()
        waiting = self._lanes.ended(batch, down=bool(down), progress=batch.progress, clock=time.monotonic())
        ended = [(batch, down), *((other, down) for other in waiting)]
        self._tell_of(batch, down)
        if self._stopping.is_set():
            return
        self._surely(lambda: self._settle(ended))

    def _settle(self, ended: list[tuple[Batch, str]]) -> None:
        ended = [(batch, down) for batch, down in ended if not batch.task.over]
        if any(down for _, down in ended):
            self._records.note_down([(batch, down) for batch, down in ended if down])
        for batch, down in ended:
            task = batch.task
            if down and batch in task.batches:
                task.unreachable = down
            task.batches.discard(batch)
        for task in {batch.task for batch, _ in ended}:
            if not task.batches:
                self._surely(lambda task=task: self._judge(task))  # type: ignore[misc]

    def _judge(self, task: ActiveTask) -> None:
        """All destinations have had their turn: see what that means."""
        if task.over:
            return
        row = task.row
        if task.rests:
            self._put_back(task, "a destination does not answer: it is tried again after its pause", task.rests)
            return
        counts = self._records.counts(row, task.targets)
        export = self._scu.export
        verdict = judge(
            files=row.files,
            counts=counts,
            threshold=export.failure_threshold,
            retries=row.retries,
            most_retries=export.maximum_retries,
            hopeless=bool(task.problem),
        )
        if verdict.state is TaskState.PENDING and row.origin == EMBEDDED and not any(each.pending for each in counts):
            # All that is missing was refused for good. Another results service is told what the original told it.
            verdict = msgspec.structs.replace(verdict, state=TaskState.FAILED, report=FAILURE)
        reason = ""
        if verdict.failed:
            why = task.problem or task.unreachable or self._records.some_error(row)
            reason = f"{verdict.failed} of {row.files} files not delivered: {why}"
        self._finish(task, verdict, reason, unreachable=bool(task.unreachable) and not task.problem)

    def _give_up(self, task: ActiveTask) -> None:
        if not task.over:
            verdict = Verdict(state=TaskState.FAILED, report=FAILURE, failed=task.row.files)
            self._finish(task, verdict, task.problem, unreachable=False)

    def _finish(self, task: ActiveTask, verdict: Verdict, reason: str, *, unreachable: bool) -> None:
        row = task.row
        pause = pause_seconds(row.retries + 1, self._chance)
        self._records.finish(row, verdict, reason=reason, unreachable=unreachable, pause_seconds=pause)
        killpoints.reach("exporter.task-judged")
        fields: dict[str, Any] = {
            "task_id": row.task_id,
            "job_id": row.job_id,
            "agent": row.agent,
            "destination": row.destination,
            "files": row.files,
            "failed": verdict.failed,
        }
        if verdict.state is TaskState.SUCCEEDED:
            write = self._log.warning if verdict.failed else self._log.info
            write("task_succeeded", **fields, reason=reason)
        elif verdict.state is TaskState.PENDING:
            self._log.warning("task_failed", **fields, reason=reason, retries=row.retries)
        else:
            remedy = (
                "it goes on by itself when the destination answers"
                if row.unreachable and not row.report
                else ("see the reason, then dicom-adapter exports retry or cancel")
            )
            self._log.error("task_failed", **fields, reason=reason, retries=row.retries, remedy=remedy)
        self._forget(task)

    def _forget(self, task: ActiveTask) -> None:
        task.over = True
        self.tasks.pop(task.row.task_id, None)
        self._payloads_done(task)

    def _payloads_done(self, task: ActiveTask) -> None:
        if not self._stopping.is_set():
            self._helpers.submit(self._payloads.discard, task.row.task_id)

    def _tell_of(self, batch: Batch, down: str) -> None:
        """An outage of a destination is told once, and its end."""
        key = batch.lane.casefold()
        if down and key not in self._silent:
            self._silent.add(key)
            self._log.warning("destination_down", destination=batch.lane, reason=down)
        elif not down and key in self._silent:
            self._silent.discard(key)
            self._log.info("destination_answers_again", destination=batch.lane)
