"""Whose turn it is: shares of the slots, pauses, and what a dead destination costs the others."""

import random
from typing import NamedTuple

from actors.exporter.lanes import LONGEST_PAUSE_SECONDS, Lanes, pause_seconds


class Unit(NamedTuple):
    """Something on its way."""

    lane: str
    number: int = 0
    is_scu: bool = True


def lanes(slots: int = 4) -> Lanes[Unit]:
    return Lanes(slots, 2, random.Random(1))


def test_an_unproven_destination_has_one_slot_and_a_proven_one_half() -> None:
    tested = lanes()
    for number in range(6):
        tested.add(Unit("A", number))
    assert list(tested.take(0.0)) == [Unit("A", 0)]
    assert not tested.ended(Unit("A", 0), down=False, progress=True, clock=0.0)
    assert list(tested.take(0.0)) == [Unit("A", 1), Unit("A", 2)]
    assert tested.room("A", 0.0) == 3


def test_a_dead_destination_costs_others_nothing() -> None:
    """What waits for it is not tried, and the next is after a pause that grows."""
    tested = lanes(2)
    for number in range(3):
        tested.add(Unit("DEAD", number))
    tested.add(Unit("ALIVE"))
    assert set(tested.take(0.0)) == {Unit("DEAD", 0), Unit("ALIVE")}
    assert tested.ended(Unit("DEAD", 0), down=True, progress=False, clock=0.0) == (Unit("DEAD", 1), Unit("DEAD", 2))
    assert (tested.down, tested.active) == (1, 1)
    assert tested.room("dead", 0.0) == 0
    tested.add(Unit("DEAD", 3))
    at = tested.next_at(0.0)
    assert at is not None
    assert 0.0 < at <= 1.0
    assert not list(tested.take(0.0))
    assert list(tested.take(at)) == [Unit("DEAD", 3)]
    tested.ended(Unit("DEAD", 3), down=False, progress=True, clock=at)
    assert tested.down == 0


def test_progress_keeps_what_waits() -> None:
    """A destination that breaks off after it has taken something is not dead."""
    tested = lanes()
    tested.add(Unit("A", 0))
    tested.add(Unit("A", 1))
    list(tested.take(0.0))
    assert not tested.ended(Unit("A", 0), down=True, progress=True, clock=0.0)
    assert list(tested.take(2.0)) == [Unit("A", 1)]


def test_what_waits_for_a_slot_wakes_nobody() -> None:
    """Only a pause ends by itself; a time that has passed would be waited for again and again."""
    tested = lanes()
    for number in range(3):
        tested.add(Unit("A", number))
    list(tested.take(0.0))
    tested.ended(Unit("A", 0), down=True, progress=True, clock=0.0)
    at = tested.next_at(0.0)
    assert at is not None
    assert list(tested.take(at)) == [Unit("A", 1)]
    assert tested.next_at(at) is None


def test_a_task_with_several_destinations_waits_for_none_that_is_down() -> None:
    tested = lanes()
    for name in ("DEAD", "ALIVE"):
        tested.add(Unit(name))
    list(tested.take(0.0))
    tested.ended(Unit("DEAD"), down=True, progress=False, clock=0.0)
    tested.ended(Unit("ALIVE"), down=False, progress=True, clock=0.0)
    pause = tested.down_seconds("dead", 0.0)
    assert 0.0 < pause <= 1.0
    assert tested.room("DEAD, ALIVE", 0.0) == tested.room("ALIVE", 0.0) == 3
    assert tested.down_seconds("ALIVE", 0.0) == tested.down_seconds("NEW", 0.0) == 0.0
    assert tested.down_seconds("DEAD", pause) == 0.0
    tested.add(Unit("DEAD", 1))
    assert tested.down_seconds("DEAD", pause) > 0.0  # one tries, the others need not


def test_services_share_their_own_slots() -> None:
    """The slots of associations are none of DICOMweb services."""
    tested = Lanes[Unit](100, 4, random.Random(1))
    for number in range(6):
        tested.add(Unit("https://hung", number, False))
    list(tested.take(0.0))
    tested.ended(Unit("https://hung", 0, False), down=False, progress=True, clock=0.0)
    assert len(list(tested.take(0.0))) == 2
    tested.add(Unit("https://other", 0, False))
    assert list(tested.take(0.0)) == [Unit("https://other", 0, False)]


def test_reset_and_remove() -> None:
    tested = lanes()
    tested.add(Unit("A", 0))
    list(tested.take(0.0))
    tested.ended(Unit("A", 0), down=True, progress=False, clock=0.0)
    tested.reset("a")
    assert tested.room("A", 0.0) == 1
    tested.add(Unit("A", 1))
    tested.remove(Unit("A", 1))
    assert not list(tested.take(0.0))


def test_pauses_grow_to_a_bound() -> None:
    chance = random.Random(1)
    pauses = [pause_seconds(failures, chance) for failures in range(1, 40)]
    assert pauses[0] <= 1.0
    assert pauses[3] > pauses[0]
    assert max(pauses) <= LONGEST_PAUSE_SECONDS
