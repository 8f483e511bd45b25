"""The open database: its connection, transactions, rows in numbers, and reading in pages."""

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import peewee as pw

from protocol import migrations
from protocol.errors import ConfigurationError, LedgerError
from protocol.ledger.rows import Row
from protocol.ledger.tables import TABLES

PAGE_ROWS = 500
_BUSY_SECONDS = 30

Found = TypeVar("Found", bound=Row)


class _Postgresql(pw.PostgresqlDatabase):
    """Has a new connection where the last one was lost, in whichever thread that is noticed."""

    def cursor(self, named_cursor: Any = None) -> Any:
        connection = self._state.conn  # type: ignore[attr-defined] # the stubs leave it out
        if connection is not None and connection.closed and not self.in_transaction():
            self.close()
        return super().cursor(named_cursor)  # type: ignore[no-untyped-call]


class Ledger:
    """An open ledger, bound to the tables. One per process.

    Args:
        url: `sqlite:////absolute/path`, or `postgresql://user:password@host/database`.
        busy_seconds: how long a statement waits for another process's write on SQLite before it fails.
        waiting, patience_seconds: see `migrations.bring_up_to_date`.

    Raises:
        LedgerError: it cannot be opened now.
        ConfigurationError: it is of a newer version, or its URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        busy_seconds: float = _BUSY_SECONDS,
        waiting: Callable[[float], None] = lambda _: None,
        patience_seconds: float | None = None,
    ) -> None:
        self.url = url
        self.path: Path | None = None
        parts = urlsplit(url)
        if parts.scheme == "sqlite":
            self.path = Path(parts.path[1:] if parts.path.startswith("//") else parts.path)
            self.database: Any = pw.SqliteDatabase(
                str(self.path),
                timeout=busy_seconds,
                pragmas={
                    "journal_mode": "wal",
                    "synchronous": "full",
                    "foreign_keys": 1,
                    "cache_size": -16_000,
                },
            )
        elif parts.scheme in ("postgresql", "postgres"):
            self.database = _Postgresql(url, prefer_psycopg3=True)
        else:
            raise ConfigurationError(f"the ledger's URL starts with {parts.scheme!r}: use sqlite:// or postgresql://")
        self.database.bind(TABLES, bind_refs=False, bind_backrefs=False)
        try:
            migrations.bring_up_to_date(
                self.database, self.path, lambda: self.database.create_tables(TABLES), waiting, patience_seconds
            )
        except (pw.PeeweeException, sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"the ledger {self.path or parts.hostname} cannot be opened ({error}): check that its place exists "
                "and is writable, or set ConnectionStrings.DicomAdapterDatabase"
            ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A short write transaction: all of it is durable when the block ends, or none."""
        try:
            with self.database.atomic(*(("IMMEDIATE",) if self.path else ())):
                yield
        except pw.OperationalError as error:
            # On a full disk SQLite rolls back by itself; that peewee cannot do so any more is not what went wrong.
            raise _first_cause(error) from None

    def version(self) -> int | None:
        """A number that differs when other connections have committed since; None where none tells (PostgreSQL).

        It costs a hundredth of a look at the tables, for what would look now and then.

        Raises:
            peewee.PeeweeException: as with any statement.
        """
        return int(self.database.execute_sql("PRAGMA data_version").fetchone()[0]) if self.path else None

    def used_bytes(self) -> int | None:
        """What an SQLite database's tables take, as this connection sees it; None for a server.

        Raises:
            peewee.PeeweeException: as with any statement.
        """
        if not self.path:
            return None
        size, pages, free = (
            int(self.database.execute_sql(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        return size * (pages - free)

    def insert_rows(self, table: type[Row], rows: Sequence[Sequence[Any]]) -> None:
        """Insert many rows at an eighth of the cost of building them into one statement; for hot tables.

        Args:
            table: one of `TABLES`.
            rows: values of all columns in their order, as the database takes them (JSON as text).

        Raises:
            peewee.PeeweeException: as with any statement.
        """
        columns = ", ".join(f'"{field.column_name}"' for field in table._meta.sorted_fields)
        places = ", ".join([self.database.param] * len(table._meta.sorted_fields))
        statement = f'INSERT INTO "{table._meta.table_name}" ({columns}) VALUES ({places})'  # noqa: S608 - our own names
        with pw.__exception_wrapper__:  # type: ignore[attr-defined] # the stubs leave it out
            self.database.cursor().executemany(statement, rows)

    def close(self) -> None:
        """Close this thread's connection."""
        self.database.close()


def _first_cause(error: pw.PeeweeException) -> pw.PeeweeException:
    """The first of the errors of the database that came one after another."""
    first, context = error, error.__context__
    while context is not None:
        if isinstance(context, pw.PeeweeException):
            first = context
        context = context.__context__
    return first


def row_where(table: type[Found], column: str, value: Any) -> Found | None:
    """The row in which a unique column has a value, at a fifth of the cost of a statement made anew; for hot tables.

    Args:
        table: one of `TABLES`.
        column: its name.
        value: as the database takes it.

    Raises:
        peewee.PeeweeException: as with any statement.
    """
    meta = table._meta
    found = meta.database.execute_sql(_lookup(table, column, meta.database.param), (value,)).fetchone()
    if found is None:
        return None
    values = {field.name: field.python_value(each) for field, each in zip(meta.sorted_fields, found, strict=True)}
    row = table(__no_default__=True, **values)
    row._dirty.clear()  # type: ignore[attr-defined] # the stubs leave it out
    return row


@functools.cache
def _lookup(table: type[Row], column: str, place: str) -> str:
    columns = ", ".join(f'"{field.column_name}"' for field in table._meta.sorted_fields)
    return f'SELECT {columns} FROM "{table._meta.table_name}" WHERE "{column}" = {place}'  # noqa: S608 - our own names


def pages(query: Any, key: Any) -> Iterator[list[Any]]:
    """Read a query in pages of at most `PAGE_ROWS`, ordered by `key`, each closed before it is handed out.

    Args:
        query: a select without order or limit.
        key: a unique column of it.
    """
    last: Any = None
    while True:
        page = query if last is None else query.where(key > last)
        rows = list(page.order_by(key).limit(PAGE_ROWS))
        if rows:
            yield rows
        if len(rows) < PAGE_ROWS:
            return
        last = getattr(rows[-1], key.name)


def tuples(query: Any) -> list[tuple[Any, ...]]:
    """The rows of a select as plain tuples, all read and the cursor closed."""
    return list(query.tuples())
