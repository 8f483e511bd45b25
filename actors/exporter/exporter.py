"""The exporter: results → tasks → deliveries to C-STORE and STOW-RS destinations. Owner of the tasks and deliveries.

Finding files and sending them happens in threads; what comes of it is settled in the main loop, in its order, and each
change is committed before anything follows from it. While the ledger does not answer, what has to be committed waits.
"""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

from actors.actor import Actor
from actors.exporter.commands import Commands
from actors.exporter.flow import Flow
from actors.exporter.forgetting import forgetting
from actors.exporter.lanes import Lanes
from actors.exporter.lent import Lent
from actors.exporter.payloads import Payloads
from actors.exporter.polling import Poller
from actors.exporter.probing import Prober
from actors.exporter.records import Records
from actors.exporter.results.base import Offer
from actors.exporter.results.clara import ClaraResults
from actors.exporter.results.embedded import EmbeddedResults
from actors.exporter.tasks import ActiveTask, Batch
from protocol import killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.board import Intake
from protocol.ledger import Ledger
from protocol.ledger.past import LOOK_SECONDS
from protocol.platforms import EMBEDDED, open_platform
from protocol.platforms.base import Platform
from protocol.spool import Spool
from protocol.vault import Vault

_BUSY_SECONDS = 2.0  # below the patience of whoever watches the heartbeats
_STOW_SLOTS = 4
_HELPERS = 4
_SWEEP_SECONDS = 5.0
_PROBE_SECONDS = 5.0
_MOST_TASKS = 256


