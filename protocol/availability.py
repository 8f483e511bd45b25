"""Whether the ledger answers one process: after a failure that one pauses, longer each time, and tries again.

A ledger that is read may still have no room for a commit, so only a commit ends the trouble; it is told of once, and
once that it is over.
"""

import time
from collections.abc import Callable

import peewee as pw

from protocol.ledger import Ledger
from protocol.logs import EventLogger

LEDGER_AWAY = (pw.OperationalError, pw.InterfaceError)
"""The ledger does not answer now: locked, disk full, connection lost. What was under way is tried again."""

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0


class Availability:
    """The ledger as this process sees it.

    Args:
        ledger: its connection is closed after a failure, so that the next use makes a new one.
        log: of the actor.
    """

    def __init__(self, ledger: Ledger, log: EventLogger) -> None:
        self._ledger = ledger
        self._log = log
        self._pause_seconds = 0.0
        self.doubtful = False
        self.retry_at = 0.0

    @property
    def paused(self) -> bool:
        """Whether it is too early to try again."""
        return time.monotonic() < self.retry_at

    def failed(self, error: Exception) -> None:
        """The ledger did not answer; what was committed last is not known, so memory is `doubtful`."""
        if not self._pause_seconds:
            self._log.error("ledger_away", reason=str(error), remedy="trying again; nothing received is lost")
        self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds))
        self.retry_at = time.monotonic() + self._pause_seconds
        self.doubtful = True
        self._ledger.close()

    def attempt(self, work: Callable[[], None]) -> None:
        """Do something that comes up again by itself, so that it may be left when the ledger does not answer."""
        if self.paused:
            return
        try:
            work()
        except LEDGER_AWAY as error:
            self.failed(error)

    def reloaded(self) -> None:
        """Memory says what the ledger says, for a process that keeps in memory what it committed."""
        self.doubtful = False

    def committed(self) -> None:
        """The ledger has taken a commit."""
        if self._pause_seconds:
            self._log.info("ledger_answers_again")
            self._pause_seconds = self.retry_at = 0.0
