"""Inference requests with Clara Platform: what it is asked for before a request is accepted, and afterwards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from protocol.platforms.clara.generated import jobs_pb2
from tests.actors.retriever.web import WebServer
from tests.clara.faults import Fault
from tests.clara.server import ClaraServer
from tests.gateway import Gateway
from tests.inference import body, by_study, dicomweb, status, submit, wait_retrieved
from tests.samples import Study, dataset_bytes, make_study


@pytest.fixture(scope="module")
def clara(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClaraServer]:
    with ClaraServer(tmp_path_factory.mktemp("clara")) as clara:
        yield clara


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"), "PAT-CLARA", 8, rows=64)


@pytest.fixture(scope="module")
def pacs(study: Study) -> Iterator[WebServer]:
    with WebServer(study) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(clara: ClaraServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = {
        "services.platform.endpoint": clara.endpoint,
        "services.platform.uploadMetadata": True,
        "services.platform.metadataDicomSource": ["0010,0020", "0020,000D"],
        "services.platform.retryDelaySeconds": 1,
    }
    with Gateway(tmp_path_factory.mktemp("gateway"), settings) as running:
        yield running


def started(gateway: Gateway, clara: ClaraServer, transaction: str, job_id: str) -> dict[str, Any]:
    """Wait until a request's job is on its way there; returns what the platform has."""
    wait_retrieved(gateway, transaction)
    gateway.wait_for(lambda: gateway.jobs(source=transaction, state="Completed"), 60.0, "started job")
    (found,) = [job for job in clara.store.jobs() if job["metadata"]["Source"] == transaction]
    assert found["job_id"] == job_id
    return found


def test_a_request_with_answers_lost_at_each_step(
    gateway: Gateway, clara: ClaraServer, pacs: WebServer, study: Study
) -> None:
    pipeline = clara.store.add_pipeline("requests")
    clara.faults.add("Jobs/Create", Fault.CUT_AFTER)
    clara.faults.add("Jobs/AddMetadata", Fault.CUT_AFTER)
    clara.faults.add("Jobs/Start", Fault.CUT_AFTER)
    request = body("LOST", pipeline, [by_study(study.uid)], [dicomweb(f"{pacs.url}/dw")], priority=200)
    accepted = submit(gateway, request)
    job = started(gateway, clara, "LOST", accepted["jobId"])
    assert job["payload_id"] == accepted["payloadId"]
    assert job["priority"] == jobs_pb2.JOB_PRIORITY_HIGHER
    assert job["name"].startswith("lost-some-algorithm-")
    (known,) = gateway.jobs(source="LOST")
    assert job["metadata"] == {
        "Source": "LOST",
        "Instances": "8",
        "DicomAdapterJobId": known["jobId"],
        "00100020": "PAT-CLARA",
        "0020000D": study.uid,
    }
    blobs = clara.store.blobs(job["payload_id"])
    series = pydicom.dcmread(next(iter(study.files.values())), stop_before_pixels=True).SeriesInstanceUID
    assert set(blobs) == {f"dcm/PAT-CLARA/{study.uid}/{series}/{uid}.dcm" for uid in study.files}
    for name, path in blobs.items():
        assert dataset_bytes(path) == dataset_bytes(study.files[Path(name).stem])
    assert status(gateway, accepted["jobId"])["dicom"]["status"] == "Success"


def test_a_pipeline_that_it_does_not_know_is_422_and_one_that_refuses_now_is_503(
    gateway: Gateway, clara: ClaraServer, pacs: WebServer, study: Study
) -> None:
    before = len(clara.store.jobs())
    source = dicomweb(f"{pacs.url}/dw")
    unknown = gateway.rest.post("/api/inference", json=body("UNKNOWN", "0" * 32, [by_study(study.uid)], [source]))
    assert unknown.status_code == 422, unknown.text
    pipeline = clara.store.add_pipeline("busy")
    clara.faults.add("Jobs/Create", Fault.REFUSE, times=2, code="UNAVAILABLE")
    busy = gateway.rest.post("/api/inference", json=body("BUSY", pipeline, [by_study(study.uid)], [source]))
    assert busy.status_code == 503, busy.text
    assert len(clara.store.jobs()) == before
    assert {job["source"] for job in gateway.jobs()} <= {"LOST"}
    accepted = submit(gateway, body("BUSY", pipeline, [by_study(study.uid)], [source]))
    started(gateway, clara, "BUSY", accepted["jobId"])
