"""Whether the ledger answers one process: after a failure that one pauses, longer each time, and tries again."""

import time

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
        self.retry_at = 0.0

    @property
    def doubtful(self) -> bool:
        """Whether it has failed and not answered since, so that what was committed last is not known."""
        return self._pause_seconds > 0

    @property
    def paused(self) -> bool:
        """Whether it is too early to try again."""
        return self.doubtful and time.monotonic() < self.retry_at

    def failed(self, error: Exception) -> None:
        """The ledger did not answer."""
        if not self.doubtful:
            self._log.error("ledger_away", reason=str(error), remedy="trying again; nothing received is lost")
        self._pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds))
        self.retry_at = time.monotonic() + self._pause_seconds
        self._ledger.close()

    def recovered(self) -> None:
        """It answered, and memory says what it says."""
        if self.doubtful:
            self._log.info("ledger_answers_again")
        self._pause_seconds = 0.0
