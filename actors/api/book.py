"""The ledger as the threads that serve requests see it: opened in the background, one connection per use.

The API answers also while the ledger cannot be opened (a database server that is away): health says so, and what
needs the ledger is refused until it is there.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

from protocol.errors import ConfigurationError, LedgerError
from protocol.ledger import Ledger
from protocol.logs import EventLogger

_WAIT_SECONDS = 5.0
_BUSY_SECONDS = 10.0


class Book:
    """The ledger, now or soon.

    Args:
        url: of the ledger.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._log = EventLogger("adapter.api")
        self._ledger: Ledger | None = None
        self._tried = threading.Event()
        self._closing = threading.Event()
        self._reason = "the ledger is still being opened: try again"

    def open(self, then: Callable[[], None], failed: Callable[[ConfigurationError], None]) -> None:
        """Open it, trying again with growing pauses until it is open; runs in a thread of its own.

        Args:
            then: called once, in this thread, when it is open.
            failed: called when trying again cannot help.
        """
        pause = 0.5
        while not self._closing.is_set():
            try:
                ledger = Ledger(self._url, busy_seconds=_BUSY_SECONDS)
                ledger.close()
            except ConfigurationError as error:
                failed(error)
                return
            except LedgerError as error:
                if self._reason != str(error):
                    self._log.error("ledger_unavailable", reason=str(error))
                self._reason = str(error)
                self._tried.set()
                self._closing.wait(pause)
                pause = min(10.0, pause * 2)
            else:
                self._ledger = ledger
                then()
                self._tried.set()
                return

    def close(self) -> None:
        """Stop trying."""
        self._closing.set()

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._ledger is not None

    def wait_first_try(self, seconds: float) -> None:
        """Wait until opening it was tried once, and what followed from that is done."""
        self._tried.wait(seconds)

    @contextlib.contextmanager
    def use(self, wait_seconds: float = _WAIT_SECONDS) -> Iterator[Ledger]:
        """This thread's connection, closed when the block ends.

        Args:
            wait_seconds: how long the first try to open it is waited for.

        Raises:
            LedgerError: it is not open.
        """
        if self._ledger is None:
            self._tried.wait(wait_seconds)
        if self._ledger is None:
            raise LedgerError(self._reason)
        with self._ledger.database.connection_context():
            yield self._ledger

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """A short write transaction on this thread's connection.

        Raises:
            LedgerError: as `use`.
        """
        with self.use() as ledger, ledger.transaction():
            yield
