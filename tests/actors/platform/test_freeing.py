"""Which results need not be kept: those that every destination has, for long enough."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.platform.freeing import exported
from protocol.ledger import Delivery, ExportTask, Ledger, Result, Run
from protocol.states import DeliveryState, RunState, TaskState

HOUR = 3600.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield ledger
    ledger.close()


def result(*tasks: tuple[TaskState, DeliveryState], age_seconds: float = 2 * HOUR) -> str:
    """A run with a result, and a task with one delivery for each of these."""
    run_id, payload_id = str(uuid.uuid4()), str(uuid.uuid4())
    then = time.time_ns() - int(age_seconds * 1e9)
    common = {"job_id": run_id, "payload_id": payload_id, "pipeline_id": "p", "created_ns": then}
    Run.create(run_id=run_id, name="n", priority="normal", state=RunState.SUCCEEDED, kept_bytes=7, **common)
    Result.create(run_id=run_id, directory="/x", files=["a.dcm"], exports=["A"], **common)
    for state, delivery in tasks:
        task_id = str(uuid.uuid4())
        columns = {"origin": "embedded", "agent": "ClaraSCU", "parameters": "", "uris": ["a.dcm"], "files": 1}
        ExportTask.create(task_id=task_id, state=state, updated_ns=then, **columns, **common)
        Delivery.create(task_id=task_id, destination="A", uri="a.dcm", state=delivery, updated_ns=then)
    return run_id


def test_only_what_every_destination_has(ledger: Ledger) -> None:
    assert ledger.path is not None
    done = (TaskState.SUCCEEDED, DeliveryState.DELIVERED)
    free = {result(done), result(done, done), result(done, (TaskState.CANCELED, DeliveryState.PENDING))}
    result()  # nobody exports it
    result(done, (TaskState.PENDING, DeliveryState.PENDING))
    result(done, (TaskState.IN_PROGRESS, DeliveryState.DELIVERED))
    result((TaskState.FAILED, DeliveryState.REFUSED))
    result((TaskState.SUCCEEDED, DeliveryState.REFUSED))  # within the threshold, and still missing there
    fresh = result(done, age_seconds=100.0)
    result(done, age_seconds=10.0)  # more tasks may come
    # One that was registered with its job alone, and is not over.
    waits = ExportTask.get(ExportTask.job_id == result(done, (TaskState.PENDING, DeliveryState.PENDING)))
    ExportTask.update(payload_id="").where(
        (ExportTask.job_id == waits.job_id) & (ExportTask.state == TaskState.PENDING)
    ).execute()
    assert {each.run_id for each in exported(HOUR)} == free
    assert {each.kept_bytes for each in exported(HOUR)} == {7}
    assert {each.run_id for each in exported(0.0)} == {*free, fresh}
