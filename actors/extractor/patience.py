"""When to begin: what was stored may wait while receivers are busy, for they need the processor more than we do.

It is between the extractor and the notice board. A burst is over when the receivers' count of stored bytes stands still
between two looks. Nothing waits longer than `LONGEST_SECONDS`, and what the processor waits for, to close a group, does
not wait at all. Under load without end the extractor therefore works in turns: it collects for so long, and then reads
all that there is, and what comes meanwhile, as fast as it can. A queue that never empties is never put off.
"""

import time

from protocol.board import Board
from protocol.messages import StoredInstance

LOOK_SECONDS = 0.05
"""Between two looks: longer than the pause between two objects of a busy sender."""
LONGEST_SECONDS = 2.0
"""It spans the transfer of a study of usual size, and leaves the larger part of the shortest timeout of a group (5 s)
to read what has come; the processor's sweep is more patient (`sweep.py`)."""
_NEVER = 1 << 63


class Patience:
    """Tells whether what waits may wait on.

    Args:
        board: where receivers count what they store, and the processor says what it waits for.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._stored_bytes = 0
        self._ends = 0.0
        self._oldest_ns = _NEVER

    def begin(self) -> None:
        """The first instance has begun to wait."""
        self._stored_bytes = self._board.stored_bytes
        self._ends = time.monotonic() + LONGEST_SECONDS
        self._oldest_ns = _NEVER

    def add(self, instances: tuple[StoredInstance, ...]) -> None:
        """Instances of one receiver wait, in the order of their coming."""
        if instances:
            self._oldest_ns = min(self._oldest_ns, instances[0].stored.boot_ns)

    def is_over(self) -> bool:
        """Look again: whether the burst has paused, the longest wait has passed, or the processor waits."""
        before, self._stored_bytes = self._stored_bytes, self._board.stored_bytes
        return (
            self._stored_bytes == before
            or time.monotonic() >= self._ends
            or self._oldest_ns <= self._board.awaited_boot_ns
        )
