"""When a group closes: it has been quiet, all that was on disk is on record, and nothing of it is in transit.

The three conditions are those of docs/architecture.md, "Describing and grouping". What was on disk is looked at once,
at the deadline, and then waited for; so an AE title that never rests cannot hold its groups open.
"""

import dataclasses
import enum
from collections.abc import Callable

from actors.processor.associations import Associations
from actors.processor.groups import OpenGroup, OpenGroups
from actors.processor.registry import Registry
from actors.processor.shards import Listing, OpenShards
from protocol.clock import NANOSECONDS, Moment
from protocol.logs import EventLogger

LONGEST_TRANSIT_SECONDS = 900.0
RECHECK_SECONDS = 0.25
_AT_ONCE = 100
TIMEOUT_OF_UNKNOWN_SECONDS = 5.0
_TOLD_AFTER_SECONDS = 10.0
_PLAN_SECONDS = 5.0


class Step(enum.Enum):
    """What is to be done with a group now."""

    WAIT = "it is not quiet long enough"
    AWAIT_RECORD = "instances that were stored before its deadline are not on record"
    AWAIT_TRANSIT = "an association is in the middle of an object that may belong to it"
    CLOSE = "all is there"


def next_step(*, clock: float, deadline: float, awaited: bool, transit: bool) -> Step:
    """The rule.

    Args:
        clock: now, in seconds.
        deadline: when the group has been quiet for its timeout, on the same clock.
        awaited: an instance of its AE title that was on disk at the deadline is not on record.
        transit: an object is in transit on an association whose latest instance is in the group.
    """
    if clock < deadline:
        return Step.WAIT
    if awaited:
        return Step.AWAIT_RECORD
    if transit and clock < deadline + LONGEST_TRANSIT_SECONDS:
        return Step.AWAIT_TRANSIT
    return Step.CLOSE


class Snapshot:
    """What was on disk, or in transit, at a deadline; groups that are due together share it.

    Args:
        listing: of that moment.
        shards: tell what has come on record since.
        associations: tell the AE titles.
    """

    def __init__(self, listing: Listing, shards: OpenShards, associations: Associations) -> None:
        self._shards = shards
        self._awaited: dict[str, set[str]] = {}
        self.transit = set(listing.transit)
        for identifier in listing.missing:
            ae_title = associations.ae_title(identifier)
            if ae_title is not None:
                self._awaited.setdefault(ae_title, set()).add(identifier)

    def awaits(self, ae_title: str) -> bool:
        """Whether something of an AE title is not on record yet."""
        awaited = self._awaited.get(ae_title)
        while awaited:
            identifier = awaited.pop()
            if not self._shards.is_on_record(identifier):
                awaited.add(identifier)
                return True
        return False

    def retain(self, listing: Listing) -> None:
        """Forget what is not on disk any more."""
        for awaited in self._awaited.values():
            awaited.intersection_update(listing.missing)


@dataclasses.dataclass(slots=True)
class _Hold:
    """Why a group whose deadline has passed is still open.

    Args:
        deadline: which one; an instance that comes later makes another.
        snapshot: taken at that deadline.
        told: whether the log knows.
    """

    deadline: float
    snapshot: Snapshot
    told: bool = False


