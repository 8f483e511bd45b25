"""The steps that were released: what an earlier version made becomes what this one makes, with its rows."""

from pathlib import Path

import pytest

from protocol import migrations
from protocol.ledger import TABLES, Ledger, Run
from protocol.states import RunState

# How to make the tables of a version from those of the next one.
BACK: dict[int, tuple[str, ...]] = {
    1: (
        "DROP INDEX run_keeps_input",
        "ALTER TABLE run DROP COLUMN keeps_input",
        "ALTER TABLE run DROP COLUMN queued_ns",
    ),
    2: ("ALTER TABLE result DROP COLUMN discarded",),
    3: ("ALTER TABLE inference_request DROP COLUMN deaths",),
}


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def shape(ledger: Ledger) -> dict[str, tuple[set[tuple[str, bool]], set[tuple[str, ...]]]]:
    """Columns with whether they may be NULL, and indexes, of each table."""
    database = ledger.database
    return {
        name: (
            {(column.name, column.null) for column in database.get_columns(name)},
            {(index.name, *index.columns) for index in database.get_indexes(name)},
        )
        for name in (table._meta.table_name for table in TABLES)
    }


@pytest.mark.parametrize("version", sorted(BACK))
def test_a_ledger_of_before_becomes_one_of_today(ledger_url: str, version: int) -> None:
    ledger = Ledger(ledger_url)
    wanted = shape(ledger)
    columns = {"name": "n", "pipeline_id": "p", "priority": "normal", "created_ns": 1, "state": RunState.FAILED}
    Run.create(run_id="r", job_id="j", payload_id="y", kept_bytes=7, **columns)
    for step in range(migrations.latest() - 1, version - 1, -1):
        for statement in BACK[step]:
            ledger.database.execute_sql(statement)
    ledger.database.execute_sql(f"UPDATE schema_version SET version = {version}")
    ledger.close()

    ledger = Ledger(ledger_url)
    assert shape(ledger) == wanted
    run = Run.get()
    assert (run.state, run.kept_bytes, run.keeps_input, run.queued_ns) == (RunState.FAILED, 7, False, 0)
    ledger.close()


def test_every_step_is_tried() -> None:
    assert sorted(BACK) == list(range(1, migrations.latest()))
