"""The closing rule by itself, on a clock of the test's own."""

from pathlib import Path

import pytest

from actors.processor.associations import Associations
from actors.processor.closing import LONGEST_TRANSIT_SECONDS, Closer, Step, next_step
from actors.processor.foreign import Surroundings
from actors.processor.groups import OpenGroup, OpenGroups, boot_seconds
from actors.processor.registry import Registry
from actors.processor.shards import Listing, OpenShards
from protocol.clock import NANOSECONDS, Moment
from protocol.logs import EventLogger
from protocol.spool import Spool
from tests.actors.processor.loop import Loop

TIMEOUT = 5.0  # of an AE title that is not configured


def moment(seconds: float) -> Moment:
    return Moment(int(seconds * NANOSECONDS), int(seconds * NANOSECONDS), "boot")


class Shards(OpenShards):
    """What is on disk, as the test says."""

    def __init__(self, spool: Spool) -> None:
        super().__init__(spool, lambda identifiers: set())
        self.missing: set[str] = set()
        self.transit: set[str] = set()

    def look(self) -> Listing:
        return Listing(frozenset(self.missing), frozenset(self.transit))

    def is_on_record(self, identifier: str) -> bool:
        return identifier not in self.missing


class Situation:
    """One group, stored at 0, and what surrounds it."""

    def __init__(self, directory: Path) -> None:
        spool = Spool(directory)
        self.shards = Shards(spool)
        self.groups = OpenGroups(repeat_seconds=60)
        self.associations = Associations(spool)
        self.hurried: list[Moment] = []
        log = EventLogger("adapter.processor")
        self.closer = Closer(
            groups=self.groups,
            shards=self.shards,
            associations=self.associations,
            registry=Registry(log, Surroundings(Loop(), log, loaded=lambda _: None, planned=lambda _: None)),
            log=log,
            hurry=self.hurried.append,
        )
        self.group = self.open("AE", 1)

    def open(self, ae_title: str, group_id: int, stored: float = 0.0) -> OpenGroup:
        group = OpenGroup(group_id, ae_title, f"key {group_id}", 0, "aetitle", 0, moment(stored), stored)
        self.groups.put(group)
        self.groups.look_at(group, stored)
        return group

    def later(self, group: OpenGroup, stored: float) -> None:
        """An instance of a group was stored and is on record."""
        group.last, group.last_at = moment(stored), stored

    def closes(self, clock: float) -> bool:
        """Whether the group closes at a time; all looks until then are taken."""
        return self.group in self.closer.closable(moment(clock))


@pytest.fixture
def situation(tmp_path: Path) -> Situation:
    return Situation(tmp_path)


@pytest.mark.parametrize(
    ("clock", "awaited", "transit", "step"),
    [
        (4.9, False, False, Step.WAIT),
        (4.9, True, True, Step.WAIT),
        (5.0, False, False, Step.CLOSE),
        (5.0, True, False, Step.AWAIT_RECORD),
        (5.0, True, True, Step.AWAIT_RECORD),
        (5.0, False, True, Step.AWAIT_TRANSIT),
        (4.9 + LONGEST_TRANSIT_SECONDS, False, True, Step.AWAIT_TRANSIT),
        (5.0 + LONGEST_TRANSIT_SECONDS, False, True, Step.CLOSE),
        (5.0 + LONGEST_TRANSIT_SECONDS, True, True, Step.AWAIT_RECORD),
    ],
)
def test_the_rule(clock: float, awaited: bool, transit: bool, step: Step) -> None:
    assert next_step(clock=clock, deadline=5.0, awaited=awaited, transit=transit) is step


def test_it_closes_at_the_deadline_and_not_before(situation: Situation) -> None:
    assert not situation.closes(0.0)
    assert situation.groups.next_look() == TIMEOUT
    assert not situation.closes(4.999)
    assert situation.closes(5.0)


def test_each_instance_moves_the_deadline(situation: Situation) -> None:
    situation.later(situation.group, 3.0)
    assert not situation.closes(5.0)
    assert situation.groups.next_look() == 8.0
    assert situation.closes(8.0)


