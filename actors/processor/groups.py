"""The open groups, in memory as in the ledger, and when each must be looked at for its close.

All times in memory are seconds of the boot clock, so that a step of the wall clock moves no deadline.
"""

import dataclasses
import heapq
from collections.abc import Iterable, Iterator
from typing import Any

import peewee as pw

from protocol.clock import NANOSECONDS, Moment, seconds_between
from protocol.ledger import Group, Instance, InstanceHistory, Job, Reclaim, pages, tuples
from protocol.states import GroupState

_LATE_SECONDS = 3600.0

Key = tuple[str, str]
"""AE title and group key."""


def boot_seconds(moment: Moment, now: Moment) -> float:
    """A moment on this boot's clock, in seconds; what seems to lie ahead counts as now.

    Args:
        moment: of any boot, or of a file's time stamp.
        now: this moment.
    """
    return now.boot_ns / NANOSECONDS - max(0.0, seconds_between(moment, now))


@dataclasses.dataclass(frozen=True, slots=True)
class ClosedGroup:
    """A closed group that repeats are compared with for some time.

    Args:
        group_id: its row.
        closed_at: when it was closed, in boot seconds.
    """

    group_id: int
    closed_at: float


@dataclasses.dataclass(slots=True)
class OpenGroup:
    """A group that still takes instances.

    Args:
        group_id: its row.
        ae_title: the called AE title.
        key: what it is grouped by.
        revision: how many groups of this key were closed before.
        processor: the name of the job processor that opened it.
        opened_ns: wall time.
        last: when its latest instance was stored.
        last_at: the same in boot seconds.
        instances: how many are Grouped.
        before: closed groups of the same key.
        held: hashes of the SOP Instance UIDs of its Grouped instances; what is not among them is new, and only
            what is must be looked up.
    """

    group_id: int
    ae_title: str
    key: str
    revision: int
    processor: str
    opened_ns: int
    last: Moment
    last_at: float
    instances: int = 0
    before: tuple[ClosedGroup, ...] = ()
    held: set[int] = dataclasses.field(default_factory=set)

    def row(self) -> tuple[Any, ...]:
        """Its row in the ledger, in the order of `OpenGroups.COLUMNS`."""
        return (
            self.group_id,
            self.ae_title,
            self.processor,
            self.key,
            self.revision,
            GroupState.OPEN,
            self.instances,
            self.last.wall_ns,
            self.last.boot_ns,
            self.last.boot,
            self.opened_ns,
        )


class OpenGroups:
    """The open groups by key, and a queue of when to look at each.

    Args:
        repeat_seconds: how long closed groups are compared with what repeats them.
    """

    COLUMNS = (
        Group.group_id,
        Group.ae_title,
        Group.processor,
        Group.key_value,
        Group.revision,
        Group.state,
        Group.instances,
        Group.last_wall_ns,
        Group.last_boot_ns,
        Group.boot,
        Group.opened_ns,
    )

    def __init__(self, repeat_seconds: float) -> None:
        self.repeat_seconds = repeat_seconds
        self._by_key: dict[Key, OpenGroup] = {}
        self._by_id: dict[int, OpenGroup] = {}
        self._queue: list[tuple[float, int]] = []
        self._looks: dict[int, float] = {}
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[OpenGroup]:
        return iter(self._by_id.values())

    def get(self, key: Key) -> OpenGroup | None:
        """The open group of a key."""
        return self._by_key.get(key)

    def by_id(self, group_id: int) -> OpenGroup | None:
        """An open group."""
        return self._by_id.get(group_id)

    def new_id(self) -> int:
        """An identifier that no group has; this process alone makes groups."""
        self._next_id += 1
        return self._next_id - 1

    def load(self, now: Moment) -> None:
        """Read all from the ledger; what was in memory is forgotten.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        # Whoever knows something of a group that is gone must not find another one under its ID.
        known = (Group.group_id, Reclaim.group_id, Instance.group_id, InstanceHistory.group_id, Job.group_id)
        newest = [tuples(column.model.select(pw.fn.MAX(column)))[0][0] for column in known]
        next_id = max((each for each in newest if each is not None), default=0) + 1
        loaded = []
        for rows in pages(Group.select().where(Group.state == GroupState.OPEN), Group.group_id):
            for row in rows:
                last = Moment(row.last_wall_ns, row.last_boot_ns, row.boot)
                loaded.append(
                    OpenGroup(
                        group_id=row.group_id,
                        ae_title=row.ae_title,
                        key=row.key_value,
                        revision=row.revision,
                        processor=row.processor,
                        opened_ns=row.opened_ns,
                        last=last,
                        last_at=boot_seconds(last, now),
                        instances=row.instances,
                    )
                )
        closed = self.closed_before([(group.ae_title, group.key) for group in loaded if group.revision], now)
        self._by_key.clear()
        self._by_id.clear()
        self._queue.clear()
        self._looks.clear()
        self._next_id = next_id
        for group in loaded:
            group.before = closed.get((group.ae_title, group.key), (0, ()))[1]
            self.put(group)
            self.look_at(group, group.last_at)

    def closed_before(self, keys: Iterable[Key], now: Moment) -> dict[Key, tuple[int, tuple[ClosedGroup, ...]]]:
        """What was closed under some keys: the next free revision, and the groups that may still be repeated.

        Keys that never had a group are not in the answer.
        """
        by_title: dict[str, list[str]] = {}
        for ae_title, key in keys:
            by_title.setdefault(ae_title, []).append(key)
        found: dict[Key, tuple[int, tuple[ClosedGroup, ...]]] = {}
        for ae_title, values in by_title.items():
            query = Group.select(Group.key_value, Group.revision, Group.group_id, Group.state, Group.closed_ns)
            query = query.where((Group.ae_title == ae_title) & Group.key_value.in_(values)).order_by(Group.revision)
            for value, revision, group_id, state, closed_ns in tuples(query):
                closed = found.get((ae_title, value), (0, ()))[1]
                if state == GroupState.CLOSED:
                    closed_at = boot_seconds(Moment(closed_ns), now)
                    # A margin for what was stored in time and is described late.
                    if now.boot_ns / NANOSECONDS - closed_at < self.repeat_seconds + _LATE_SECONDS:
                        closed = (*closed, ClosedGroup(group_id, closed_at))
                found[ae_title, value] = (revision + 1, closed)
        return found

    def put(self, group: OpenGroup) -> None:
        """A group is open, or an open one has changed."""
        self._by_key[group.ae_title, group.key] = group
        self._by_id[group.group_id] = group

    def remove(self, group: OpenGroup) -> None:
        """A group is closed."""
        self._by_key.pop((group.ae_title, group.key), None)
        self._by_id.pop(group.group_id, None)
        self._looks.pop(group.group_id, None)

    def look_at(self, group: OpenGroup, at: float) -> None:
        """Have `due` hand a group out at a time in boot seconds, instead of when it was to be."""
        self._looks[group.group_id] = at
        heapq.heappush(self._queue, (at, group.group_id))

    def next_look(self) -> float | None:
        """When the first group must be looked at, in boot seconds."""
        while self._queue and self._looks.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    def due(self, clock: float, most: int) -> list[OpenGroup]:
        """Some of the groups to look at now; each must be given its next look, or be removed."""
        groups: list[OpenGroup] = []
        while len(groups) < most and (at := self.next_look()) is not None and at <= clock:
            group_id = heapq.heappop(self._queue)[1]
            del self._looks[group_id]
            groups.append(self._by_id[group_id])
        return groups
