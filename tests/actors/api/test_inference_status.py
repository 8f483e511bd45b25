"""`/api/inference/status`: the shape of the original, from what the ledger has."""

import httpx
import pytest

from protocol.ledger import Ledger
from protocol.states import JobState, RequestState, RunState
from tests.actors.api import rows

JOB = "0f7f3a52-6a0c-4c5c-9a43-6a3ae1d2ab01"


def test_by_transaction_id_and_by_either_job_id(rest: httpx.Client, ledger: Ledger) -> None:
    rows.request(JOB, "T/1 ü", state=RequestState.IN_PROCESS, message="missing: study 1.2.3")
    for identifier in ("T%2F1%20%C3%BC", f"platform-{JOB}", JOB.upper()):
        answer = rest.get(f"/api/inference/status/{identifier}")
        assert answer.status_code == 200, identifier
        assert answer.json() == {
            "transactionId": "T/1 ü",
            "platform": {
                "jobId": f"platform-{JOB}",
                "payloadId": f"payload-{JOB}",
                "status": "Healthy",
                "state": "Pending",
                "priority": "Higher",
                "created": "2023-11-14T22:13:21.000Z",
                "started": None,
                "stopped": None,
            },
            "dicom": {"state": "InProcess", "status": "Unknown"},
            "message": "missing: study 1.2.3",
        }


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (RunState.CREATED, ("Pending", "Healthy")),
        (RunState.PENDING, ("Pending", "Healthy")),
        (RunState.RUNNING, ("Running", "Healthy")),
        (RunState.SUCCEEDED, ("Stopped", "Healthy")),
        (RunState.FAILED, ("Stopped", "Faulted")),
        (RunState.CANCELED, ("Stopped", "Canceled")),
    ],
)
def test_the_job_s_state_on_the_embedded_platform(
    rest: httpx.Client, ledger: Ledger, run: RunState, expected: tuple[str, str]
) -> None:
    rows.request(JOB, "T1", state=RequestState.COMPLETED, status="Success")
    rows.run(JOB, run)
    found = rest.get("/api/inference/status/T1").json()
    assert (found["platform"]["state"], found["platform"]["status"]) == expected
    assert found["dicom"] == {"state": "Completed", "status": "Success"}


@pytest.mark.parametrize(("word", "status"), [("Evicted", "Evicted"), ("Terminated", "Terminated"), ("", "Healthy")])
def test_what_another_platform_says(rest: httpx.Client, ledger: Ledger, word: str, status: str) -> None:
    rows.request(JOB, "T1")
    rows.submission(JOB, JobState.COMPLETED, platform_state=word)
    assert rest.get("/api/inference/status/T1").json()["platform"]["status"] == status


def test_a_retrieval_that_found_nothing_is_completed_and_failed(rest: httpx.Client, ledger: Ledger) -> None:
    rows.request(JOB, "T1", state=RequestState.FAILED, status="Fail")
    assert rest.get("/api/inference/status/T1").json()["dicom"] == {"state": "Completed", "status": "Fail"}


def test_one_that_is_not_accepted_yet_is_not_there(rest: httpx.Client, ledger: Ledger) -> None:
    rows.request(JOB, "T1", state=RequestState.OFFERED)
    for identifier in ("T1", JOB, "nothing", "%20"):
        assert rest.get(f"/api/inference/status/{identifier}").status_code == 404


def test_a_trace_tells_of_requests(rest: httpx.Client, ledger: Ledger) -> None:
    rows.request(JOB, "T1", state=RequestState.COMPLETED, status="Success")
    rows.retrieval(JOB)
    rows.retrieval(JOB, path="dcm/1.2.3.2.dcm", retrieved_ns=rows.START + 5 * rows.SECOND)
    journey = rest.get("/api/trace/1.2.3").json()
    assert journey["retrievals"] == [
        {
            "transactionId": "T1",
            "jobId": JOB,
            "instances": 2,
            "bytes": 2000,
            "firstRetrieved": "2023-11-14T22:13:23.000Z",
            "lastRetrieved": "2023-11-14T22:13:25.000Z",
        }
    ]
    told = [event["event"] for event in journey["events"]]
    assert told == ["RequestAccepted", "FirstInstanceRetrieved", "LastInstanceRetrieved"]
    assert "PAT-SECRET" not in str(journey)
    assert "sealed" not in str(journey)


def test_metrics_count_requests(rest: httpx.Client, ledger: Ledger) -> None:
    rows.request(JOB, "T1", state=RequestState.IN_PROCESS)
    assert 'dicom_adapter_requests{state="InProcess"} 1.0' in rest.get("/metrics").text
