"""The processor actor: puts described instances on record, closes groups, and decides on their jobs."""

import time
from collections.abc import Collection, Iterator
from typing import ClassVar

from actors.actor import Actor, Timer
from actors.processor.asking import Asker
from actors.processor.associations import Associations
from actors.processor.closing import Closer
from actors.processor.comparison import Comparer
from actors.processor.foreign import Surroundings
from actors.processor.forgetting import forgetting
from actors.processor.groups import OpenGroup, OpenGroups
from actors.processor.history import History
from actors.processor.intake import Intake
from actors.processor.jobs import Announcer, JobMaker
from actors.processor.quarantine import Quarantine
from actors.processor.recording import Recorder
from actors.processor.registry import Registry
from actors.processor.shards import OpenShards
from actors.processor.sweep import SWEEP_SECONDS, Sweep
from protocol import channels, clock, killpoints, messages
from protocol.availability import LEDGER_AWAY, Availability
from protocol.birth import Birth
from protocol.clock import NANOSECONDS
from protocol.config import Settings
from protocol.ledger import PAGE_ROWS, Instance, InstanceHistory, Ledger, pages, tuples
from protocol.ledger.past import LOOK_SECONDS
from protocol.spool import Spool

_BUSY_SECONDS = 2.0  # below the patience of whoever watches the heartbeats
_FIRST_SWEEP_SECONDS = 0.1  # the channels must be connected
_BATCHES_BEFORE_CLOSING = 4


