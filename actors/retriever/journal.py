"""What is to be written to the ledger, in order, and what may be done only when it is: commit first, then say so."""

from collections.abc import Callable

from actors.actor import Actor
from protocol.availability import LEDGER_AWAY, Availability
from protocol.ledger import Ledger


class Journal:
    """Changes that wait for the ledger. They belong to the main loop.

    Args:
        actor: whose loop it is.
        ledger: the ledger.
        availability: of the ledger; while it does not answer, changes wait in memory.
    """

    def __init__(self, actor: Actor, ledger: Ledger, availability: Availability) -> None:
        self._actor = actor
        self._ledger = ledger
        self._availability = availability
        self._waiting: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def add(self, write: Callable[[], None], then: Callable[[], None] = lambda: None) -> None:
        """Have something written at the end of this turn.

        Args:
            write: to the ledger alone, in a transaction with others; it is called again when that fails.
            then: called once, when it is committed.
        """
        self._waiting.append((write, then))

    @property
    def empty(self) -> bool:
        """Whether all is written."""
        return not self._waiting

    def settle(self) -> None:
        """Commit what waits, and do what follows from it."""
        while self._waiting and not self._availability.paused:
            changes = list(self._waiting)
            try:
                with self._ledger.transaction():
                    for write, _ in changes:
                        write()
            except LEDGER_AWAY as error:
                self._availability.failed(error)
                self._actor.at(self._availability.retry_at, lambda: None)  # the turn after it tries again
                return
            self._availability.committed()
            del self._waiting[: len(changes)]
            for _, then in changes:
                then()
