"""What all configuration resources have in common: list, find, create, replace, delete, and telling of the change."""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import peewee as pw

from actors.api.book import Book
from actors.api.entities import Entity
from actors.api.problems import InvalidError
from actors.api.validation import Body
from protocol import killpoints
from protocol.errors import NotFoundError
from protocol.ledger import pages
from protocol.logs import EventLogger

E = TypeVar("E", bound=Entity)


class Registry(ABC, Generic[E]):
    """One configuration resource over its table.

    Args:
        book: the ledger.
        lock: one for all registries, so that changes, and what is made of them, come one after the other.
        publish: called after each commit, in its order; what it raises is the answer.
        tell: called before the answer, for processes that keep what changed.
    """

    noun: str
    """What an entity is called in sentences."""

    def __init__(
        self,
        book: Book,
        lock: threading.Lock,
        publish: Callable[[], None] | None = None,
        tell: Callable[[], None] | None = None,
    ) -> None:
        self.book = book
        self.log = EventLogger("adapter.api")
        self._lock = lock
        self._publish = publish
        self._tell = tell

    def all(self) -> list[E]:
        """All entities, in the order of their keys."""
        with self.book.use():
            return [self.entity(row) for row in self.rows()]

    def one(self, key: str) -> E:
        """The entity of a key.

        Raises:
            NotFoundError: there is none.
        """
        with self.book.use():
            return self.entity(self._found(key))

    def create(self, data: bytes) -> E:
        """Create an entity from a body.

        Raises:
            InvalidError: the body is not valid, or what it names is taken.
        """
        wanted = self._valid(data, None)
        with self._change("created", self.key(wanted)):
            self._refuse_taken(wanted, None)
            self.insert(wanted)
        return wanted

    def replace(self, key: str, data: bytes) -> E:
        """Replace all of an entity but its key.

        Raises:
            NotFoundError: there is none.
            InvalidError: the body is not valid, or what it names is taken.
        """
        wanted = self._valid(data, self.one(key))
        with self._change("replaced", key):
            row = self._found(key)
            self._refuse_taken(wanted, row)
            self.update(row, wanted)
        return wanted

    def delete(self, key: str) -> E:
        """Delete an entity and return what it was.

        Raises:
            NotFoundError: there is none.
        """
        with self._change("deleted", key):
            row = self._found(key)
            entity = self.entity(row)
            self.remove(row)
        return entity

    # What a resource fills in.

    @abstractmethod
    def query(self) -> tuple[Any, Any]:
        """A select of the living rows, and its unique column."""

    @abstractmethod
    def entity(self, row: Any) -> E:
        """A row as its entity."""

    @abstractmethod
    def key(self, entity: E) -> str:
        """What an entity is found by."""

    @abstractmethod
    def find(self, key: str, rows: list[Any]) -> Any | None:
        """The row that a key means, or None."""

    @abstractmethod
    def read(self, body: Body, old: E | None) -> E:
        """The entity that a body describes; `old` is what it replaces. Errors go to `body.errors`."""

    @abstractmethod
    def taken(self, wanted: E, others: list[Any]) -> list[str]:
        """What stands in the way among the other living rows, a sentence each."""

    @abstractmethod
    def insert(self, wanted: E) -> None:
        """Make a new row."""

    @abstractmethod
    def update(self, row: Any, wanted: E) -> None:
        """Change a row."""

    def remove(self, row: Any) -> None:
        """Take a row away."""
        row.delete_instance()

    def rows(self) -> list[Any]:
        """All living rows: these tables are small, and comparing names without case is not left to the database."""
        query, column = self.query()
        return [row for page in pages(query, column) for row in page]

    @contextlib.contextmanager
    def _change(self, change: str, key: str) -> Iterator[None]:
        """A transaction, and what follows from it before the request is answered."""
        with self._lock:
            with self.book.change():
                yield
            killpoints.reach("api.committed")
            self.log.info("configuration_changed", change=change, kind=self.noun, key=key)
            if self._publish is not None:
                self._publish()
        if self._tell is not None:
            self._tell()

    def _found(self, key: str) -> Any:
        row = self.find(key, self.rows())
        if row is None:
            raise NotFoundError(f"there is no {self.noun} {key!r}: see the list of those there are")
        return row

    def _valid(self, data: bytes, old: E | None) -> E:
        body = Body(data)
        entity = self.read(body, old)
        body.done()
        return entity

    def _refuse_taken(self, wanted: E, own: pw.Model | None) -> None:
        found = self.taken(wanted, [row for row in self.rows() if row != own])
        if found:
            raise InvalidError(found)


def kept_key(body: Body, name: str, given: str, old: str | None, same: Callable[[str, str], bool]) -> str:
    """The key of what a body describes: that of the replaced entity, which the body may repeat but not change."""
    if old is None:
        return given
    if given and not same(given, old):
        body.errors.append(f"{name} {given!r} differs from {old!r}: a key cannot be changed; delete and create instead")
    return old
