"""Jobs over REST: what is listed, what a filter takes, and what a person decides."""

from typing import Any

import httpx
import pytest

from protocol import messages
from protocol.ledger import ExportTask, Ledger, Result, Run, Submission
from protocol.states import JobState, RunState, TaskState
from tests.actors.api import rows
from tests.actors.api.rows import SECOND, START
from tests.actors.api.surroundings import Owners


@pytest.fixture
def jobs(ledger: Ledger) -> None:
    """Three jobs: done, faulted, and not yet taken over."""
    with ledger.transaction():
        rows.job("j-done", seconds=1)
        steps = [[JobState.CREATING, START + 2 * SECOND], [JobState.COMPLETED, START + 3 * SECOND]]
        rows.submission(
            *("j-done", JobState.COMPLETED),
            seconds=3,
            payload_id="payload",
            platform_state="Failed",
            platform_job_id="P",
            steps=steps,
        )
        rows.run(
            *("j-done", RunState.FAILED),
            exit_code=3,
            error="exit code 3",
            last_output="bad input",
            started_ns=START + 4 * SECOND,
            ended_ns=START + 5 * SECOND,
        )
        rows.job("j-fault", seconds=2, pipeline_id="p2", ae_title="OTHER")
        rows.submission("j-fault", JobState.FAULTED, seconds=9, tries=3, last_error="no answer")
        rows.job("j-new", seconds=3)


DONE = {
    "jobId": "j-done",
    "payloadId": "payload",
    "jobName": "covidaet-covid-j-done",
    "pipelineId": "p1",
    "aeTitle": "COVIDAET",
    "state": "Completed",
    "platformState": "Failed",
    "priority": "normal",
    "source": "COVIDAET (AeTitle)",
    "instances": 2,
    "tries": 0,
    "lastError": "",
    "created": "2023-11-14T22:13:21.000Z",
    "updated": "2023-11-14T22:13:23.000Z",
}


@pytest.mark.usefixtures("jobs")
def test_list(rest: httpx.Client) -> None:
    """The newest first, each with exactly the documented fields; one without a submission is Queued."""
    found = rest.get("/api/jobs").json()
    assert [job["jobId"] for job in found] == ["j-new", "j-fault", "j-done"]
    assert found[2] == DONE
    assert (found[0]["state"], found[0]["payloadId"], found[0]["updated"]) == ("Queued", "", "2023-11-14T22:13:23.000Z")
    assert (found[1]["tries"], found[1]["lastError"]) == (3, "no answer")


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("state=faulted", ["j-fault"]),
        ("state=Queued", ["j-new"]),
        ("state=Creating", []),
        ("platformState=failed", ["j-done"]),
        ("platformState=Evicted", []),
        ("platformState=Failed&state=Faulted", []),
        ("aeTitle=OTHER", ["j-fault"]),
        ("aeTitle=other", []),
        ("pipelineId=p1", ["j-new", "j-done"]),
        ("pipelineId=p1&state=Completed", ["j-done"]),
        ("limit=1", ["j-new"]),
        ("limit=1&offset=1", ["j-fault"]),
        ("offset=3", []),
    ],
)
def test_filters(rest: httpx.Client, query: str, expected: list[str]) -> None:
    assert [job["jobId"] for job in rest.get(f"/api/jobs?{query}").json()] == expected


@pytest.mark.parametrize(
    "query", ["state=Done", "platformState=Faulted", "limit=0", "limit=501", "limit=x", "offset=-1", "offset=1.5"]
)
def test_wrong_filters(rest: httpx.Client, query: str) -> None:
    """The parameter is named."""
    answer = rest.get(f"/api/jobs?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["detail"]


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("path", ["/api/jobs", "/api/exports", "/api/quarantine"])
def test_a_parameter_that_is_none(rest: httpx.Client, path: str) -> None:
    """Its list would be the whole one, for something else than what was asked."""
    for query in ("aetitle=COVIDAET", "limit=5&foo", "%C3%A9=1", "_=" + "x" * 3000):
        answer = rest.get(f"{path}?{query}")
        assert answer.status_code == 400, query
        assert "limit, offset" in answer.json()["detail"], query
    assert rest.get(f"{path}?limit=5&offset=0").status_code == 200


@pytest.mark.parametrize("path", ["jobs/discard", "jobs/retry", "jobs/J/discard", "exports/cancel", "exports/retry"])
def test_a_filter_in_a_commands_address_decides_nothing(rest: httpx.Client, owners: Owners, path: str) -> None:
    """The body would still say: all of them."""
    for query in ("aeTitle=A", "destination=A", "aeTitle"):
        answer = rest.post(f"/api/{path}?{query}", json={})
        assert answer.status_code == 400
        assert "its body" in answer.json()["detail"]
    assert owners.take() == []


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("MYPACS", "MYPACS"),
        ("dicomweb:https://pacs/dicom-web/", "https://pacs/dicom-web"),
        ("dicomweb:", "dicomweb:"),
        ("DICOMweb:/", "DICOMweb:/"),
    ],
)
def test_a_destination_is_never_all(rest: httpx.Client, owners: Owners, given: str, asked: str) -> None:
    assert rest.post("/api/exports/cancel", json={"destination": given}).status_code == 200
    assert owners.take() == [messages.CancelTasks(destination=asked)]


