"""Which results need not be kept: what every destination has, what a person has discarded, what is too old."""

import errno
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.platform import freeing
from actors.platform.freeing import Before, Freeing, unneeded
from actors.platform.leftovers import remove_tree
from actors.platform.runs import Runs
from protocol import clock, messages
from protocol.availability import Availability
from protocol.ledger import Delivery, ExportTask, Job, Ledger, Result, Run
from protocol.logs import EventLogger
from protocol.spool import Spool
from protocol.states import DeliveryState, RunState, TaskState
from tests.actors.platform.loop import Loop

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield ledger
    ledger.close()


def before(exported_seconds: float, days: float = 0.0) -> Before:
    """The exporter has looked at all but the last minute."""
    now = time.time_ns()
    old_ns = now - int(days * DAY * 1e9) if days else 0
    return Before(made_ns=now - 60 * 10**9, exported_ns=now - int(exported_seconds * 1e9), old_ns=old_ns)


def result(
    *tasks: tuple[TaskState, DeliveryState],
    age_seconds: float = 2 * HOUR,
    exports: Sequence[str] = ("A",),
    kept_bytes: int = 7,
    files: Sequence[str] = ("a.dcm",),
    **of_job: str,
) -> str:
    """A run with a result, and a task with one delivery for each of these."""
    run_id, payload_id = str(uuid.uuid4()), str(uuid.uuid4())
    then = time.time_ns() - int(age_seconds * 1e9)
    common = {"job_id": run_id, "payload_id": payload_id, "pipeline_id": "p", "created_ns": then}
    columns = {"ae_title": "AE", "name": run_id, "priority": "normal", "source": "AE", "pipeline_id": "p", **of_job}
    Job.create(job_id=run_id, instances=1, created_ns=then, **columns)
    Run.create(run_id=run_id, name="n", priority="normal", state=RunState.SUCCEEDED, kept_bytes=kept_bytes, **common)
    Result.create(run_id=run_id, directory="/x", files=list(files), exports=list(exports), **common)
    for state, delivery in tasks:
        task_id = str(uuid.uuid4())
        columns = {"origin": "embedded", "agent": "ClaraSCU", "parameters": "", "uris": ["a.dcm"], "files": 1}
        ExportTask.create(task_id=task_id, state=state, updated_ns=then, **columns, **common)
        Delivery.create(task_id=task_id, destination="A", uri="a.dcm", state=delivery, updated_ns=then)
    return run_id


def test_only_what_every_destination_has(ledger: Ledger) -> None:
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
    assert {each.run_id for each in unneeded(before(HOUR))} == free
    assert {each.kept_bytes for each in unneeded(before(HOUR))} == {7}
    assert {each.run_id for each in unneeded(before(0.0))} == {*free, fresh}


DONE, MISSED = (TaskState.SUCCEEDED, DeliveryState.DELIVERED), (TaskState.SUCCEEDED, DeliveryState.REFUSED)
CANCELED, FAILED = (TaskState.CANCELED, DeliveryState.PENDING), (TaskState.FAILED, DeliveryState.REFUSED)
WAITS, GOES_ON = (TaskState.PENDING, DeliveryState.PENDING), (TaskState.IN_PROGRESS, DeliveryState.PENDING)


@pytest.fixture
def runs(ledger: Ledger, tmp_path: Path) -> Runs:
    return Runs(ledger, Availability(ledger, EventLogger("adapter.platform")), Spool(tmp_path / "spool"))


def free(days: float = 0.0) -> set[str]:
    return {each.run_id for each in unneeded(before(DAY, days))}


def task(job_id: str) -> None:
    """A pipeline registers one."""
    columns = {"origin": "embedded", "agent": "A", "parameters": "", "uris": ["a.dcm"], "files": 1, "pipeline_id": "p"}
    at = {"created_ns": time.time_ns(), "updated_ns": time.time_ns()}
    ExportTask.create(task_id=str(uuid.uuid4()), job_id=job_id, payload_id="", state=TaskState.PENDING, **columns, **at)


def discard(runs: Runs, **which: Any) -> int:
    return runs.discard_results(runs.discardable(messages.DiscardRuns(state=RunState.SUCCEEDED, **which)))


def test_what_is_discarded(ledger: Ledger, runs: Runs) -> None:
    """Nothing for which an export waits, goes on, or failed, or at which the exporter has not looked; and each once."""
    gone = {result(exports=[]), result(exports=[], files=[]), result(DONE), result(DONE, MISSED), result(CANCELED)}
    gone.add(result(exports=[], kept_bytes=0))  # a file of no bytes
    gone.add(result())  # the exporter has looked, and found nothing that is sent
    for needed in (WAITS, GOES_ON, FAILED):
        result(DONE, needed)
    fresh = result(age_seconds=10.0)  # the exporter has not looked, and its pipeline may register more
    result(exports=[], kept_bytes=0, files=[])  # nothing is left of it
    assert free() == set()
    assert discard(runs) == len(gone) + 1
    assert free() == gone
    assert discard(runs) == 0
    Result.update(created_ns=Result.created_ns - 60 * 10**9).where(Result.run_id == fresh).execute()
    assert free() == {*gone, fresh}
    # A task that was registered in between keeps it.
    task(fresh)
    assert free() == gone


