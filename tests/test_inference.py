"""Inference requests on the whole gateway: from Orthanc by DICOMweb and DIMSE, and from a FHIR server."""

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from tests.gateway import Gateway
from tests.http_peers import FhirServer
from tests.inference import (
    BASIC,
    PASSWORD,
    USER,
    assert_same,
    body,
    by_series,
    by_study,
    dicomweb,
    dimse,
    fhir,
    fill,
    names,
    orthanc_web,
    payload,
    resources,
    status,
    study_with,
    submit,
    wait_retrieved,
    wait_succeeded,
)
from tests.peers import echoscu, free_port, orthanc
from tests.samples import Study, new_uid

TOKEN = "token-of-the-fhir-server"


class World:
    """A gateway, Orthanc with a password, and a FHIR server with a token."""

    def __init__(self, directory: Path, gateway: Gateway, ports: dict[str, int], fhir_server: FhirServer) -> None:
        self.gateway = gateway
        self.http, self.dicom = ports["http"], ports["dicom"]
        self.fhir = fhir_server
        self.kept = directory / "kept"
        script = directory / "keep.py"
        script.write_text(
            "import os, pathlib, shutil, sys\n"
            f"shutil.copytree(sys.argv[1], pathlib.Path({str(self.kept)!r}) / os.environ['JOB_ID'],"
            " copy_function=shutil.copyfile)\n"
        )
        self.pipeline = gateway.add_pipeline("keep", [sys.executable, str(script), "{input}"])
        self.ct = study_with(directory / "ct", "PAT-CT", 6, "ACC-1", series=2)
        self.mr = study_with(directory / "mr", "PAT-CT", 4, "ACC-2", modality="MR")
        self.other = study_with(directory / "other", "PAT-OTHER", 3, "ACC-3")
        fill(self.dicom, self.ct, self.mr, self.other)

    def web(self, **more: Any) -> dict[str, Any]:
        return orthanc_web(self.http, **more)

    def run(self, transaction: str, inputs: list[dict[str, Any]], sources: list[dict[str, Any]]) -> Path:
        """Have a request done; returns where its payload was kept."""
        submit(self.gateway, body(transaction, self.pipeline, inputs, sources))
        job = wait_succeeded(self.gateway, transaction)
        return self.kept / str(job["jobId"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("inference")
    port = free_port()
    with (
        orthanc(
            directory / "orthanc",
            users={USER: PASSWORD},
            DicomModalities={"us": ["ADAPTER", "127.0.0.1", port]},
            DicomAlwaysAllowFind=True,
            DicomAlwaysAllowMove=True,
            DicomAlwaysAllowGet=True,
        ) as ports,
        FhirServer(TOKEN) as fhir_server,
        Gateway(directory, {"dicom.scp.port": port, "dicom.scu.aeTitle": "ADAPTER"}) as gateway,
    ):
        yield World(directory, gateway, ports, fhir_server)


def series_of(study: Study, uid: str) -> str:
    return str(pydicom.dcmread(study.files[uid], stop_before_pixels=True).SeriesInstanceUID)


def test_by_study_series_and_instance(world: World) -> None:
    first, *_, last = world.ct.files
    cases = {
        "study": ([by_study(world.ct.uid)], names(world.ct)),
        "series": (
            [by_series(world.ct.uid, series_of(world.ct, first))],
            {name for name in names(world.ct) if series_of(world.ct, first) in name},
        ),
        "instances": (
            [by_series(world.ct.uid, series_of(world.ct, last), last)],
            names(world.ct, last),
        ),
    }
    for case, (inputs, expected) in cases.items():
        kept = world.run(f"UID-{case}", inputs, [world.web()])
        assert payload(kept) == expected, case
        assert_same(kept, world.ct)


def test_by_patient_id_and_by_two_accession_numbers(world: World) -> None:
    patient = world.run("PATIENT", [{"type": "DICOM_PATIENT_ID", "PatientID": "PAT-CT"}], [world.web()])
    assert payload(patient) == names(world.ct) | names(world.mr)
    numbers = {"type": "ACCESSION_NUMBER", "accessionNumber": ["ACC-2", "ACC-3"]}
    accession = world.run("ACCESSION", [numbers], [world.web(operations=["QUERY", "RETRIEVE"])])
    assert payload(accession) == names(world.mr) | names(world.other)
    assert_same(accession, world.other)


@pytest.mark.parametrize(("release", "number"), [("R3", "3.0"), ("R4", "4.0")])
@pytest.mark.parametrize("form", ["Json", "Xml"])
def test_fhir_resources(world: World, release: str, number: str, form: str) -> None:
    world.fhir.add("Patient", "p-1")
    world.fhir.add("Observation", "o-1")
    world.fhir.asked.clear()
    wanted = resources(("Patient", "p-1"), ("Observation", "o-1"), fhirFormat=form, fhirVersion=release)
    source = fhir(f"{world.fhir.url}/base", authType="bearer", authID=TOKEN)
    kept = world.run(f"FHIR-{release}-{form}", [wanted], [source])
    suffix = form.lower()
    assert payload(kept) == {f"ehr/patient-p-1.{suffix}", f"ehr/observation-o-1.{suffix}"}
    assert (kept / f"ehr/patient-p-1.{suffix}").read_bytes() == world.fhir.resources["Patient", "p-1", suffix]
    assert [asked.path for asked in world.fhir.asked] == ["/base/Patient/p-1", "/base/Observation/o-1"]
    assert {asked.headers["accept"] for asked in world.fhir.asked} == {
        f"application/fhir+{suffix}; fhirVersion={number}"
    }


def test_a_mixed_request_and_its_status(world: World) -> None:
    world.fhir.add("Patient", "p-2")
    request = body(
        "MIXED 1/2",
        world.pipeline,
        [resources(("Patient", "p-2")), by_study(world.other.uid)],
        [world.web(), fhir(f"{world.fhir.url}/base", authType="Bearer", authID=TOKEN)],
        priority="255",
    )
    request["inputMetadata"]["details"] = by_study(world.mr.uid)
    accepted = submit(world.gateway, request)
    assert accepted["transactionId"] == "MIXED 1/2"
    job = wait_for_job(world, accepted["jobId"], "MIXED 1/2")
    kept = world.kept / job["jobId"]
    assert payload(kept) == names(world.mr) | names(world.other) | {"ehr/patient-p-2.json"}
    assert job["instances"] == len(world.mr.files) + len(world.other.files)
    assert job["priority"] == "immediate"
    assert job["jobName"].startswith("mixed-1-2-some-algorithm-")
    assert world.gateway.run_metadata(job["jobId"])["Source"] == "MIXED 1/2"
    assert world.gateway.run_metadata(job["jobId"])["Instances"] == str(job["instances"])
    for identifier in (accepted["jobId"], job["jobId"]):
        found = status(world.gateway, identifier)
        assert found["dicom"] == {"state": "Completed", "status": "Success"}
        assert found["platform"]["jobId"] == accepted["jobId"]
        assert found["platform"]["payloadId"] == accepted["payloadId"]
        assert (found["platform"]["status"], found["platform"]["state"]) == ("Healthy", "Stopped")
        assert found["platform"]["priority"] == "Immediate"
        assert found["platform"]["started"]
        assert found["platform"]["stopped"]
    # The same content again, written otherwise, is answered as it was; another content is a conflict.
    request["PRIORITY"] = 255
    del request["priority"]
    assert submit(world.gateway, request) == accepted
    request["inputMetadata"]["details"] = by_study(world.ct.uid)
    refused = world.gateway.rest.post("/api/inference", json=request)
    assert refused.status_code == 409
    assert "Completed (Success)" in refused.json()["detail"]
    journey = world.gateway.rest.get(f"/api/trace/{world.mr.uid}").json()
    assert "MIXED 1/2" in json.dumps(journey)


def wait_for_job(world: World, identifier: str, source: str) -> dict[str, Any]:
    wait_retrieved(world.gateway, identifier)
    found: dict[str, Any] = world.gateway.wait_for(
        lambda: next((job for job in world.gateway.jobs(source=source) if job["platformState"] == "Succeeded"), None),
        60.0,
        "end of the job",
    )
    return found


@pytest.mark.parametrize("operation", ["C-MOVE", "C-GET"])
def test_by_dimse(world: World, operation: str) -> None:
    source = dimse(world.dicom, retrieveWith=operation)
    kept = world.run(f"DIMSE-{operation}", [{"type": "ACCESSION_NUMBER", "accessionNumber": ["ACC-1"]}], [source])
    assert payload(kept) == names(world.ct)
    assert_same(kept, world.ct)
    # Nothing of it came to anybody else, and nobody may send to that AE title now.
    assert world.gateway.rest.get("/api/quarantine").json() == []
    assert echoscu(world.gateway.port, called="ADAPTER", calling="ORTHANC").rejection
    assert not list((world.gateway.spool / "arrivals").rglob("*.dcm"))
    assert not (world.gateway.spool / "requests" / ".incoming").exists()


def test_sources_are_tried_in_their_order_and_what_is_missing_is_told(world: World) -> None:
    away = dicomweb(f"http://127.0.0.1:{free_port()}/dicom-web")
    kept = world.run("SECOND-SOURCE", [by_study(world.ct.uid)], [away, world.web()])
    assert payload(kept) == names(world.ct)


def test_with_something_missing_the_job_goes_on_and_with_nothing_it_fails(world: World, tmp_path: Path) -> None:
    nowhere = new_uid()
    some = body("SOME", world.pipeline, [by_study(world.mr.uid), by_study(nowhere)], [world.web()])
    none = body("NONE", world.pipeline, [by_study(nowhere)], [world.web()])
    wrong = body("WRONG", world.pipeline, [by_study(world.mr.uid)], [dicomweb(world.web()["connectionDetails"]["uri"])])
    for request in (some, none, wrong):
        submit(world.gateway, request)
    found = wait_retrieved(world.gateway, "SOME", 90.0)
    assert found["dicom"]["status"] == "Success"
    assert nowhere in found["message"]
    job = wait_succeeded(world.gateway, "SOME")
    assert payload(world.kept / job["jobId"]) == names(world.mr)
    assert wait_retrieved(world.gateway, "NONE", 90.0)["dicom"]["status"] == "Fail"
    assert "401" in wait_retrieved(world.gateway, "WRONG", 90.0)["message"]
    for transaction in ("NONE", "WRONG"):
        world.gateway.wait_for(
            lambda transaction=transaction: world.gateway.jobs(source=transaction, state="Faulted"), 30.0, "its fault"
        )
    # What a person then decides: to try again when it is there, or to give it up.
    late = study_with(tmp_path / "late", "PAT-LATE", 2, study_uid=nowhere)
    fill(world.dicom, late)
    (again,) = world.gateway.jobs(source="NONE")
    assert world.gateway.rest.post(f"/api/jobs/{again['jobId']}/retry").status_code == 200
    world.gateway.wait_for(
        lambda: status(world.gateway, "NONE")["dicom"]["status"] == "Success", 30.0, "retrieval after the retry"
    )
    assert wait_succeeded(world.gateway, "NONE")["jobId"] == again["jobId"]
    assert payload(world.kept / again["jobId"]) == names(late)
    (wrong_job,) = world.gateway.jobs(source="WRONG")
    assert world.gateway.rest.post(f"/api/jobs/{wrong_job['jobId']}/discard").status_code == 200


def test_a_request_that_waits_for_a_source_can_be_given_up(world: World) -> None:
    away = dicomweb(f"http://127.0.0.1:{free_port()}/dicom-web")
    submit(world.gateway, body("GIVEN-UP", world.pipeline, [by_study(world.ct.uid)], [away]))
    world.gateway.wait_for(lambda: "cannot be reached" in status(world.gateway, "GIVEN-UP")["message"], 30.0, "reason")
    assert status(world.gateway, "GIVEN-UP")["dicom"]["status"] == "Unknown"
    (job,) = world.gateway.jobs(source="GIVEN-UP", state="Created")
    assert world.gateway.rest.post(f"/api/jobs/{job['jobId']}/discard").status_code == 200
    found = wait_retrieved(world.gateway, "GIVEN-UP", 30.0)
    assert found["dicom"]["status"] == "Fail"
    assert "discarded" in found["message"]
    world.gateway.wait_for(
        lambda: status(world.gateway, "GIVEN-UP")["platform"]["status"] == "Canceled", 30.0, "cancellation"
    )


def test_results_come_back_to_the_output_resources(world: World, tmp_path: Path) -> None:
    """A pipeline makes new instances of a request's data; Orthanc has them afterwards, by STOW-RS and its password."""
    script = tmp_path / "answer.py"
    script.write_text(
        "import pathlib, sys, pydicom\n"
        "for path in pathlib.Path(sys.argv[1]).rglob('*.dcm'):\n"
        "    dataset = pydicom.dcmread(path)\n"
        "    dataset.SeriesInstanceUID = dataset.SeriesInstanceUID[:50] + '.99'\n"
        "    dataset.SOPInstanceUID = dataset.SOPInstanceUID[:50] + '.99'\n"
        "    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID\n"
        "    dataset.save_as(pathlib.Path(sys.argv[2]) / path.name)\n"
    )
    pipeline = world.gateway.add_pipeline("answer", [sys.executable, str(script), "{input}", "{output}"])
    request = body("OUTPUTS", pipeline, [by_study(world.other.uid)], [world.web()], outputResources=[world.web()])
    submit(world.gateway, request)
    wait_succeeded(world.gateway, "OUTPUTS")
    expected = {f"{uid[:50]}.99" for uid in world.other.files}

    def there() -> bool:
        url = f"http://127.0.0.1:{world.http}/dicom-web/studies/{world.other.uid}/instances"
        answer = httpx.get(url, auth=(USER, PASSWORD), headers={"Accept": "application/dicom+json"})
        return expected <= {row["00080018"]["Value"][0] for row in answer.json()}

    world.gateway.wait_for(there, 60.0, "results in Orthanc")


def test_credentials_stand_nowhere(world: World) -> None:
    """Neither in clear nor as base64: in no log, in no answer, and in no page of the ledger."""
    secrets = [PASSWORD, BASIC, TOKEN]
    with sqlite3.connect(world.gateway.ledger) as ledger:
        everything = "\n".join(ledger.iterdump())
    assert "UID-study" in everything
    answers = [
        world.gateway.rest.get(path).text for path in ("/api/jobs", "/metrics", "/api/inference/status/UID-study")
    ]
    for secret in secrets:
        assert secret not in everything
        assert secret not in world.gateway.log_text()
        assert all(secret not in answer for answer in answers)


def test_files_of_requests_whose_runs_are_over_are_deleted(world: World) -> None:
    world.run("RECLAIMED", [by_study(world.mr.uid)], [world.web()])
    requests = world.gateway.spool / "requests"
    world.gateway.wait_for(
        lambda: not [each for each in requests.iterdir() if payload(each)], 30.0, "deletion of what was retrieved"
    )
