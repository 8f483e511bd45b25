"""Whose turn it is: a lane for each destination, with its share of the slots, and a circuit breaker.

A destination that was not reached the last time has one slot and a pause that grows; one that takes what it is sent
has at most half of the slots, as long as there is any other. So a dead destination never holds up a living one. All of
it is about memory, and belongs to the main loop.
"""

import random
from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class Unit(Protocol):
    """What waits in a lane: some files on their way to one destination."""

    @property
    def lane(self) -> str:
        """The destination's name."""

    @property
    def is_scu(self) -> bool:
        """Which slots it takes."""


U = TypeVar("U", bound=Unit)


def pause_seconds(failures: int, chance: random.Random) -> float:
    """How long to wait after so many failures in a row: twice as long each time, and a random share of that less."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16))
    return longest * chance.uniform(0.75, 1.0)


class Lane(Generic[U]):
    """One destination."""

    def __init__(self) -> None:
        self.waiting: deque[U] = deque()
        self.active = 0
        self.failures = 0
        self.proven = False
        self.retry_at = 0.0
        self.is_scu = True


class Lanes(Generic[U]):
    """All destinations.

    Args:
        scu_slots: associations at once.
        stow_slots: calls to DICOMweb services at once.
        chance: for jitter.
    """

    def __init__(self, scu_slots: int, stow_slots: int, chance: random.Random) -> None:
        self._slots = {True: scu_slots, False: stow_slots}
        self._used = {True: 0, False: 0}
        self._chance = chance
        self._lanes: dict[str, Lane[U]] = {}

    def add(self, unit: U) -> None:
        """Let a unit wait for its turn."""
        lane = self._lane(unit.lane)
        lane.is_scu = unit.is_scu
        lane.waiting.append(unit)

    def take(self, clock: float) -> Iterator[U]:
        """The units whose turn it is now, one of each destination before the second of any."""
        found = True
        while found:
            found = False
            for lane in list(self._lanes.values()):
                has_turn = lane.waiting and clock >= lane.retry_at and lane.active < self._share(lane)
                if has_turn and self._used[lane.is_scu] < self._slots[lane.is_scu]:
                    self._used[lane.is_scu] += 1
                    lane.active += 1
                    found = True
                    yield lane.waiting.popleft()

    def ended(self, unit: U, *, down: bool, progress: bool, clock: float) -> tuple[U, ...]:
        """A unit's turn is over.

        Args:
            unit: as it was taken.
            down: whether its destination could not be reached, or broke off.
            progress: whether it has taken anything.
            clock: `time.monotonic()`.

        Returns:
            Units that waited and are not tried, since their destination is down.
        """
        lane = self._lane(unit.lane)
        lane.active -= 1
        self._used[unit.is_scu] -= 1
        if not down:
            lane.failures, lane.proven, lane.retry_at = 0, True, 0.0
            return ()
        lane.failures = 1 if progress else lane.failures + 1
        lane.proven = False
        lane.retry_at = clock + pause_seconds(lane.failures, self._chance)
        if progress:
            return ()
        waiting = tuple(lane.waiting)
        lane.waiting.clear()
        return waiting

    def remove(self, unit: U) -> None:
        """A unit that waits, and need not any more."""
        lane = self._lane(unit.lane)
        if unit in lane.waiting:
            lane.waiting.remove(unit)

    def down_seconds(self, name: str, clock: float) -> float:
        """How long to leave a destination alone that was not reached the last time; 0 when its turn is now."""
        lane = self._lanes.get(name.casefold())
        if lane is None or not lane.failures:
            return 0.0
        if clock < lane.retry_at:
            return lane.retry_at - clock
        return FIRST_PAUSE_SECONDS if lane.active or lane.waiting else 0.0

    def room(self, names: str, clock: float) -> int:
        """How many tasks may be under way now: one more than are sent, so that a destination never waits.

        Args:
            names: of a task's destinations, with commas between them; those that are down do not count beside others.
            clock: `time.monotonic()`.
        """
        listed = names.split(", ")
        living = [name for name in listed if not self.down_seconds(name, clock)]
        return min(self._room(name, clock) for name in living or listed)

    def _room(self, name: str, clock: float) -> int:
        lane = self._lanes.get(name.casefold())
        if lane is None:
            return 1
        if clock < lane.retry_at:
            return 0
        return self._share(lane) + 1 if lane.proven else 1

    def reset(self, name: str) -> None:
        """Forget a destination's failures: a person says that it is there, or it has answered."""
        lane = self._lanes.get(name.casefold())
        if lane is not None:
            lane.failures, lane.retry_at = 0, 0.0

    def next_at(self, clock: float) -> float | None:
        """When the next pause of a lane is over that something waits in; what waits for a slot is woken by an end."""
        times = [lane.retry_at for lane in self._lanes.values() if lane.waiting and lane.retry_at > clock]
        return min(times, default=None)

    @property
    def active(self) -> int:
        """How many units are under way."""
        return sum(self._used.values())

    @property
    def down(self) -> int:
        """How many destinations were not reached the last time."""
        return sum(lane.failures > 0 for lane in self._lanes.values())

    def _share(self, lane: Lane[U]) -> int:
        if not lane.proven:
            return 1
        return max(1, self._slots[lane.is_scu] // 2)

    def _lane(self, name: str) -> Lane[U]:
        return self._lanes.setdefault(name.casefold(), Lane())
