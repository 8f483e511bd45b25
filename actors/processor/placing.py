"""Decides which group an instance belongs to, and whether it is new there, a repeat, or another version.

It works on a batch at a time and changes nothing: the recorder commits what was decided.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import msgspec

from actors.processor.comparison import Comparer
from actors.processor.groups import ClosedGroup, Key, OpenGroup, OpenGroups, boot_seconds
from actors.processor.registry import Service
from protocol.clock import Moment, seconds_between
from protocol.ledger import Instance, Job, Submission, tuples
from protocol.messages import DescribedInstance
from protocol.states import InstanceState, JobState, advance


class Entry(msgspec.Struct):
    """An instance on its way to its row.

    Args:
        instance: its description.
        state: what it is to be.
        reason: why it is quarantined.
        group_id: its group, None while it has none.
        before: the state of the row that it has already, when a person released it.
    """

    instance: DescribedInstance
    state: InstanceState = InstanceState.QUARANTINED
    reason: str = ""
    group_id: int | None = None
    before: InstanceState | None = None

    def become(self, state: InstanceState) -> None:
        """Take a state, as the life cycle of its row allows."""
        self.state = state if self.before is None else advance(self.before, state)


class Held(msgspec.Struct, frozen=True):
    """A Grouped instance that another of the same SOP Instance UID meets; `entry` when both are of one batch."""

    identifier: str
    dataset_offset: int
    size: int
    stored: Moment
    entry: Entry | None = None


@dataclasses.dataclass(slots=True)
class Slot:
    """A group key within a batch.

    Args:
        key: AE title and group key.
        service: the AE title's.
        revision: of the group that would be opened.
        before: closed groups of the key.
        group: the open group as it will be; None when there is none yet.
        entries: what comes.
        changed: whether `group` must be written.
    """

    key: Key
    service: Service
    revision: int
    before: tuple[ClosedGroup, ...]
    group: OpenGroup | None
    entries: Sequence[Entry]
    changed: bool = False
    held: dict[tuple[int, str], Held] = dataclasses.field(default_factory=dict)


class Placer:
    """Places the entries of one batch.

    Args:
        groups: the open groups; they are not changed.
        comparer: compares datasets.
        now: this moment.
    """

    def __init__(self, groups: OpenGroups, comparer: Comparer, now: Moment) -> None:
        self._groups = groups
        self._comparer = comparer
        self._now = now
        self.placed: list[Entry] = []
        self.comparisons: list[tuple[Entry, Held]] = []
        self.superseded: list[str] = []
        self.changed: list[OpenGroup] = []

    def place(self, keyed: Mapping[Key, tuple[Service, list[Entry]]]) -> None:
        """Give each entry its group and state, or find what it must be compared with first.

        The results are in `placed`, `comparisons`, `superseded` (identifiers of rows that lose their place) and
        `changed` (groups as they will be).

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        closed = self._groups.closed_before([key for key in keyed if self._groups.get(key) is None], self._now)
        for key, (service, entries) in keyed.items():
            group = self._groups.get(key)
            if group is not None:
                slot = Slot(key, service, group.revision, group.before, dataclasses.replace(group), entries)
            else:
                slot = Slot(key, service, *closed.get(key, (0, ())), None, entries)
            _read_held(slot)
            for entry in entries:
                other = self._place(slot, entry)
                if other is None:
                    self.placed.append(entry)
                else:
                    self.comparisons.append((entry, other))
            if slot.group is not None and slot.changed:
                self.changed.append(slot.group)

    def _place(self, slot: Slot, entry: Entry) -> Held | None:
        """Place one; the answer is what it must be compared with first."""
        uid = entry.instance.sop_instance_uid
        held = slot.held.get((slot.group.group_id, uid)) if slot.group and uid else None
        if held is not None:
            return self._meet(slot, entry, held)
        for closed in slot.before:
            held = slot.held.get((closed.group_id, uid)) if uid else None
            stored_at = boot_seconds(entry.instance.stored, self._now)
            if held is None or stored_at - closed.closed_at > self._groups.repeat_seconds:
                continue
            same = self._same(entry, held)
            if same is None:
                return held
            if same:
                entry.group_id = closed.group_id
                entry.become(InstanceState.REPEATED)
                return None
        self._join(slot, entry).instances += 1
        self._hold(slot, entry)
        return None

    def _meet(self, slot: Slot, entry: Entry, held: Held) -> Held | None:
        """Place an instance whose SOP Instance is in the open group already."""
        same = self._same(entry, held)
        if same is None:
            return held
        self._join(slot, entry)
        later = seconds_between(held.stored, entry.instance.stored) >= 0
        if same:
            entry.become(InstanceState.REPEATED)
        elif later == slot.service.overwrite or not self._comparer.is_there(held.identifier):
            if held.entry is None:
                advance(InstanceState.GROUPED, InstanceState.SUPERSEDED)
                self.superseded.append(held.identifier)
            else:
                held.entry.become(InstanceState.SUPERSEDED)
            self._hold(slot, entry)
        else:
            entry.become(InstanceState.SUPERSEDED)
        return None

    def _join(self, slot: Slot, entry: Entry) -> OpenGroup:
        """Make an instance a member of the slot's open group; open one if there is none."""
        stored = entry.instance.stored
        stored_at = boot_seconds(stored, self._now)
        if slot.group is None:
            slot.group = OpenGroup(
                group_id=self._groups.new_id(),
                ae_title=slot.key[0],
                key=slot.key[1],
                revision=slot.revision,
                processor=slot.service.processor,
                opened_ns=self._now.wall_ns,
                last=stored,
                last_at=stored_at,
                before=slot.before,
            )
        elif stored_at > slot.group.last_at:
            slot.group.last = stored
            slot.group.last_at = stored_at
        slot.changed = True
        entry.group_id = slot.group.group_id
        return slot.group

    def _hold(self, slot: Slot, entry: Entry) -> None:
        """Let an instance stand for its SOP Instance in the open group."""
        entry.become(InstanceState.GROUPED)
        instance = entry.instance
        if instance.sop_instance_uid:
            assert slot.group is not None
            slot.held[slot.group.group_id, instance.sop_instance_uid] = Held(
                instance.identifier, instance.dataset_offset, instance.size, instance.stored, entry
            )

    def _same(self, entry: Entry, held: Held) -> bool | None:
        """Whether two datasets are equal; None when they must be read for it."""
        instance = entry.instance
        if instance.size - instance.dataset_offset != held.size - held.dataset_offset:
            return False
        return self._comparer.verdict(instance.identifier, held.identifier)