@pytest.mark.usefixtures("jobs")
def test_one(rest: httpx.Client) -> None:
    """With its steps, and what its pipeline left behind."""
    found = rest.get("/api/jobs/J-DONE").json()
    assert found.items() >= DONE.items()
    assert found["platformJobId"] == "P"
    assert found["steps"] == [
        {"state": "Creating", "time": "2023-11-14T22:13:22.000Z"},
        {"state": "Completed", "time": "2023-11-14T22:13:23.000Z"},
    ]
    run: dict[str, Any] = found["run"]
    assert (run["state"], run["exitCode"], run["error"]) == ("Failed", 3, "exit code 3")
    assert (run["lastOutput"], run["ended"]) == ("bad input", "2023-11-14T22:13:25.000Z")
    assert rest.get("/api/jobs/j-new").json()["run"] is None
    assert rest.get("/api/jobs/none").status_code == 404


@pytest.mark.usefixtures("jobs")
def test_decide_on_one(rest: httpx.Client, owners: Owners) -> None:
    """The submitter does it; what it does not do is told with the job's state."""
    assert rest.post("/api/jobs/j-fault/Retry").json() == {"affected": 1}
    assert rest.post("/api/jobs/j-fault/discard").status_code == 200
    expected = [messages.RetryJobs(job_ids=("j-fault",)), messages.DiscardJobs(job_ids=("j-fault",))]
    assert owners.take() == expected
    assert rest.post("/api/jobs/j-done/retry").json() == {"affected": 1}  # its pipeline failed
    assert owners.take() == [messages.RetryJobs(job_ids=("j-done",), failed=True)]
    owners.answer = lambda _: messages.Done(affected=0)
    answer = rest.post("/api/jobs/j-done/retry")
    assert (answer.status_code, "Completed" in answer.json()["detail"]) == (409, True)
    owners.answer = lambda _: messages.Refused(reason="it is being submitted")
    answer = rest.post("/api/jobs/j-done/retry")
    assert (answer.status_code, answer.json()["detail"]) == (409, "it is being submitted")
    owners.answer = lambda _: messages.Refused(reason="not now", transient=True)
    answer = rest.post("/api/jobs/j-done/retry")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    owners.take()
    assert rest.post("/api/jobs/none/retry").status_code == 404
    assert owners.take() == []


@pytest.mark.usefixtures("jobs")
def test_discard_what_one_has_left(rest: httpx.Client, owners: Owners) -> None:
    """The platform does it; what it does not do is told with what keeps it."""
    assert rest.post("/api/jobs/J-done/discard").json() == {"affected": 1}
    assert owners.take() == [messages.DiscardRuns(state=RunState.FAILED, job_ids=("j-done",))]
    owners.answer = lambda _: messages.Done(affected=0)
    answer = rest.post("/api/jobs/j-done/discard")
    assert (answer.status_code, "nothing is kept" in answer.json()["detail"]) == (409, True)

    rows.job("j-good", seconds=4)
    rows.submission("j-good", JobState.COMPLETED, seconds=5, platform_state="Succeeded")
    rows.run("j-good", RunState.SUCCEEDED)
    assert rest.get("/api/jobs/j-good").json()["run"]["keepsResults"] is False
    rows.result("j-good")
    assert rest.get("/api/jobs/j-good").json()["run"]["keepsResults"] is True
    owners.take()
    rows.task("t", job_id="j-good", payload_id="", state=TaskState.FAILED)

    def refusal() -> tuple[int, str]:
        answer = rest.post("/api/jobs/j-good/discard")
        assert owners.take() == [messages.DiscardRuns(state=RunState.SUCCEEDED, job_ids=("j-good",))]
        return answer.status_code, answer.json()["detail"]

    assert refusal() == (
        409,
        "an export waits for the job's results, or failed: retry or cancel it first (dicom-adapter exports list)",
    )
    ExportTask.update(state=TaskState.CANCELED).execute()
    assert refusal() == (409, "the job has ended, and nothing is kept of it")
    Result.update(discarded=True).execute()
    status, why = refusal()
    assert (status, "was discarded already" in why) == (409, True)
    # A job that faulted when its start was not answered, although its run was started: the submission comes first.
    Submission.update(state=JobState.FAULTED).where(Submission.job_id == "j-good").execute()
    owners.answer = lambda _: messages.Done(affected=1)
    assert rest.post("/api/jobs/j-good/discard").status_code == 200
    assert owners.take() == [messages.DiscardJobs(job_ids=("j-good",))]


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("state", [RunState.CREATED, RunState.PENDING, RunState.RUNNING, RunState.CANCELED])
def test_what_has_not_ended_is_not_discarded(rest: httpx.Client, owners: Owners, state: RunState) -> None:
    """Only the submitter is asked, who finds no faulted job."""
    Run.update(state=state).execute()
    owners.answer = lambda _: messages.Done(affected=0)
    answer = rest.post("/api/jobs/j-done/discard")
    assert (answer.status_code, "only a Faulted one, or one that Succeeded" in answer.json()["detail"]) == (409, True)
    assert owners.take() == [messages.DiscardJobs(job_ids=("j-done",))]


