"""What an SQLite ledger takes of its quota."""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from protocol.ledger.room import LedgerRoom, ledger_bytes


def test_a_ledger_is_the_database_and_its_log(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    assert ledger_bytes(str(path)) == 0
    path.write_bytes(b"x" * 10)
    (tmp_path / "ledger.db-wal").write_bytes(b"x" * 5)
    (tmp_path / "ledger.db-shm").write_bytes(b"x" * 3)
    assert ledger_bytes(str(path)) == 15


@pytest.mark.parametrize(("count", "short", "spent"), [(90, False, False), (91, True, False), (101, True, True)])
def test_a_ledger_warns_before_it_stops_intake(count: int, short: bool, spent: bool) -> None:
    ledger = LedgerRoom(bytes=count, quota_bytes=100)
    assert (ledger.is_short, ledger.is_spent) == (short, spent)


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_what_was_deleted_counts_no_more(tmp_path: Path, page_size: int) -> None:
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {page_size}")
        database.execute("CREATE TABLE some (text)")
        database.executemany("INSERT INTO some VALUES (?)", [("x" * 1000,)] * 2000)
        database.commit()
        full = ledger_bytes(str(path))
        assert full == os.stat(path).st_size
        database.execute("DELETE FROM some")
        database.commit()
    assert os.stat(path).st_size == full
    assert ledger_bytes(str(path)) < full / 10
