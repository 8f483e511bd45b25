"""What each owner forgets, and in which order; `tests/test_forgetting.py` has the whole gateway."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.exporter import forgetting as of_exporter
from actors.guardian import forgetting as of_guardian
from actors.processor import forgetting as of_processor
from actors.processor.groups import OpenGroups
from actors.retriever import forgetting as of_retriever
from actors.submitter import forgetting as of_submitter
from protocol import clock
from protocol.config import Settings, load
from protocol.ledger import (
    ExportTask,
    Group,
    InferenceRequest,
    InstanceHistory,
    Job,
    Ledger,
    Reclaim,
    Result,
    Retrieval,
    Submission,
)
from protocol.logs import EventLogger
from protocol.spool import Spool
from protocol.states import GroupState, InstanceState, JobState, RequestState, TaskState

DAY_NS = 86_400 * 1_000_000_000
LOG = EventLogger("adapter.test")
NOW = time.time_ns()
OLD = NOW - 400 * DAY_NS
NEWEST = 99


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(None, None, [f"ConnectionStrings.DicomAdapterDatabase=Data Source={tmp_path}/ledger.db"], {}).settings


def group(group_id: int, state: GroupState = GroupState.RECLAIMED, closed_ns: int = OLD) -> None:
    Group.create(
        group_id=group_id,
        ae_title="AE",
        processor="p",
        key_value=str(group_id),
        revision=0,
        state=state,
        last_wall_ns=OLD,
        last_boot_ns=0,
        boot="",
        opened_ns=OLD,
        closed_ns=closed_ns,
    )


def job(job_id: str, group_id: int | None, state: JobState | None = JobState.COMPLETED, **columns: Any) -> None:
    Job.create(
        job_id=job_id,
        group_id=group_id,
        ae_title="AE",
        name=job_id,
        pipeline_id="p",
        priority="normal",
        source="s",
        instances=1,
        created_ns=OLD,
    )
    if state is not None:
        Submission.create(
            **{"job_id": job_id, "state": state, "platform_state": "Succeeded", "created_ns": OLD, "updated_ns": OLD}
            | columns
        )


def history(count: int, group_id: int | None) -> None:
    for number in range(count):
        InstanceHistory.create(
            identifier=f"{group_id}/{number}",
            group_id=group_id,
            state=InstanceState.GROUPED,
            called_ae_title="AE",
            calling_ae_title="AE",
            host="",
            sop_class_uid="",
            sop_instance_uid="",
            transfer_syntax_uid="",
            study_uid="",
            series_uid="",
            patient_id="",
            size=1,
            dataset_offset=1,
            stored_wall_ns=OLD,
            stored_boot_ns=0,
            boot="",
            reclaimed_ns=OLD,
        )


def test_a_submission_outlives_its_job(ledger: Ledger, settings: Settings) -> None:
    """However old it is: a job without one would be submitted again."""
    group(1)
    group(NEWEST, GroupState.OPEN)
    job("job", 1)
    of_submitter.forgetting(ledger, LOG).look(settings)
    assert Submission.select().count() == 1
    of_processor.forgetting(ledger, LOG).look(settings)
    assert (Job.select().count(), Group.select().count(), Submission.select().count()) == (0, 1, 1)
    of_submitter.forgetting(ledger, LOG).look(settings)
    assert Submission.select().count() == 0


@pytest.mark.parametrize(
    "still",
    [
        *("faulted", "queued", "untaken", "to be canceled", "goes on", "submitted lately", "another job of it"),
        *("results", "exported", "exported by the platform's ID", "exported lately"),
        *("closed lately", "reclaimed lately", "not reclaimed", "newest"),
    ],
)
def test_what_matters_still(ledger: Ledger, settings: Settings, still: str) -> None:
    lately = NOW - 80 * DAY_NS
    if still != "newest":
        group(NEWEST, GroupState.OPEN)
    group(
        1,
        GroupState.CLOSED if still == "not reclaimed" else GroupState.RECLAIMED,
        lately if still == "closed lately" else OLD,
    )
    Reclaim.create(group_id=1, files=3, bytes=3, reclaimed_ns=lately if still == "reclaimed lately" else OLD)
    history(3, 1)
    states = {"faulted": JobState.FAULTED, "queued": JobState.QUEUED, "to be canceled": JobState.DISCARDED}
    more: dict[str, Any] = {
        "to be canceled": {"platform_state": ""},
        "goes on": {"platform_state": "Running"},
        "submitted lately": {"updated_ns": lately},
        "exported by the platform's ID": {"platform_job_id": "theirs"},
    }.get(still, {})
    if still.startswith("exported"):
        ExportTask.create(
            task_id="t",
            origin="clara",
            job_id="theirs" if "ID" in still else "job",
            payload_id="",
            pipeline_id="p",
            agent="a",
            parameters="",
            uris=["a"],
            files=1,
            state=TaskState.SUCCEEDED if still == "exported lately" else TaskState.PENDING,
            created_ns=OLD,
            updated_ns=lately if still == "exported lately" else OLD,
        )
    job("job", 1, None if still == "untaken" else states.get(still, JobState.COMPLETED), **more)
    if still == "another job of it":
        job("other", 1, JobState.FAULTED)
    if still == "results":
        Result.create(
            run_id="r",
            job_id="job",
            payload_id="p",
            pipeline_id="p",
            directory="/",
            files=["a"],
            exports=[],
            created_ns=OLD,
        )
    for owner in (of_processor, of_submitter, of_guardian, of_exporter):
        owner.forgetting(ledger, LOG).look(settings)
    assert (Group.select().where(Group.group_id == 1).count(), InstanceHistory.select().count()) == (1, 3)
    assert Reclaim.select().count() == 1
    assert ExportTask.select().count() == still.startswith("exported")
    assert Job.select().count() == 1 + (still == "another job of it")
    assert Submission.select().count() == Job.select().count() - (still == "untaken")


def test_no_group_id_is_given_twice(ledger: Ledger, settings: Settings) -> None:
    """What is still known of the old group would be taken for the new one's: its files would be deleted."""
    for number in (1, 2, 3):
        group(number)
        job(f"job-{number}", number)
        Reclaim.create(group_id=number, files=0, bytes=0, reclaimed_ns=OLD)
    of_processor.forgetting(ledger, LOG).look(settings)
    assert [row.group_id for row in Group.select()] == [3]
    groups = OpenGroups(60.0)
    groups.load(clock.now())
    assert groups.new_id() == 4
    Group.delete().execute()
    Reclaim.create(group_id=7, files=0, bytes=0, reclaimed_ns=NOW)
    groups.load(clock.now())
    assert groups.new_id() == 8
    ledger.close()