class Processor(Actor):
    """One processor; it owns the tables Group, Instance, InstanceHistory, SealedShard and Job."""

    kind: ClassVar[str] = "processor"

    def __init__(self, birth: Birth, settings: Settings) -> None:
        super().__init__(birth, settings)
        self._sweep_steps: Iterator[None] | None = None
        self._work_timer: Timer | None = None

    def start(self) -> None:
        """Open the ledger, and know again what was known before."""
        self._ledger = ledger = Ledger(self.settings.database, busy_seconds=_BUSY_SECONDS, waiting=self.wait_for_ledger)
        self._availability = Availability(ledger, self.log)
        spool = Spool(self.settings.storage.temporary)
        self._registry = registry = Registry(
            self.log,
            Surroundings(
                loop=self,
                log=self.log,
                loaded=self._job_processor_loaded,
                planned=self._jobs_planned,
            ),
        )
        self._groups = groups = OpenGroups(self.settings.dicom.scp.repeat_seconds)
        self._shards = shards = OpenShards(spool, _on_record)
        self._associations = associations = Associations(spool)
        self._comparer = Comparer(spool, self.post, self.log)
        recorder = Recorder(
            ledger=ledger,
            spool=spool,
            registry=registry,
            groups=groups,
            associations=associations,
            comparer=self._comparer,
        )
        self._intake = Intake(recorder, shards, self._comparer, self.log)
        self._asker = Asker(self.bus.sender(channels.INSTANCES).send)
        self._quarantine = Quarantine(ledger, spool, self._asker)
        self._closer = Closer(
            groups=groups,
            shards=shards,
            associations=associations,
            registry=registry,
            log=self.log,
            hurry=lambda moment: self.board.set_awaited(moment.boot_ns),
        )
        self._jobs = JobMaker(ledger, registry, self.log)
        self._announcer = Announcer(self.bus.sender(channels.JOBS).send)
        self._sweep = Sweep(
            ledger=ledger,
            spool=spool,
            registry=registry,
            shards=shards,
            associations=associations,
            intake=self._intake,
            asker=self._asker,
            closer=self._closer,
            announcer=self._announcer,
            history=History(ledger, spool),
        )
        self._forgetting = forgetting(ledger, self.log)
        self.every(LOOK_SECONDS, self._forget)
        self._load()
        self.after(_FIRST_SWEEP_SECONDS, self._begin_sweep)
        self.every(SWEEP_SECONDS, self._begin_sweep)
        self._set_wake()

    def handle_instances_described(self, message: messages.InstancesDescribed) -> None:
        """From an extractor; recorded with what else comes in this moment."""
        self._intake.add(message.instances, lenient=message.lenient)

    def handle_ae_titles_changed(self, message: messages.AeTitlesChanged) -> messages.Message:  # noqa: ARG002
        """Take over what changed; a new timeout applies to open groups at once."""
        try:
            self._registry.refresh()
        except LEDGER_AWAY as error:
            return self._refuse(error)
        self._closer.timeouts_changed()
        return messages.Done()

    def handle_release_instances(self, message: messages.ReleaseInstances) -> messages.Message:
        """Have quarantined instances described again, leniently."""
        try:
            return messages.Done(affected=self._quarantine.release(message.identifiers))
        except LEDGER_AWAY as error:
            return self._refuse(error)

    def handle_discard_instances(self, message: messages.DiscardInstances) -> messages.Message:
        """Give quarantined instances up."""
        try:
            return messages.Done(affected=self._quarantine.discard(message.identifiers))
        except LEDGER_AWAY as error:
            return self._refuse(error)

    def after_turn(self) -> None:
        """Wake up when there is something to record, or a group to look at."""
        self._set_wake()

    def settings_changed(self, settings: Settings) -> None:
        """Take over how long repeats are compared."""
        self._groups.repeat_seconds = settings.dicom.scp.repeat_seconds

    def drain(self) -> None:
        """Record what is in hand; groups stay open for the successor."""
        if not self._availability.doubtful:
            try:
                while self._record():
                    pass
            except LEDGER_AWAY as error:
                self._availability.failed(error)
        self.finish()

    def stop(self) -> None:
        """Let go of the ledger, and of the job processors of other packages."""
        self._registry.close()
        self._comparer.stop()
        self._ledger.close()

    def busy_with(self) -> str:
        """What there is to do."""
        told = f"{len(self._groups)} open groups, {self._closer.held} of them past their deadline"
        waiting = self._registry.waiting
        return f"{told}; {waiting} instances wait for their job processors" if waiting else told

    def _load(self) -> None:
        """Make memory what the ledger and the spool say."""
        self._registry.refresh()
        self._sweep.load_sealed()
        self._groups.load(clock.now())
        self._registry.prepare({group.ae_title for group in self._groups})
        self._closer.forget()
        self._closer.timeouts_changed()
        self._shards.forget()
        self._shards.look()
        for group in self._groups:
            members = Instance.select(Instance.identifier, Instance.sop_instance_uid).where(
                Instance.group_id == group.group_id
            )
            for rows in pages(members.namedtuples(), Instance.identifier):
                for row in rows:
                    group.held.add(hash(row.sop_instance_uid))
                    self._associations.note(row.identifier, group.ae_title, group.group_id)
        self._quarantine.load()
        self._announcer.load()
        self._intake.forget_recorded()

    def _set_wake(self) -> None:
        at = self._next_wake()
        if self._work_timer is not None and self._work_timer.callback is not None:
            if self._work_timer.at <= at:
                return
            self._work_timer.cancel()
        self._work_timer = self.at(at, self._work) if at < float("inf") else None

    def _next_wake(self) -> float:
        if self._availability.doubtful:
            return self._availability.retry_at
        look = self._groups.next_look()
        times = [self._intake.next_at()]
        if look is not None:
            times.append(time.monotonic() + look - clock.now().boot_ns / NANOSECONDS)
        return min((at for at in times if at is not None), default=float("inf"))

    def _work(self) -> None:
        """Record what is due, close what is due."""
        self._work_timer = None
        if self._availability.paused:
            return
        try:
            if self._availability.doubtful:
                self._load()
                self._availability.reloaded()
            look = self._groups.next_look()
            if look is not None and look <= clock.now().boot_ns / NANOSECONDS:
                for _ in range(_BATCHES_BEFORE_CLOSING):
                    if not self._record():
                        break
                self._close()
            else:
                at = self._intake.next_at()
                if at is not None and at <= time.monotonic():
                    self._record()
        except LEDGER_AWAY as error:
            self._availability.failed(error)

    def _record(self) -> bool:
        """Record one batch; False when there was none."""
        outcome = self._intake.record()
        if outcome is None:
            return False
        self._asker.answered(outcome.recorded)
        self._asker.answered(description.instance.identifier for description, _ in outcome.unkeyed)
        self._asker.want(outcome.ask)
        self._asker.refill()
        if outcome.recorded:
            self._availability.committed()
            self._closer.look_again(clock.now())
        return True

    def _close(self) -> None:
        now = clock.now()
        closed, job_ids = self._jobs.close(
            self._closer.closable(now),
            now,
            failed=lambda group, seconds: self._closer.postpone(group, now, seconds),
            waits=lambda group: self._closer.await_plan(group, now),
        )
        for group in closed:
            self._availability.committed()
            self._closer.closed(group)
        self._announcer.announce(job_ids)
        if job_ids:
            killpoints.reach("processor.jobs-announced")

    def _job_processor_loaded(self, ae_title: str) -> None:
        """Its timeout is known now."""
        self._closer.timeouts_changed(ae_title)

    def _jobs_planned(self, group: OpenGroup) -> None:
        self._closer.planned(group, clock.now())

    def _begin_sweep(self) -> None:
        if self._sweep_steps is None and not self._availability.doubtful:
            self._sweep_steps = self._sweep.steps()
            self._sweep_step()

    def _sweep_step(self) -> None:
        """One step of the sweep a turn."""
        assert self._sweep_steps is not None
        try:
            next(self._sweep_steps)
        except StopIteration:
            self._sweep_steps = None
        except LEDGER_AWAY as error:
            self._sweep_steps = None
            self._availability.failed(error)
        else:
            self.post(self._sweep_step)

    def _forget(self) -> None:
        if not self._availability.doubtful:
            self._availability.attempt(lambda: self._forgetting.look(self.settings))

    def _refuse(self, error: Exception) -> messages.Refused:
        self._availability.failed(error)
        return messages.Refused(reason=f"the ledger does not answer now ({error}): try again", transient=True)


def _on_record(identifiers: Collection[str]) -> set[str]:
    """Of some identifiers, those that have a row."""
    found = set()
    listed = list(identifiers)
    for start in range(0, len(listed), PAGE_ROWS):
        some = listed[start : start + PAGE_ROWS]
        for table in (Instance, InstanceHistory):
            found |= {row[0] for row in tuples(table.select(table.identifier).where(table.identifier.in_(some)))}
    return found