def _read_held(slot: Slot) -> None:
    """What the slot's groups hold of the SOP Instances that come."""
    uids = [entry.instance.sop_instance_uid for entry in slot.entries]
    given_up = _given_up([closed.group_id for closed in slot.before])
    for closed in slot.before:
        if closed.group_id not in given_up:
            _read_held_by(slot, closed.group_id, uids)
    if slot.group is not None:
        _read_held_by(slot, slot.group.group_id, [uid for uid in uids if hash(uid) in slot.group.held])


def _given_up(group_ids: Sequence[int]) -> set[int]:
    """Groups of which a person has discarded a job: they hold nothing any more, since who sends it again means it."""
    if not group_ids:
        return set()
    query = Job.select(Job.group_id).join(Submission, on=(Submission.job_id == Job.job_id))
    discarded = Job.group_id.in_(group_ids) & (Submission.state == JobState.DISCARDED)
    return {group_id for (group_id,) in tuples(query.where(discarded))}


def _read_held_by(slot: Slot, group_id: int, uids: Sequence[str]) -> None:
    if not uids:
        return
    query = Instance.select(
        Instance.sop_instance_uid,
        Instance.identifier,
        Instance.dataset_offset,
        Instance.size,
        Instance.stored_wall_ns,
        Instance.stored_boot_ns,
        Instance.boot,
    ).where(
        (Instance.group_id == group_id)
        & Instance.sop_instance_uid.in_(uids)
        & (Instance.state == InstanceState.GROUPED)
    )
    for uid, identifier, offset, size, *stored in tuples(query):
        slot.held[group_id, uid] = Held(identifier, offset, size, Moment(*stored))
