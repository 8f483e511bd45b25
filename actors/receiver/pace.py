"""How a receiver brings what is synced to the disk: what serves many senders does not serve a few.

Objects go to a quick disk past the page cache. Of a few senders, each object is then synced, named and answered in one
go, while the receiver waits, since they wait for nothing but the disk. Of many senders there is always one whose object
can be received meanwhile: their syncs are asked for, and go beside each other (`Store`), but for small objects, for
which asking takes longer than the disk: the receiver waits for a turn's together. A disk that takes its time, as one
that turns does, has the page cache and the syncs beside each other, whatever is sent: it is quicker at reading what it
need not read, and nobody waits for it.
"""

import os
import time
from collections.abc import Callable

NO_DIRECT_WRITES = "DICOM_ADAPTER_NO_DIRECT_WRITES"

DIRECT, AT_ONCE = 1, 2  # as in native/lane.h
LOOK_SECONDS = 1.0
_A_FEW = 3  # of one receiver
_SLOW_SECONDS = 0.008  # for a turn's objects, mostly one, on average; less than a disk that turns needs
_MOST_SECONDS = 4 * _SLOW_SECONDS  # that one counts for: now and then, the best disk takes a hundred times as long
_WEIGHT = 0.125  # of the last one in it
_SLOW_FOR_SECONDS = 10.0


class Pace:
    """What the lanes and the stores of one process may do; `look` is to be called every `LOOK_SECONDS`.

    Args:
        tell: called with the average, in seconds, each time the disk is held for slow.
        is_usual: whether nothing but the usual way is ever allowed; by default as the environment says.
    """

    def __init__(self, tell: Callable[[float], None], *, is_usual: bool | None = None) -> None:
        self._tell = tell
        self._is_usual = bool(os.environ.get(NO_DIRECT_WRITES)) if is_usual is None else is_usual
        self._senders: set[int] = set()
        self._average = self._slow_until = 0.0
        self._ways = 0 if self._is_usual else DIRECT | AT_ONCE

    def ways(self, sender: int) -> int:
        """What a sender that has sent something may do in this turn: `DIRECT`, `AT_ONCE`, both or nothing.

        Args:
            sender: which; any number that is its own.
        """
        senders = self._senders
        senders.add(sender)
        if len(senders) > _A_FEW:
            self._ways &= ~AT_ONCE
        return self._ways

    @property
    def may_wait(self) -> bool:
        """Whether the loop may wait for the disk."""
        return bool(self._ways)

    def waited(self, seconds: float) -> None:
        """The loop has waited so long for the disk, for an object or a turn's."""
        if not seconds:
            return
        self._average += (min(seconds, _MOST_SECONDS) - self._average) * _WEIGHT
        if self._average > _SLOW_SECONDS:
            self._tell(self._average)
            self._average = _SLOW_SECONDS / 2
            self._slow_until = time.monotonic() + _SLOW_FOR_SECONDS
            self._ways = 0

    def look(self) -> None:
        """Judge by what was sent since the last look."""
        if not self._is_usual and time.monotonic() >= self._slow_until:
            self._ways = DIRECT | AT_ONCE if len(self._senders) <= _A_FEW else DIRECT
        self._senders.clear()
