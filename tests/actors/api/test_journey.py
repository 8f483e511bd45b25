"""A study's journey: all that the ledger knows of it, in order, and nothing of the patient."""

import httpx
import pytest

from protocol.ledger import PAGE_ROWS, Ledger
from protocol.states import GroupState, InstanceState, JobState, RunState
from tests.actors.api import rows
from tests.actors.api.rows import SECOND, START


@pytest.fixture
def study(ledger: Ledger) -> None:
    """A study over two associations and a reclaimed part, with a job that ran, one that waits, one in quarantine."""
    with ledger.transaction():
        old = rows.group(state=GroupState.RECLAIMED)
        new = rows.group(revision=1, state=GroupState.OPEN, closed_ns=None, opened_ns=START + 30 * SECOND, instances=1)
        for number in (1, 2):
            rows.instance(number, group_id=old, history=True)
        rows.instance(31, group_id=new, association="018bcfe568000a1b2cff", calling_ae_title="PACS", host="10.0.0.8")
        rows.instance(5, state=InstanceState.QUARANTINED, reason="cut short")
        rows.instance(6, study_uid="9.9", group_id=new)
        rows.job("j1", seconds=20, group_id=old)
        steps = [[JobState.CREATING, START + 21 * SECOND], [JobState.COMPLETED, START + 22 * SECOND]]
        rows.submission("j1", JobState.COMPLETED, steps=steps, platform_state="Succeeded")
        rows.run("j1", RunState.SUCCEEDED, exit_code=0, started_ns=START + 23 * SECOND, ended_ns=START + 29 * SECOND)
        rows.job("j2", seconds=20, group_id=old)
        rows.job("other", seconds=20, group_id=None)


@pytest.mark.usefixtures("study")
def test_journey(rest: httpx.Client) -> None:
    """From the first instance to the end of the run."""
    found = rest.get("/api/trace/1.2.3").json()
    assert (found["studyInstanceUid"], found["instances"], found["bytes"]) == ("1.2.3", 4, 4000)
    assert found["states"] == {"Grouped": 3, "Quarantined": 1}
    first, second = found["associations"]
    assert (first["associationId"], first["instances"]) == ("018bcfe568000a1b2c3d", 3)
    assert (first["firstStored"], first["lastStored"]) == ("2023-11-14T22:13:21.000Z", "2023-11-14T22:13:25.000Z")
    assert (second["callingAeTitle"], second["host"], second["calledAeTitle"]) == ("PACS", "10.0.0.8", "COVIDAET")
    assert [(group["revision"], group["state"], group["ofStudy"]) for group in found["groups"]] == [
        (0, "Reclaimed", 2),
        (1, "Open", 1),
    ]
    assert found["groups"][1]["closed"] is None
    assert [(job["jobId"], job["state"], job["exitCode"]) for job in found["jobs"]] == [
        ("j1", "Completed", 0),
        ("j2", "Queued", None),
    ]
    assert [step["state"] for step in found["jobs"][0]["steps"]] == ["Creating", "Completed"]
    times = [event["time"] for event in found["events"]]
    assert times == sorted(times)
    assert [event["event"] for event in found["events"]] == [
        "FirstInstanceStored",
        "GroupOpened",
        "LastInstanceStored",
        "InstancesQuarantined",
        "GroupClosed",
        "JobCreated",
        "JobCreated",
        "JobAdvanced",
        "JobAdvanced",
        "RunStarted",
        "RunEnded",
        "GroupOpened",
        "FirstInstanceStored",
        "LastInstanceStored",
    ]
    assert found["events"][10]["fields"]["exitCode"] == 0


@pytest.mark.usefixtures("study")
def test_nothing_of_the_patient(rest: httpx.Client) -> None:
    """A group's key may be a patient's ID, so it is not told."""
    assert "PAT-SECRET" not in rest.get("/api/trace/1.2.3").text


@pytest.mark.parametrize("uid", ["1.2.3.4.5", "x", "%01", "1'--", "..%2f.."])
def test_unknown_study(rest: httpx.Client, uid: str) -> None:
    answer = rest.get(f"/api/trace/{uid}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_large_study(rest: httpx.Client, ledger: Ledger) -> None:
    """More instances than a page holds, of more groups than a page holds, are all counted."""
    count = PAGE_ROWS + 3
    with ledger.transaction():
        for number in range(1, count + 1):
            rows.instance(number, group_id=rows.group(revision=number))
    found = rest.get("/api/trace/1.2.3").json()
    assert (found["instances"], len(found["groups"]), len(found["associations"])) == (count, count, 1)