class Exporter(Actor):
    """Carries results out."""

    kind: ClassVar[str] = "exporter"

    def start(self) -> None:
        """Go on where the last process was."""
        settings = self.settings
        scu = settings.dicom.scu
        self._ledger = Ledger(settings.database, busy_seconds=_BUSY_SECONDS, waiting=self.wait_for_ledger)
        self._availability = Availability(self._ledger, self.log)
        spool = Spool(settings.storage.temporary)
        spool.create()
        self._vault = Vault(spool.root)
        self._stopping = threading.Event()
        self._work: deque[Callable[[], None]] = deque()
        self._records = Records(self._ledger, self._availability)
        self._lent = Lent(self._records)
        self._platform = self._open_platform()
        self._payloads = Payloads(spool, self._platform, lambda: self.board.intake is not Intake.PAUSED)
        self._lanes: Lanes[Batch] = Lanes(scu.maximum_number_of_associations, _STOW_SLOTS, random.Random())  # noqa: S311
        self._helpers = ThreadPoolExecutor(_HELPERS, thread_name_prefix="export")
        self._flow = Flow(
            records=self._records,
            payloads=self._payloads,
            lanes=self._lanes,
            vault=self._vault,
            scu=scu,
            log=self.log,
            helpers=self._helpers,
            senders=ThreadPoolExecutor(scu.maximum_number_of_associations + _STOW_SLOTS, thread_name_prefix="delivery"),
            post=self.post,
            surely=self.surely,
            stopping=self._stopping,
        )
        self._embedded = EmbeddedResults(scu, self._vault)
        self._polls = ThreadPoolExecutor(1, thread_name_prefix="results")
        self._poller = self._open_poller()
        self._polling = self._looking = False
        self._look_again = self._due = True
        self._woken_at = 0.0
        self._prober = Prober(self._records, self._vault, scu, self.log, self.post)
        self._commands = Commands(self._records, self._flow, self._lanes, self._prober, self.log)
        rows = self._records.under_way()
        self._payloads.discard_all_but([])
        for row in rows:
            self._flow.resume(ActiveTask(row))
        self.every(scu.export.poll_frequency_ms / 1000, self._poll)
        self.every(_SWEEP_SECONDS, self._sweep)
        past = forgetting(self._ledger, self.log)
        self.every(LOOK_SECONDS, lambda: self._availability.attempt(lambda: past.look(self.settings)))
        self.every(_PROBE_SECONDS, lambda: self._read(lambda: self._prober.look(self._revived)))

    def after_turn(self) -> None:
        """Commit what has to be, then begin what has its turn."""
        self._flow.gather()
        self._commit_work()
        if self.draining:
            if not self._lanes.active and not self._flow.preparing:
                self.finish()
            return
        # While commits wait, each look would find the same results again.
        if self._look_again and not self._looking and not self._work:
            self._look()
        if self._due and not self._availability.paused:
            self._due = False
            self._read(self._begin_due)
        clock = time.monotonic()
        self._flow.send(clock)
        next_at = self._lanes.next_at(clock)
        if next_at is not None and next_at != self._woken_at:
            self._woken_at = next_at
            self.at(next_at, lambda: None)

    def drain(self) -> None:
        """Finish the file that each association is sending, and nothing else."""
        self._stopping.set()
        self._flow.stop()

    def stop(self) -> None:
        """Wait for the threads; each of their waits is bounded."""
        self._stopping.set()
        self._flow.stop()
        if self._platform is not None:
            self._platform.close()  # ends downloads that hang
        self._flow.close()
        self._polls.shutdown(wait=True, cancel_futures=True)
        self._helpers.shutdown(wait=True, cancel_futures=True)
        self._prober.stop()
        if self._clara is not None:
            self._clara.close()
        self._ledger.close()

    def busy_with(self) -> str:
        """How much there is."""
        tasks = len(self._flow.tasks)
        words = [f"{tasks} tasks, {self._lanes.active} under way" if tasks else "idle"]
        if self._lanes.down:
            words.append(f"{self._lanes.down} destinations do not answer")
        if self._poller is not None and not self._poller.answers:
            words.append("the results service does not answer")
        return "; ".join(words)

    def surely(self, work: Callable[[], None]) -> None:
        """Do something that begins with a commit, in its turn: again and again, while the ledger does not answer."""
        self._work.append(work)
        self._due = True  # what ends makes room

    # Messages.

    def handle_results_registered(self, _: messages.ResultsRegistered) -> None:
        """Runs have left something."""
        self._look_again = True

    def handle_register_task(self, command: messages.RegisterTask) -> messages.Message:
        """A pipeline, or whoever else, has results of its own to be exported."""
        offer = Offer(
            task_id=command.task_id,
            job_id=command.job_id,
            payload_id=command.payload_id,
            pipeline_id=command.pipeline_id,
            agent=command.agent,
            parameters=command.parameters,
            uris=command.uris,
        )
        return self._command(
            lambda: messages.Done(
                affected=self._records.record([offer], self._embedded.origin, self.settings.dicom.scu)
            )
        )

    def handle_take_tasks(self, command: messages.TakeTasks) -> messages.Message:
        """An agent that is no part of this system asks for work."""
        return self._command(lambda: messages.TasksTaken(task_ids=tuple(self._lent.lend(command.agent, command.size))))

    def handle_finish_task(self, command: messages.FinishTask) -> messages.Message:
        """Such an agent has done its work."""
        return self._command(lambda: self._lent.finish(command))

    def handle_retry_tasks(self, command: messages.RetryTasks) -> messages.Message:
        """A person wants tasks tried again."""
        return self._command(lambda: self._commands.retry(command))

    def handle_cancel_tasks(self, command: messages.CancelTasks) -> messages.Message:
        """A person gives tasks up."""
        return self._command(lambda: self._commands.cancel(command))

    def handle_probe_destination(
        self, command: messages.ProbeDestination
    ) -> "messages.Message | Future[messages.Message]":
        """A person asks whether a destination is there."""
        return self._prober.ask(command.destination)

    def _command(self, work: Callable[[], messages.Message]) -> messages.Message:
        try:
            # What threads have reported comes first, so that a command finds what is so.
            self._flow.gather()
            self._commit_work()
            if self._work:
                return messages.Refused(reason="the ledger does not answer now: try again", transient=True)
            answer = work()
        except LEDGER_AWAY as error:
            self._availability.failed(error)
            return messages.Refused(reason=f"the ledger does not answer now ({error}): try again", transient=True)
        self._due = True
        return answer

    # Work comes.

    def _open_platform(self) -> Platform | None:
        """Where payloads are downloaded; the embedded platform's are on this machine."""
        if self.settings.services.platform.endpoint == EMBEDDED:
            return None
        return open_platform(self.settings, self.bus, self._stopping)

    def _open_poller(self) -> Poller | None:
        """For a results service that is not ours."""
        endpoint = self.settings.services.results_service_endpoint
        self._clara = None if endpoint == "embedded" else ClaraResults(endpoint, self.log)
        if self._clara is None:
            return None
        scu, clara = self.settings.dicom.scu, self._clara
        return Poller(
            service=clara,
            agents=tuple(dict.fromkeys((scu.ae_title, scu.export.agent))),
            log=self.log,
            may_take=self._may_take,
            offered=lambda offers: self.post(lambda: self._offered(offers, clara.origin)),
            reported=lambda task_id, report: self.post(lambda: self._reported(task_id, report)),
        )

    def _may_take(self) -> bool:
        """Whether more tasks of others are welcome: there is room for what must be downloaded for them."""
        has_room = self._platform is None or self.board.intake is not Intake.PAUSED
        return has_room and len(self._flow.tasks) < _MOST_TASKS

    def _poll(self) -> None:
        """Ask a results service that is not ours, when the last answer is in; and see what is due."""
        self._due = True
        if self._poller is None or self._polling or self._poller.paused or self._availability.paused or self.draining:
            return
        # What the service has been told is put on record first, or it would be told twice.
        self._commit_work()
        if self._work:
            return
        poller = self._poller

        def poll() -> None:
            try:
                poller.turn(outcomes, held, self._stopping)
            except Exception:
                self.log.unexpected("poll_broke")
            finally:
                self.post(self._polled)

        try:
            outcomes, held = self._records.to_report(), self._records.held()
        except LEDGER_AWAY as error:
            self._availability.failed(error)
            return
        self._polling = True
        self._polls.submit(poll)

    def _polled(self) -> None:
        self._polling = False

    def _reported(self, task_id: str, report: str) -> None:
        killpoints.reach("exporter.reported")
        self.surely(lambda: self._records.reported(task_id, report))

    def _look(self) -> None:
        """Find results of the embedded platform, in a thread."""
        self._looking, self._look_again = True, False

        def look() -> None:
            offers: Sequence[Offer] = ()
            until_ns = 0
            try:
                began_ns = time.time_ns()
                offers = self._embedded.look()
                until_ns = began_ns
            except LEDGER_AWAY as error:
                problem = error
                self.post(lambda: self._availability.failed(problem))
            except Exception:
                self.log.unexpected("look_broke")
            finally:
                self.post(lambda: self._looked(offers, until_ns))

        self._helpers.submit(look)

    def _looked(self, offers: Sequence[Offer], until_ns: int) -> None:
        """Record tasks; only then may what was looked at be deleted."""
        self._looking = False
        if offers:
            self._offered(offers, self._embedded.origin)
        if until_ns:
            self.surely(lambda: self.board.set_tasks_made(until_ns))

    def _offered(self, offers: Sequence[Offer], origin: str) -> None:
        def record() -> None:
            new = self._records.record(offers, origin, self.settings.dicom.scu)
            killpoints.reach("exporter.tasks-recorded")
            if new:
                self.log.info("tasks_taken", tasks=new, origin=origin)

        self.surely(record)

    def _sweep(self) -> None:
        """Find what a lost message left behind, and what an agent has taken and not finished."""
        self._look_again = True
        self._read(self._lent.end_leases)

    def _begin_due(self) -> None:
        """Begin tasks whose destination would have its turn at once."""
        clock = time.monotonic()
        claimed = Counter(active.row.destination.casefold() for active in self._flow.tasks.values())
        chosen: list[str] = []
        for destination in self._records.waited_for():
            key = destination.casefold()
            room = min(self._lanes.room(key, clock) - claimed[key], _MOST_TASKS - len(self._flow.tasks) - len(chosen))
            if room > 0:
                task_ids = self._records.due(destination, room)
                claimed[key] += len(task_ids)
                chosen += task_ids
        if chosen:
            rows = self._records.begin(chosen)
            killpoints.reach("exporter.task-begun")
            for row in rows:
                self._flow.begin(ActiveTask(row))

    def _revived(self, destination: str) -> None:
        """A destination answers that did not."""

        def revive() -> None:
            count = self._records.revive(destination)
            self._lanes.reset(destination)
            self.log.info("tasks_taken_up", destination=destination, tasks=count, reason="it answers again")

        self.surely(revive)

    # The ledger.

    def _read(self, work: Callable[[], object]) -> None:
        """Something that a later look would do as well."""
        if self._availability.paused or self.draining:
            return
        try:
            work()
        except LEDGER_AWAY as error:
            self._availability.failed(error)

    def _commit_work(self) -> None:
        while self._work and not self._availability.paused:
            try:
                self._work[0]()
            except LEDGER_AWAY as error:
                self._availability.failed(error)
                self.at(self._availability.retry_at, lambda: None)  # the turn after it tries again
                return
            self._work.popleft()
