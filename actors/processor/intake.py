"""Collects descriptions and records them in batches; while the ledger is away it keeps them, up to a bound."""

import time
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec
import peewee as pw

from actors.processor.comparison import Comparer
from actors.processor.placing import Held
from actors.processor.plugin import Answer, Plugin
from actors.processor.recording import Description, Outcome, Recorder
from actors.processor.shards import OpenShards
from protocol import clock
from protocol.logs import EventLogger, Repeats
from protocol.messages import DescribedInstance

BATCH = 500
COLLECT_SECONDS = 0.1
MAXIMUM_PENDING = 50_000


class Intake:
    """What was described and is not on record yet.

    Args:
        recorder: records batches.
        shards: knows what is on record.
        comparer: compares what meets its like.
        log: of the actor.
    """

    def __init__(self, recorder: Recorder, shards: OpenShards, comparer: Comparer, log: EventLogger) -> None:
        self._recorder = recorder
        self._shards = shards
        self._comparer = comparer
        self._log = log
        self._quarantined = Repeats(log.warning)
        self._pending: deque[Description] = deque()
        self._in_hand: set[str] = set()
        self._collect_until = 0.0

    def add(self, instances: Iterable[DescribedInstance], *, lenient: bool) -> None:
        """Take descriptions; one of an instance that is on record, or in hand, changes nothing."""
        if not self._pending:
            self._collect_until = time.monotonic() + COLLECT_SECONDS
        for instance in instances:
            identifier = instance.identifier
            if identifier not in self._in_hand and (lenient or not self._shards.is_on_record(identifier)):
                self._in_hand.add(identifier)
                self._pending.append(Description(instance, lenient))
        if len(self._pending) > MAXIMUM_PENDING:
            self._log.warning("descriptions_dropped", count=len(self._pending), remedy="they are asked for again")
            self._in_hand.difference_update(each.instance.identifier for each in self._pending)
            self._pending.clear()

    def has(self, identifier: str) -> bool:
        """Whether an instance is described and will be on record soon."""
        return identifier in self._in_hand

    def next_at(self) -> float | None:
        """When there is something to record, on the monotonic clock."""
        if not self._pending:
            return None
        return 0.0 if len(self._pending) >= BATCH else self._collect_until

    def record(self) -> Outcome | None:
        """Record one batch; None when there is nothing to record.

        Raises:
            peewee.PeeweeException: the batch is kept.
        """
        if not self._pending:
            return None
        batch = [self._pending.popleft() for _ in range(min(BATCH, len(self._pending)))]
        try:
            outcome = self._record(batch)
        except pw.PeeweeException:
            self._pending.extendleft(reversed(batch))
            raise
        self._in_hand -= {each.instance.identifier for each in batch}
        for description, held in outcome.deferred:
            self._compare(description, held)
        for description, plugin in outcome.unkeyed:
            self._ask_key(description, plugin)
        self._shards.put_on_record(outcome.recorded)
        self._tell(outcome)
        return outcome

    def forget_recorded(self) -> None:
        """Let go of what turned out to be on record, after memory was loaded anew."""
        waiting = self._pending
        self._pending = deque()
        self._in_hand -= {each.instance.identifier for each in waiting}
        for each in waiting:
            self.add([each.instance], lenient=each.lenient)

    def tick(self) -> None:
        """Write the counts of what was summed up; call it every few seconds."""
        self._quarantined.flush()

    def _compare(self, description: Description, held: Held) -> None:
        """Have an instance compared with what is held; then it comes again."""
        instance = description.instance
        self._in_hand.add(instance.identifier)
        self._comparer.start(
            (instance.identifier, instance.dataset_offset),
            (held.identifier, held.dataset_offset),
            lambda: self._pending.append(description),
        )

    def _ask_key(self, description: Description, plugin: Plugin) -> None:
        """Have an instance wait for what its job processor says; beyond its bound it is left to the sweep."""
        if not plugin.full:
            self._in_hand.add(description.instance.identifier)
            plugin.ask_key(description.instance, lambda answer: self._come_again(description, answer))

    def _come_again(self, description: Description, answer: Answer | None) -> None:
        if not self._pending:
            self._collect_until = time.monotonic() + COLLECT_SECONDS
        self._pending.append(msgspec.structs.replace(description, answer=answer))

    def _record(self, batch: Sequence[Description]) -> Outcome:
        try:
            return self._recorder.record(batch, clock.now())
        except (pw.DataError, pw.IntegrityError) as error:
            if len(batch) > 1:
                return self._one_by_one(batch)
            # What the ledger refuses as it stands is kept with what is surely harmless.
            plain = batch[0].instance
            reason = f"the ledger refuses its description ({type(error).__name__})"
            harmless = DescribedInstance(
                identifier=plain.identifier, stored=plain.stored, size=plain.size, problem=reason
            )
            return self._recorder.record([Description(harmless, batch[0].lenient)], clock.now())

    def _one_by_one(self, batch: Sequence[Description]) -> Outcome:
        total = Outcome()
        for description in batch:
            outcome = self._record([description])
            total.recorded += outcome.recorded
            total.ask += outcome.ask
            total.deferred += outcome.deferred
            total.unkeyed += outcome.unkeyed
            total.quarantined += outcome.quarantined
            total.gone += outcome.gone
        return total

    def _tell(self, outcome: Outcome) -> None:
        for instance, reason in outcome.quarantined:
            self._quarantined.add(
                "instance_quarantined",
                f"{instance.calling_ae_title}@{instance.host}",
                ae_title=instance.called_ae_title,
                identifier=instance.identifier,
                reason=reason,
            )
        if outcome.gone:
            self._log.debug("descriptions_without_use", count=outcome.gone)