def test_a_clock_that_is_set_ahead_makes_nothing_old(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    group(1, closed_ns=NOW)
    group(NEWEST, GroupState.OPEN)
    subject = of_processor.forgetting(ledger, LOG)
    for module in (time, clock):
        monkeypatch.setattr(module, "time_ns", lambda: NOW + 365 * DAY_NS)
    subject.look(settings)
    assert Group.select().count() == 2


def test_what_a_person_gave_up(ledger: Ledger, settings: Settings) -> None:
    history(3, None)
    history(3, 7)
    of_processor.forgetting(ledger, LOG).look(settings)
    assert [row.group_id for row in InstanceHistory.select()] == [7, 7, 7]


@pytest.mark.parametrize("still", ["", "under way", "files", "faulted"])
def test_requests(ledger: Ledger, settings: Settings, tmp_path: Path, still: str) -> None:
    spool = Spool(str(tmp_path / "spool"))
    spool.create()
    InferenceRequest.create(
        transaction_id="t",
        job_id="job",
        job_name="n",
        pipeline_id="p",
        priority="normal",
        digest="",
        request="",
        outputs="",
        state=RequestState.IN_PROCESS if still == "under way" else RequestState.COMPLETED,
        created_ns=OLD,
        updated_ns=OLD,
    )
    job("job", None, JobState.FAULTED if still == "faulted" else JobState.COMPLETED)
    for number in range(3):
        Retrieval.create(job_id="job", path=str(number), name="n", size=1, source=0, retrieved_ns=OLD)
    if still == "files":
        (Path(spool.requests) / "job").mkdir()
    of_retriever.forgetting(ledger, LOG, spool).look(settings)
    of_submitter.forgetting(ledger, LOG).look(settings)
    kept = bool(still)
    counts = [table.select().count() for table in (InferenceRequest, Job, Submission, Retrieval)]
    assert counts == [kept, kept, kept, 3 * kept]
