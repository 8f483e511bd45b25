"""A ledger that does not answer: told of once, tried again ever more seldom, and over with the first commit."""

import logging
import time
from pathlib import Path

import peewee as pw
import pytest

from protocol.availability import LEDGER_AWAY, Availability
from protocol.ledger import Ledger, Source
from protocol.logs import EventLogger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


def fill(ledger: Ledger) -> None:
    """Commit more than fits."""
    with ledger.transaction():
        for number in range(1000):
            Source.create(ae_title=str(number), host_ip="x" * 10_000, created_ns=0)


def test_a_full_disk_says_that_it_is_full(ledger: Ledger) -> None:
    """SQLite rolls back by itself; what peewee makes of that must not hide the reason."""
    ledger.database.execute_sql("PRAGMA max_page_count = 200")
    with pytest.raises(pw.OperationalError, match="database or disk is full"):
        fill(ledger)
    assert Source.select().count() == 0
    ledger.database.execute_sql("PRAGMA max_page_count = 100000")
    fill(ledger)
    assert Source.select().count() == 1000


def test_an_error_of_the_block_stays_what_it_is(ledger: Ledger) -> None:
    with pytest.raises(KeyError), ledger.transaction():
        raise KeyError
    twice = [{"ae_title": "A", "host_ip": "", "created_ns": 0}] * 2
    with pytest.raises(pw.IntegrityError), ledger.transaction():
        Source.insert_many(twice).execute()
    assert Source.select().count() == 0


def test_a_trouble_is_told_of_once_and_its_end_once(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    availability = Availability(ledger, EventLogger("adapter.test"))
    availability.committed()
    assert not availability.paused
    pauses = []
    for _ in range(7):
        availability.failed(LEDGER_AWAY[0]("disk full"))
        assert availability.doubtful
        assert availability.paused
        pauses.append(availability.retry_at - time.monotonic())
        availability.reloaded()  # it can be read, which is not enough
        assert not availability.doubtful
    assert pauses == pytest.approx([0.25, 0.5, 1, 2, 4, 5, 5], abs=0.1)
    assert [record.message for record in caplog.records] == ["ledger_away"]
    availability.committed()
    availability.committed()
    assert not availability.paused
    availability.failed(LEDGER_AWAY[1]("connection lost"))
    told = [record.message for record in caplog.records]
    assert told == ["ledger_away", "ledger_answers_again", "ledger_away"]
    assert availability.retry_at - time.monotonic() < 0.3