@pytest.mark.usefixtures("jobs")
def test_what_runs_is_not_retried(rest: httpx.Client, owners: Owners) -> None:
    """As right after it was, when the first answer was lost."""
    Submission.update(platform_state="Pending").where(Submission.job_id == "j-done").execute()
    answer = rest.post("/api/jobs/j-done/retry")
    assert (answer.status_code, "Pending: wait" in answer.json()["detail"]) == (409, True)
    assert owners.take() == []


def test_decide_on_many(rest: httpx.Client, owners: Owners) -> None:
    owners.answer = lambda _: messages.Done(affected=7)
    filtered = {"AETITLE": "A", "pipelineId": "p", "since": "2023-11-14T23:13:20+01:00", "until": "2023-11-14T22:13:21"}
    assert rest.post("/api/jobs/retry", json=filtered).json() == {"affected": 7}
    assert rest.post("/api/jobs/retry", json={"platformState": "failed"}).json() == {"affected": 7}
    assert rest.post("/api/jobs/discard", json={}).json() == {"affected": 7}
    for state in ("Failed", "succeeded"):
        assert rest.post("/api/jobs/discard", json={"platformState": state, "aeTitle": "A"}).json() == {"affected": 7}
    assert owners.take() == [
        messages.RetryJobs(ae_title="A", pipeline_id="p", since_ns=START, until_ns=START + SECOND),
        messages.RetryJobs(failed=True),
        messages.DiscardJobs(),
        messages.DiscardRuns(state=RunState.FAILED, ae_title="A"),
        messages.DiscardRuns(state=RunState.SUCCEEDED, ae_title="A"),
    ]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"aeTitel": "A"}, "'aeTitel' is not known here"),
        ({"since": "yesterday"}, "since 'yesterday' is no time"),
        ({"until": 5}, "until"),
        ({"aeTitle": None}, "'aeTitle' is null"),
        ({"pipelineId": None, "aeTitle": "A"}, "'pipelineId' is null"),
        ({"until": "1970-01-01T00:00:00Z"}, "from 1971 to 2261"),
        ({"until": "2262-01-01"}, "from 1971 to 2261"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "from 1971 to 2261"),
        ({"platformState": "Running"}, "cannot be discarded"),
        ({"platformState": ""}, "platformState"),
        ({"platformState": None}, "'platformState' is null"),
        ([], "not an object"),
    ],
)
def test_a_wrong_filter_decides_nothing(rest: httpx.Client, owners: Owners, body: object, word: str) -> None:
    """A name that is not known would otherwise discard what was not meant."""
    answer = rest.post("/api/jobs/discard", json=body)
    assert (answer.status_code, word in answer.json()["detail"]) == (400, True)
    assert rest.post("/api/jobs/discard").status_code == 400
    assert owners.take() == []


@pytest.mark.parametrize("path", ["/api/jobs/discard", "/api/jobs/retry", "/api/exports/cancel", "/api/exports/retry"])
def test_what_stands_twice_or_is_null_decides_nothing(rest: httpx.Client, owners: Owners, path: str) -> None:
    name = "destination" if "exports" in path else "aeTitle"
    for body in (
        f'{{"{name}": "A", "{name}": "B"}}',
        f'{{"{name}": null}}',
        f'{{"{name}": "A", "x": {{"a": 1, "a": 2}}}}',
    ):
        answer = rest.post(path, content=body.replace("NAME", name), headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, body
    assert owners.take() == []
