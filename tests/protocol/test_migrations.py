"""Migrations of the ledger: rows kept, one copy, one migrator, and nothing half done."""

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol import migrations
from protocol.errors import LedgerError
from protocol.ledger import Ledger, Source
from tests.peers import wait_for

# Opens the ledger with one step more; the arguments are its URL, the step's statement, and where it kills itself.
PROGRAM = """
import os, signal, sys
from protocol import migrations
from protocol.ledger import Ledger, Source
url, statement, killed_at = sys.argv[1:]

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def step(database):
    database.execute_sql(statement)
    if killed_at == "step":
        kill()

def copy(*arguments, copy=migrations._copy):
    copy(*arguments)
    if killed_at == "copy":
        kill()

def name_copies(path, name_copies=migrations._name_copies):
    if killed_at == "commit":
        kill()
    name_copies(path)

migrations.STEPS, migrations._copy, migrations._name_copies = (step,), copy, name_copies
ledger = Ledger(url)
print(Source.select().count(), *ledger.database.execute_sql("SELECT version FROM schema_version").fetchone())
"""
ADD_COLUMN = "ALTER TABLE source ADD COLUMN note VARCHAR(255) NOT NULL DEFAULT 'none'"
SOURCES = 1000


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of version 1, with rows, closed. Its tables are those of today; the steps are each test's own."""
    file = tmp_path / "ledger.db"
    with_step(monkeypatch)
    ledger = Ledger(f"sqlite:///{file}")
    with ledger.transaction():
        rows = [{"ae_title": f"AE{n:06d}", "host_ip": "10.0.0.1", "created_ns": n} for n in range(SOURCES)]
        Source.insert_many(rows).execute()
    ledger.close()
    return file


def add_note(database: object) -> None:
    database.execute_sql(ADD_COLUMN)  # type: ignore[attr-defined]


def with_step(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[object], None]) -> None:
    monkeypatch.setattr(migrations, "STEPS", steps)


def opener(path: Path, statement: str = ADD_COLUMN, killed_at: str = "") -> "subprocess.Popen[str]":
    """A process that opens the ledger with a version 2 of its own."""
    command = [sys.executable, "-c", PROGRAM, f"sqlite:///{path}", statement, killed_at]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def content(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return list(connection.iterdump())


def copies(path: Path) -> list[Path]:
    return sorted(path.parent.glob("ledger.db.v*"))


def test_a_ledger_of_version_1_becomes_one_of_version_2_and_a_copy_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(path)
    with_step(monkeypatch, add_note)
    ledger = Ledger(f"sqlite:///{path}")
    rows = ledger.database.execute_sql("SELECT ae_title, created_ns, note FROM source ORDER BY ae_title").fetchall()
    assert rows == [(f"AE{n:06d}", n, "none") for n in range(SOURCES)]
    assert ledger.database.execute_sql("SELECT version FROM schema_version").fetchall() == [(2,)]
    ledger.close()
    Ledger(f"sqlite:///{path}").close()

    (copy,) = copies(path)
    assert copy.name.startswith("ledger.db.v1-20")
    assert copy.name.endswith("Z")
    assert copy.stat().st_mode == path.stat().st_mode
    assert content(copy) == before


def test_steps_are_taken_in_order_and_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    with_step(monkeypatch, lambda _: taken.append("to 2"), lambda _: taken.append("to 3"))
    Ledger(f"sqlite:///{path}").close()
    with_step(monkeypatch, *migrations.STEPS, lambda _: taken.append("to 4"))
    Ledger(f"sqlite:///{path}").close()
    assert taken == ["to 2", "to 3", "to 4"]
    assert [copy.name.partition("-")[0] for copy in copies(path)] == ["ledger.db.v1", "ledger.db.v3"]


def test_a_new_ledger_is_of_the_latest_version_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_step(monkeypatch, lambda _: pytest.fail("there is nothing to migrate"))
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert ledger.database.execute_sql("SELECT version FROM schema_version").fetchall() == [(2,)]
    assert not copies(tmp_path / "ledger.db")


def test_many_processes_migrate_once(path: Path) -> None:
    openers = [opener(path) for _ in range(5)]
    assert [each.communicate(timeout=60)[0].strip() for each in openers] == [f"{SOURCES} 2"] * 5
    assert len(copies(path)) == 1


def test_a_step_that_fails_leaves_the_ledger_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(path)

    def fail(database: object) -> None:
        add_note(database)
        database.execute_sql("INSERT INTO no_such_table VALUES (1)")  # type: ignore[attr-defined]

    for _ in range(2):
        with_step(monkeypatch, lambda _: None, fail)
        with pytest.raises(LedgerError, match=r"to version 3 \(no such table.*unharmed and of version 1"):
            Ledger(f"sqlite:///{path}")
    assert content(path) == before
    assert not copies(path)
    with_step(monkeypatch, add_note)
    Ledger(f"sqlite:///{path}").close()
    assert len(copies(path)) == 1


@pytest.mark.parametrize(("killed_at", "version_after"), [("step", 1), ("copy", 1), ("commit", 2)])
def test_a_migrator_that_is_killed_leaves_one_version_or_the_other(
    path: Path, killed_at: str, version_after: int
) -> None:
    killed = opener(path, killed_at=killed_at)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(version_after,)]
    assert opener(path).communicate(timeout=60)[0].strip() == f"{SOURCES} 2"
    (copy,) = copies(path)
    assert copy.name.endswith("Z")
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(1,)]
        assert connection.execute("SELECT count(*) FROM source").fetchall() == [(SOURCES,)]


def test_who_waits_for_a_migration_says_so_and_goes_on_after_it(path: Path) -> None:
    told: list[float] = []
    opened: list[Ledger] = []
    with open(f"{path}.migrate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiter = threading.Thread(target=lambda: opened.append(Ledger(f"sqlite:///{path}", waiting=told.append)))
        waiter.start()
        wait_for(lambda: told, 10, "word of the wait")
        assert not opened
    waiter.join(10)
    assert opened
    assert set(told) == {0.0}


def test_who_cannot_wait_leaves_a_migration_to_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(f"{path}.migrate.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LedgerError, match="migrated by another process"):
            Ledger(f"sqlite:///{path}", patience_seconds=0.1)
    with_step(monkeypatch, lambda _: pytest.fail("it has no time for this"))
    with pytest.raises(LedgerError, match="version 1 and waits to be migrated to 2"):
        Ledger(f"sqlite:///{path}", patience_seconds=0.1)
    with_step(monkeypatch)
    Ledger(f"sqlite:///{path}", patience_seconds=0.1).close()