class Closer:
    """Finds the groups that may close.

    Args:
        groups: the open groups.
        shards: the open shards.
        associations: whose objects are in transit.
        registry: tells the timeouts.
        log: of the actor.
        hurry: called when a group waits for what extractors may have put off, with the moment.
    """

    def __init__(
        self,
        *,
        groups: OpenGroups,
        shards: OpenShards,
        associations: Associations,
        registry: Registry,
        log: EventLogger,
        hurry: Callable[[Moment], None],
    ) -> None:
        self._groups = groups
        self._shards = shards
        self._associations = associations
        self._registry = registry
        self._log = log
        self._hurry = hurry
        self._holds: dict[int, _Hold] = {}

    @property
    def held(self) -> int:
        """How many groups are past their deadline."""
        return len(self._holds)

    def closable(self, now: Moment) -> list[OpenGroup]:
        """Groups that close now, a bounded number; all others that were due have their next look.

        Raises:
            peewee.PeeweeException: the ledger does not answer; nothing was changed that matters.
        """
        clock = now.boot_ns / NANOSECONDS
        quiet = []
        for group in self._groups.due(clock, _AT_ONCE):
            deadline = self._deadline(group)
            # Its look is renewed before anything can fail, so that no group is ever forgotten.
            self._groups.look_at(group, deadline if clock < deadline else clock + RECHECK_SECONDS)
            if clock < deadline:
                self._holds.pop(group.group_id, None)
            else:
                quiet.append(group)
        listing: Listing | None = None
        shared: Snapshot | None = None
        ready = []
        held_up = False
        for group in quiet:
            hold = self._holds.get(group.group_id)
            if hold is None or hold.deadline != self._deadline(group):
                listing = listing or self._shards.look()
                shared = shared or Snapshot(listing, self._shards, self._associations)
                hold = self._holds[group.group_id] = _Hold(self._deadline(group), shared)
            awaited = hold.snapshot.awaits(group.ae_title)
            transit = False
            if not awaited:
                listing = listing or self._shards.look()
                awaited, transit = self._in_transit(group, hold.snapshot, listing)
            step = next_step(clock=clock, deadline=hold.deadline, awaited=awaited, transit=transit)
            if step is Step.CLOSE:
                ready.append(group)
            else:
                held_up |= step is Step.AWAIT_RECORD
                self._tell(group, hold, step, clock)
        if held_up:
            self._hurry(now)
        return ready

    def look_again(self, now: Moment) -> None:
        """Something came on record: look at the groups that wait for it at once."""
        for group_id in self._holds:
            group = self._groups.by_id(group_id)
            if group is not None:
                self._groups.look_at(group, now.boot_ns / NANOSECONDS)

    def postpone(self, group: OpenGroup, now: Moment, seconds: float) -> None:
        """Look at a group again after a pause: its jobs could not be made."""
        self._groups.look_at(group, now.boot_ns / NANOSECONDS + seconds)
        self._holds.pop(group.group_id, None)

    def await_plan(self, group: OpenGroup, now: Moment) -> None:
        """Look at a group again when its jobs are planned (`planned`); the pause is for what gets lost."""
        self._groups.look_at(group, now.boot_ns / NANOSECONDS + _PLAN_SECONDS)

    def planned(self, group: OpenGroup, now: Moment) -> None:
        """The jobs of a group were planned, or could not be; unless it has changed, look at it at once."""
        if self._groups.by_id(group.group_id) is group:
            self._groups.look_at(group, now.boot_ns / NANOSECONDS)

    def timeouts_changed(self, ae_title: str | None = None) -> None:
        """AE titles changed, or one did: each group's deadline is computed anew."""
        for group in self._groups:
            if ae_title in (None, group.ae_title):
                self._groups.look_at(group, self._deadline(group))

    def closed(self, group: OpenGroup) -> None:
        """A group was closed."""
        self._holds.pop(group.group_id, None)
        self._groups.remove(group)

    def forget(self) -> None:
        """Memory is loaded anew."""
        self._holds.clear()

    def retain(self, listing: Listing) -> None:
        """What has vanished from the disk is not waited for."""
        for hold in self._holds.values():
            hold.snapshot.retain(listing)

    def _deadline(self, group: OpenGroup) -> float:
        service = self._registry.service(group.ae_title)
        return group.last_at + (service.timeout_seconds if service else TIMEOUT_OF_UNKNOWN_SECONDS)

    def _in_transit(self, group: OpenGroup, snapshot: Snapshot, listing: Listing) -> tuple[bool, bool]:
        """Whether an object of the group was in transit and is not on record, and whether one is in transit.

        To be asked only when nothing else is awaited: before that it is not known whose latest instance is in the
        group. What was in transit at the deadline and has ended since must be on record, too.
        """
        snapshot.transit |= listing.transit
        own = {part for part in snapshot.transit if self._associations.latest_group(part) == group.group_id}
        return not own.isdisjoint(listing.missing), not own.isdisjoint(listing.transit)

    def _tell(self, group: OpenGroup, hold: _Hold, step: Step, clock: float) -> None:
        if not hold.told and clock - hold.deadline > _TOLD_AFTER_SECONDS:
            hold.told = True
            self._log.info("group_held", group=group.group_id, ae_title=group.ae_title, why=step.value)
