"""Rows that are past are deleted a few at a time, their parts before them."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from protocol.config import load
from protocol.ledger import PAGE_ROWS, Delivery, ExportTask, Ledger
from protocol.ledger.past import Past, kept_days
from tests.aged import FILES, age

NOW = time.time_ns()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield made
    made.close()


def test_rows_with_many_parts_take_several_looks(ledger: Ledger) -> None:
    age(ledger, range(700))
    for number in range(1300):
        Delivery.create(task_id="task-000600", destination="X", uri=f"x{number}", updated_ns=NOW)
    past = Past(ledger, ExportTask.task_id, lambda _: ExportTask.task_id == "task-000600", parts=(Delivery.task_id,))
    looks = [past.look(NOW) for _ in range(5)]
    assert looks == [0, PAGE_ROWS, PAGE_ROWS, 1300 + FILES + 1 - 2 * PAGE_ROWS, 0]
    assert ExportTask.select().count() == 699
    assert Delivery.select().count() == 699 * FILES
    assert not ExportTask.select().where(ExportTask.task_id == "task-000600").exists()


def test_all_of_a_table_in_the_end(ledger: Ledger) -> None:
    age(ledger, range(1200))
    past = Past(ledger, ExportTask.task_id, lambda before_ns: ExportTask.updated_ns < before_ns)
    while past.look(NOW):
        assert ExportTask.select().count() % 100 == 0
    past.look(NOW)
    assert ExportTask.select().count() == 0


@pytest.mark.parametrize(
    ("days", "share", "expected"),
    [(90, None, 90), (90, 0.5, 90), (90, 0.8, 45), (90, 0.95, 1), (1, 0.95, 1), (400, 0.01, 400)],
)
def test_how_long(ledger: Ledger, days: int, share: float | None, expected: float) -> None:
    """All of it with room to spare; less near the quota, but a day."""
    used = ledger.used_bytes()
    assert used
    settings = load(None, None, ["ConnectionStrings.DicomAdapterDatabase=Data Source=/ledger.db"], {}).settings
    quota = None if share is None else int(used / share)
    asked = msgspec.structs.replace(settings, history_days=days, database_quota_bytes=quota)
    assert kept_days(asked, ledger) == pytest.approx(expected, rel=0.01)


def test_what_was_deleted_is_not_used(ledger: Ledger) -> None:
    """Seen at once, also while another connection keeps the log from being taken over."""
    age(ledger, range(500))
    with contextlib.closing(sqlite3.connect(ledger.path or "")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM delivery").fetchone()
        before = ledger.used_bytes()
        Delivery.delete().execute()
        ExportTask.delete().execute()
        after = ledger.used_bytes()
    assert before
    assert after
    assert after < before * 0.7