def test_what_was_stored_before_the_deadline_is_awaited_and_nothing_after(situation: Situation) -> None:
    for association in ("a", "b"):
        situation.associations.note(f"s/{association}-000001", "AE", None)
    situation.shards.missing = {"s/a-000002"}
    assert not situation.closes(5.0)
    situation.shards.missing = {"s/a-000002", "s/b-000002"}
    assert not situation.closes(6.0)
    situation.shards.missing = {"s/b-000002"}
    assert situation.closes(7.0)


def test_extractors_are_told_that_a_group_waits_for_them(situation: Situation) -> None:
    situation.associations.note("s/a-000001", "AE", None)
    situation.shards.missing = {"s/a-000002"}
    assert not situation.closes(4.0)
    assert situation.hurried == []
    assert not situation.closes(5.0)
    assert situation.hurried == [moment(5.0)]


def test_an_instance_that_joins_after_the_deadline_makes_a_new_one(situation: Situation) -> None:
    situation.associations.note("s/a-000001", "AE", None)
    situation.shards.missing = {"s/a-000002"}
    assert not situation.closes(5.0)
    situation.later(situation.group, 4.0)
    situation.shards.missing = {"s/a-000003"}
    assert not situation.closes(6.0)
    assert not situation.closes(9.0), "at the new deadline another instance is on disk and not on record"
    situation.shards.missing = set()
    assert situation.closes(9.5)


def test_other_ae_titles_are_not_awaited(situation: Situation) -> None:
    situation.associations.note("s/a-000001", "OTHER", None)
    situation.shards.missing = {"s/a-000002"}
    assert situation.closes(5.0)


def test_what_vanished_from_the_disk_is_not_awaited(situation: Situation) -> None:
    situation.associations.note("s/a-000001", "AE", None)
    situation.shards.missing = {"s/a-000002"}
    assert not situation.closes(5.0)
    situation.closer.retain(Listing(frozenset(), frozenset()))
    assert situation.closes(5.5)


def test_transit_holds_the_group_of_the_associations_latest_instance(situation: Situation) -> None:
    other = situation.open("AE", 2)
    situation.associations.note("s/a-000001", "AE", 1)
    situation.associations.note("s/a-000002", "AE", 2)
    situation.associations.note("s/a-000001", "AE", 1)  # described later than its successor
    situation.shards.transit = {"s/a-000003"}
    assert situation.closes(5.0)
    assert situation.groups.by_id(2) is other
    situation.associations.note("s/a-000003", "AE", 1)
    situation.groups.look_at(situation.group, 5.0)
    assert not situation.closes(5.0)


def test_what_was_in_transit_at_the_deadline_and_ended_must_be_on_record(situation: Situation) -> None:
    situation.associations.note("s/a-000001", "AE", 1)
    situation.shards.transit = {"s/a-000002"}
    assert not situation.closes(5.0)
    situation.shards.transit, situation.shards.missing = set(), {"s/a-000002"}
    assert not situation.closes(6.0)
    situation.shards.missing = set()
    assert situation.closes(7.0)


def test_a_backlog_shows_whose_transit_it_was(situation: Situation) -> None:
    """Only when the backlog is on record is it known that the object in transit followed an instance of the group."""
    situation.associations.note("s/b-000001", "AE", None)
    situation.shards.missing, situation.shards.transit = {"s/b-000002"}, {"s/b-000003"}
    assert not situation.closes(5.0)
    situation.associations.note("s/b-000002", "AE", 1)
    situation.shards.missing, situation.shards.transit = {"s/b-000003"}, set()
    assert not situation.closes(6.0)
    situation.shards.missing = set()
    assert situation.closes(7.0)


def test_groups_are_looked_at_again_when_something_comes_on_record(situation: Situation) -> None:
    situation.associations.note("s/a-000001", "AE", None)
    situation.shards.missing = {"s/a-000002"}
    assert not situation.closes(5.0)
    assert situation.groups.next_look() == 5.25
    situation.closer.look_again(moment(5.1))
    assert situation.groups.next_look() == 5.1


def test_moments_of_other_boots_and_of_the_future() -> None:
    now = Moment(100 * NANOSECONDS, 50 * NANOSECONDS, "now")
    assert boot_seconds(Moment(0, 40 * NANOSECONDS, "now"), now) == 40
    assert boot_seconds(Moment(90 * NANOSECONDS, 7, "before"), now) == 40
    assert boot_seconds(Moment(90 * NANOSECONDS), now) == 40
    assert boot_seconds(Moment(900 * NANOSECONDS), now) == 50, "the wall clock was set back"
