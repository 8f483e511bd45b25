"""The ledger on SQLite: opening, transactions, pages."""

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import ConfigurationError, LedgerError
from protocol.ledger import PAGE_ROWS, Ledger, Pipeline, SchemaVersion, Source, pages, row_where, tuples


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def add_sources(count: int) -> None:
    Source.insert_many(
        [{"ae_title": f"AE{n:06d}", "host_ip": "10.0.0.1", "created_ns": 0} for n in range(count)]
    ).execute()


def test_what_is_committed_is_synced_and_logged_ahead(ledger: Ledger) -> None:
    assert ledger.database.execute_sql("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert ledger.database.execute_sql("PRAGMA synchronous").fetchone()[0] == 2


def test_a_transaction_is_whole_or_not_at_all(ledger: Ledger) -> None:
    def fail_in_the_middle() -> None:
        with ledger.transaction():
            add_sources(3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert Source.select().count() == 0
    with ledger.transaction():
        add_sources(3)
    assert Source.select().count() == 3


def test_rows_come_in_pages_in_the_order_of_their_key(ledger: Ledger) -> None:
    with ledger.transaction():
        add_sources(2 * PAGE_ROWS + 1)
    read = list(pages(Source.select(), Source.ae_title))
    assert [len(page) for page in read] == [PAGE_ROWS, PAGE_ROWS, 1]
    names = [row.ae_title for page in read for row in page]
    assert names == sorted(names)
    assert len(set(names)) == 2 * PAGE_ROWS + 1


def test_tuples_are_plain(ledger: Ledger) -> None:
    add_sources(1)
    assert tuples(Source.select(Source.ae_title, Source.host_ip)) == [("AE000000", "10.0.0.1")]


def test_a_row_is_found_as_a_select_finds_it(ledger: Ledger) -> None:
    Pipeline.create(pipeline_id="p", name="n", command=["true", "{input}"], exports=["A"], created_ns=1)
    found = row_where(Pipeline, "pipeline_id", "p")
    assert found is not None
    assert found.__data__ == Pipeline.get(Pipeline.pipeline_id == "p").__data__
    assert not found.is_dirty()
    assert row_where(Pipeline, "pipeline_id", "q") is None
    ledger.close()


def test_the_version_tells_that_others_have_committed(ledger: Ledger, tmp_path: Path) -> None:
    before = ledger.version()
    add_sources(1)
    assert ledger.version() == before
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("DELETE FROM source")
    assert ledger.version() != before


def test_a_newer_ledger_is_refused_with_the_remedy(ledger: Ledger, tmp_path: Path) -> None:
    SchemaVersion.update(version=99).execute()
    ledger.close()
    with pytest.raises(ConfigurationError, match=r"version 99.*start the newer"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"cannot be opened.*DicomAdapterDatabase"):
        Ledger(f"sqlite:///{tmp_path / 'missing' / 'ledger.db'}")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def test_many_processes_may_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    program = (
        "import sys; from protocol.ledger import Ledger, Source; Ledger(sys.argv[1]); print(Source.select().count())"
    )
    openers = [
        subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(6)
    ]
    assert [opener.communicate(timeout=60)[0].strip() for opener in openers] == ["0"] * 6
    Ledger(url)
    assert SchemaVersion.select().count() == 1