def test_the_jobs_that_are_meant(ledger: Ledger, runs: Runs) -> None:
    of_other, of_pipeline = result(exports=[], ae_title="OTHER"), result(exports=[], pipeline_id="q")
    old, one, rest = result(exports=[], age_seconds=5 * DAY), result(exports=[]), result(exports=[])
    for which, expected in (
        ({"ae_title": "OTHER", "pipeline_id": "q"}, None),
        ({"ae_title": "OTHER"}, of_other),
        ({"pipeline_id": "Q"}, of_pipeline),
        ({"until_ns": time.time_ns() - int(4 * DAY * 1e9)}, old),
        ({"job_ids": (one,)}, one),
        ({"since_ns": time.time_ns() - int(4 * DAY * 1e9)}, rest),
    ):
        before = free()
        assert discard(runs, **which) == (expected is not None)
        assert free() - before == ({expected} - {None})


def test_what_is_too_old(ledger: Ledger) -> None:
    """Of what is still there after so many days, that for which no export waits."""
    old = {"age_seconds": 3 * DAY + 60}
    gone = {result(exports=[], **old), result(MISSED, **old), result(**old)}
    exported = result(DONE, **old)
    for needed in (WAITS, GOES_ON, FAILED):
        result(needed, **old)
    just_sent = ExportTask.update(updated_ns=time.time_ns() - 10**9)
    for run_id in (result(MISSED, **old), result(DONE, **old)):
        just_sent.where(ExportTask.job_id == run_id).execute()
    result(exports=[], age_seconds=3 * DAY - 60)
    assert free() == free(4) == {exported}
    assert free(3) == {*gone, exported}


@pytest.fixture
def loop(ledger: Ledger, runs: Runs, tmp_path: Path) -> Loop:
    """Of a platform that frees what is discarded; each result has its directory."""
    loop = Loop()
    loop.tasks_made_ns = time.time_ns()
    for row in Result.select():
        (tmp_path / "spool" / "platform" / row.payload_id / "runs").mkdir(parents=True)
    Freeing(loop, runs, loop.freed.append, Availability(ledger, EventLogger("adapter.platform")))  # type: ignore[arg-type]
    return loop


@pytest.fixture
def five(ledger: Ledger, runs: Runs) -> list[str]:
    assert ledger.path is not None
    found = sorted(result(exports=[]) for _ in range(5))
    assert discard(runs) == 5
    return found


def left() -> list[str]:
    return sorted(row.run_id for row in Result.select())


def test_all_of_much(five: list[str], loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page after the other, without waiting for the next look."""
    assert left() == five
    monkeypatch.setattr(freeing, "PAGE_ROWS", 2)
    loop.look()
    assert left() == []


def test_what_is_gone_already_was_not_counted(five: list[str], loop: Loop, tmp_path: Path) -> None:
    """It was deleted by hand, or by a process that was killed before it could say so."""
    gone = Result.get(Result.run_id == five[2]).payload_id
    remove_tree(tmp_path / "spool" / "platform" / gone)
    loop.look()
    assert (left(), sorted(loop.freed)) == ([], [0, 7, 7, 7, 7])


def test_nothing_before_the_exporter_has_looked(five: list[str], loop: Loop) -> None:
    loop.tasks_made_ns = 0
    loop.look()
    assert left() == five


def test_one_that_cannot_be_deleted_keeps_no_other(
    five: list[str], loop: Loop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its name is told."""
    trouble = Result.get(Result.run_id == five[0]).payload_id

    def remove(path: Path) -> None:
        if path.name == trouble:
            raise OSError(errno.EIO, "no")
        remove_tree(path)

    monkeypatch.setattr(freeing, "remove_tree", remove)
    monkeypatch.setattr(freeing, "PAGE_ROWS", 2)
    loop.look()
    assert left() == five[:1]
    told = [record for record in caplog.records if record.message == "results_not_freed"]
    assert {record.fields["run_id"] for record in told} == {five[0]}  # type: ignore[attr-defined]


def test_a_task_that_is_registered_while_others_are_deleted(
    five: list[str], loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it wants was found before, and stays."""
    rest: list[str] = []

    def remove(path: Path) -> None:
        remove_tree(path)
        if not rest:
            rest.extend(row.run_id for row in Result.select() if row.payload_id != path.name)
            for run_id in rest:
                task(run_id)

    monkeypatch.setattr(freeing, "remove_tree", remove)
    loop.look()
    assert len(rest) == 4
    assert left() == sorted(rest)
    assert set(rest) < set(five)


def test_a_clock_that_is_set_ahead_makes_nothing_old(
    ledger: Ledger, runs: Runs, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither results nor the inputs of runs that failed: what is deleted does not come back."""
    assert ledger.path is not None
    platform = msgspec.structs.replace(loop.settings.services.platform, results_days=30)
    services = msgspec.structs.replace(loop.settings.services, platform=platform)
    loop.settings = msgspec.structs.replace(loop.settings, services=services)
    run_id = result(exports=[])
    now = time.time_ns()
    columns = {"job_id": "f", "payload_id": "f", "name": "n", "pipeline_id": "p", "priority": "normal"}
    Run.create(run_id="f", state=RunState.FAILED, keeps_input=True, created_ns=now, ended_ns=now, **columns)
    for module in (time, clock):
        monkeypatch.setattr(module, "time_ns", lambda: now + int(400 * DAY * 1e9))
    loop.tasks_made_ns = now + int(400 * DAY * 1e9)
    loop.look()
    assert (left(), Run.get(Run.run_id == "f").keeps_input) == ([run_id], True)
    # And what is really so old goes.
    monkeypatch.undo()
    Result.update(created_ns=now - int(31 * DAY * 1e9)).execute()
    Run.update(ended_ns=now - int(8 * DAY * 1e9)).where(Run.run_id == "f").execute()
    Freeing(loop, runs, loop.freed.append, Availability(ledger, EventLogger("adapter.platform")))  # type: ignore[arg-type]
    loop.look()
    assert (left(), Run.get(Run.run_id == "f").keeps_input) == ([], False)
