"""How a ledger that an earlier version made becomes one of this version: numbered steps, forward only, a copy kept.

Every process that opens the ledger comes through here, and one at a time. All steps that are missing and the new
version number are one transaction, so a step that fails, or a process that is killed, leaves the ledger as it was.
Of an SQLite ledger a copy is kept beside it, `dicomadapter.db.v1-20261122T101112Z`: it is made when the steps have
succeeded, from what was committed before them, and named when they are committed, so there is one a migration,
however often that was tried. Of a PostgreSQL ledger no copy is made: dump it first.
"""

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peewee as pw

from protocol.errors import ConfigurationError, LedgerError
from protocol.logs import EventLogger
from protocol.spool import sync_directory

Step = Callable[[Any], None]
"""Changes the tables of one version into those of the next, given the database: by SQL that both databases take, by
`create_tables` for new tables, or by `playhouse.migrate`. It must not commit, and must not use models of tables that a
later step changes."""


def _let_runs_keep_their_input(database: Any) -> None:
    """To version 2: runs that fail keep their input, and are queued again."""
    database.execute_sql("ALTER TABLE run ADD COLUMN queued_ns BIGINT NOT NULL DEFAULT 0")
    database.execute_sql("ALTER TABLE run ADD COLUMN keeps_input BOOLEAN NOT NULL DEFAULT FALSE")
    database.execute_sql("CREATE INDEX run_keeps_input ON run (keeps_input)")


def _let_results_be_discarded(database: Any) -> None:
    """To version 3: a person may give results up."""
    database.execute_sql("ALTER TABLE result ADD COLUMN discarded BOOLEAN NOT NULL DEFAULT FALSE")


def _count_deaths_of_requests(database: Any) -> None:
    """To version 4: requests that end processes are given up."""
    database.execute_sql("ALTER TABLE inference_request ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0")


STEPS: tuple[Step, ...] = (_let_runs_keep_their_input, _let_results_be_discarded, _count_deaths_of_requests)
"""The first leads from version 1 to version 2. A step that was released is never changed."""

_ADVISORY_LOCK = 4242006
_LOOK_SECONDS = 0.05
_TELL_SECONDS = 1.0
_LONGEST_STEPS_SECONDS = 4 * 3600.0  # a server tells nothing of how far a statement is
_COPY_PAGES = 4096
_COPYING = ".copying"

_log = EventLogger("adapter.ledger")


def latest() -> int:
    """The version that this program makes and knows."""
    return 1 + len(STEPS)


def bring_up_to_date(
    database: Any,
    path: Path | None,
    create: Callable[[], None],
    waiting: Callable[[float], None],
    patience_seconds: float | None = None,
) -> None:
    """Make the tables of a new ledger, or migrate an old one, or wait until another process has done so.

    Args:
        database: the open database.
        path: its file; None on a server.
        create: makes all tables, `schema_version` empty among them.
        waiting: called about every second while this waits, and before what may take long; its argument is for how
            many seconds from now it may not be called again, 0 when that is nothing unusual.
        patience_seconds: how long another process is waited for; whoever gives it leaves migrations to others. None:
            as long as it takes.

    Raises:
        ConfigurationError: the ledger is of a later version.
        LedgerError: a step failed, or patience was not enough.
    """
    with _alone(database, path, waiting, patience_seconds):
        found = _version(database) if database.table_exists("schema_version") else None
        if found is None:
            with _transaction(database, path):
                create()
                _set_version(database, latest())
        elif found > latest():
            raise ConfigurationError(
                f"the ledger is of version {found}, this program knows {latest()}: "
                "start the newer dicom-adapter, or bring back the copy that its upgrade kept"
            )
        elif found < latest():
            if patience_seconds is not None:
                raise LedgerError(f"the ledger is of version {found} and waits to be migrated to {latest()}")
            _migrate(database, path, found, waiting)
        if path is not None:
            _name_copies(path)


def _migrate(database: Any, path: Path | None, found: int, waiting: Callable[[float], None]) -> None:
    started = time.monotonic()
    _log.info("ledger_migrating", from_version=found, to_version=latest())
    if path is not None:
        for unfinished in _copies(path):
            unfinished.unlink()
    step = found
    try:
        with _transaction(database, path):
            for step in range(found + 1, latest() + 1):
                waiting(_LONGEST_STEPS_SECONDS)
                STEPS[step - 2](database)
            _set_version(database, latest())
            if path is not None:
                _copy(path, found, waiting)
    except (pw.PeeweeException, sqlite3.Error, OSError) as error:
        raise LedgerError(
            f"the ledger could not be migrated to version {step} ({error}); it is unharmed and of version {found} as "
            "before: mend what is wrong (is there room for a copy of it?), or go back to the former dicom-adapter"
        ) from error
    _log.info("ledger_migrated", version=latest(), seconds=round(time.monotonic() - started, 3))


def _copy(path: Path, version: int, waiting: Callable[[float], None]) -> None:
    """Copy what is committed, which is what was there before the migration, and bring it to stable storage."""
    copy = path.with_name(f"{path.name}.v{version}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}{_COPYING}")
    fd = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, path.stat().st_mode & 0o777)
    try:
        with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target, pages=_COPY_PAGES, progress=lambda *_: waiting(0.0))
        os.fsync(fd)
    finally:
        os.close(fd)


def _name_copies(path: Path) -> None:
    """Give copies their names, now that the ledger is of this version and so the migration is committed."""
    for copy in _copies(path):
        copy.rename(copy.with_name(copy.name.removesuffix(_COPYING)))
        sync_directory(path.parent)


def _copies(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.v*{_COPYING}"))


@contextlib.contextmanager
def _alone(
    database: Any, path: Path | None, waiting: Callable[[float], None], patience_seconds: float | None
) -> Iterator[None]:
    """Let one process at a time look at, and change, the tables' shape."""
    give_up = float("inf") if patience_seconds is None else time.monotonic() + patience_seconds
    if path is None:
        with database.atomic():
            _wait_for(lambda: _take_server_lock(database), waiting, give_up)
            yield
        return
    fd = os.open(f"{path}.migrate.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        _wait_for(lambda: _take_file_lock(fd), waiting, give_up)
        yield
    finally:
        os.close(fd)


def _wait_for(take: Callable[[], bool], waiting: Callable[[float], None], give_up: float) -> None:
    """Take the lock, telling now and then that it is waited for.

    Raises:
        LedgerError: it was not free in time.
    """
    tell_at = time.monotonic() + _TELL_SECONDS
    told = False
    while not take():
        clock = time.monotonic()
        if clock >= give_up:
            raise LedgerError("the ledger is being migrated by another process")
        if clock >= tell_at:
            if not told:
                _log.info("ledger_awaited", reason="another process migrates it")
                told = True
            waiting(0.0)
            tell_at = clock + _TELL_SECONDS
        time.sleep(_LOOK_SECONDS)  # neither kind of lock can be waited for with a deadline


def _take_file_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_server_lock(database: Any) -> bool:
    return bool(database.execute_sql(f"SELECT pg_try_advisory_xact_lock({_ADVISORY_LOCK})").fetchone()[0])


def _transaction(database: Any, path: Path | None) -> Any:
    return database.atomic(*(("IMMEDIATE",) if path else ()))


def _version(database: Any) -> int:
    return int(database.execute_sql("SELECT version FROM schema_version").fetchone()[0])


def _set_version(database: Any, version: int) -> None:
    database.execute_sql("DELETE FROM schema_version")
    database.execute_sql(f"INSERT INTO schema_version (version) VALUES ({version})")  # noqa: S608 - a number of ours
