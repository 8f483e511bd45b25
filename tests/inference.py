"""Bodies of inference requests for tests, and what a pipeline kept of their payloads."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pydicom

from tests.gateway import Gateway
from tests.peers import Sent, storescu
from tests.samples import Study, dataset_bytes, make_study

USER, PASSWORD = "adapter", "s3cret-of-orthanc"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def by_study(*uids: str) -> dict[str, Any]:
    return {"type": "DICOM_UID", "studies": [{"StudyInstanceUID": uid} for uid in uids]}


def by_series(study: str, series: str, *instances: str) -> dict[str, Any]:
    wanted: dict[str, Any] = {"SeriesInstanceUID": series}
    if instances:
        wanted["instances"] = [{"SOPInstanceUID": list(instances)}]
    return {"type": "DICOM_UID", "studies": [{"StudyInstanceUID": study, "series": [wanted]}]}


def resources(*pairs: tuple[str, str], **more: str) -> dict[str, Any]:
    listed = [{"resourceType": kind, "id": identifier} for kind, identifier in pairs]
    return {"type": "FHIR_RESOURCE", "resources": listed, **more}


def dicomweb(url: str, **more: Any) -> dict[str, Any]:
    return {"interface": "DICOMweb", "connectionDetails": {"uri": url, **more}}


def orthanc_web(port: int, **more: Any) -> dict[str, Any]:
    """Orthanc's DICOMweb with its password."""
    return dicomweb(f"http://127.0.0.1:{port}/dicom-web", authType="Basic", authID=BASIC, **more)


def fhir(url: str, **more: Any) -> dict[str, Any]:
    return {"interface": "FHIR", "connectionDetails": {"uri": url, **more}}


def dimse(port: int, **more: Any) -> dict[str, Any]:
    details = {"aeTitle": "ORTHANC", "host": "127.0.0.1", "port": port, "operations": ["QUERY", "RETRIEVE"], **more}
    return {"interface": "DIMSE", "connectionDetails": details}


def body(
    transaction: str, pipeline: str, inputs: list[dict[str, Any]], sources: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    algorithm = {"interface": "Algorithm", "connectionDetails": {"name": "Some Algorithm", "id": pipeline}}
    return {
        "transactionID": transaction,
        "inputMetadata": {"inputs": inputs},
        "inputResources": [algorithm, *sources],
        **more,
    }


def submit(gateway: Gateway, request: dict[str, Any]) -> dict[str, Any]:
    """Have a request accepted; returns the answer."""
    answer = gateway.rest.post("/api/inference", json=request)
    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
    accepted: dict[str, Any] = answer.json()
    return accepted


def status(gateway: Gateway, identifier: str) -> dict[str, Any]:
    answer = gateway.rest.get(f"/api/inference/status/{identifier}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wait_retrieved(gateway: Gateway, transaction: str, timeout: float = 60.0) -> dict[str, Any]:
    """Wait until the retrieval is over; returns the status."""

    def over() -> dict[str, Any] | None:
        found = status(gateway, transaction)
        return found if found["dicom"]["state"] == "Completed" else None

    found: dict[str, Any] = gateway.wait_for(over, timeout, f"end of the retrieval of {transaction}")
    return found


def wait_succeeded(gateway: Gateway, transaction: str, timeout: float = 60.0) -> dict[str, Any]:
    """Wait until the request's job has run; returns the job."""
    wait_retrieved(gateway, transaction, timeout)

    def over() -> dict[str, Any] | None:
        found = gateway.jobs(source=transaction)
        return found[0] if found and found[0]["platformState"] == "Succeeded" else None

    found: dict[str, Any] = gateway.wait_for(over, timeout, f"end of the job of {transaction}")
    return found


def payload(kept: Path) -> set[str]:
    """Names of a payload that a pipeline kept."""
    return {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}


def names(study: Study, *uids: str) -> set[str]:
    """Names of a study's instances, or of some of them, in a payload."""
    found = set()
    for uid in uids or study.files:
        series = pydicom.dcmread(study.files[uid], stop_before_pixels=True).SeriesInstanceUID
        found.add(f"dcm/{study.patient_id}/{study.uid}/{series}/{uid}.dcm")
    return found


def assert_same(kept: Path, study: Study) -> None:
    """Each instance of the study that was kept has its bytes."""
    for path in kept.rglob("*.dcm"):
        if path.stem in study.files:
            assert dataset_bytes(path) == dataset_bytes(study.files[path.stem])


def fill(port: int, *studies: Study) -> None:
    """Bring studies to Orthanc."""
    for study in studies:
        sent: Sent = storescu(port, study.directory, called="ORTHANC")
        assert sent.successes == len(study.files), sent.output[-2000:]


def study_with(directory: Path, patient: str, instances: int, accession: str = "", **more: Any) -> Study:
    """A study with an accession number."""
    study = make_study(directory, patient, instances, **{"rows": 64, **more})
    for path in study.files.values() if accession else ():
        dataset = pydicom.dcmread(path)
        dataset.AccessionNumber = accession
        dataset.save_as(path)
    return study


def post_raw(gateway: Gateway, data: bytes) -> httpx.Response:
    return gateway.rest.post("/api/inference", content=data, headers={"Content-Type": "application/json"})


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()
