"""What a body of `/api/inference` may say: the original's documented examples, and a table of what is wrong."""

import base64
import copy
import json
from typing import Any

import httpx
import pytest

from actors.api.orders import read_order
from actors.api.problems import ProblemError
from protocol import messages
from protocol.inference import (
    AccessionStudies,
    Credentials,
    DimseSource,
    FhirResource,
    HttpSource,
    Order,
    Output,
    PatientStudies,
    Selection,
)
from tests.actors.api.surroundings import Owners, Surroundings

BASIC = base64.b64encode(b"user:s3cret").decode()
DETAILS = {"type": "DICOM_UID", "studies": [{"StudyInstanceUID": "1.2.3"}]}
ALGORITHM = {"interface": "Algorithm", "connectionDetails": {"name": "lungs", "id": "41a5c2"}}
WEB = {"interface": "DICOMweb", "connectionDetails": {"uri": "http://pacs:8042/dicom-web"}}
FHIR = {"interface": "FHIR", "connectionDetails": {"uri": "http://ehr/fhir"}}
DIMSE = {"interface": "DIMSE", "connectionDetails": {"aeTitle": "PACS", "host": "pacs", "port": 104}}
VALID: dict[str, Any] = {
    "transactionID": "T1",
    "inputMetadata": {"details": DETAILS},
    "inputResources": [ALGORITHM, WEB],
}


def read(body: Any) -> Order:
    return read_order(json.dumps(body).encode())


def test_the_original_s_documented_example() -> None:
    """Numbers as text, words in any case, instances as it writes them."""
    order = read(
        {
            "transactionID": "ABCDEF123456",
            "priority": "255",
            "unknown": {"is": "ignored"},
            "inputMetadata": {
                "details": {
                    "type": "DICOM_UID",
                    "studies": [
                        {
                            "StudyInstanceUID": "1.2.3.4.555.6666.7777",
                            "series": [
                                {
                                    "SeriesInstanceUID": "1.2.3.4.55.66.77.88",
                                    "instances": [{"SOPInstanceUID": ["1.2.3.4.5.6.7.8.99.1", "1.2.3.4.5.6.7.8.99.2"]}],
                                }
                            ],
                        }
                    ],
                }
            },
            "inputResources": [
                {
                    "interface": "DICOMweb",
                    "connectionDetails": {
                        "operations": ["QUERY", "WADO Retrieve"],
                        "uri": "https://dicom.example/dicom-web/",
                        "authID": "dXNlcjpwYXNz",
                        "authType": "bearer",
                    },
                },
                {"interface": "Algorithm", "connectionDetails": {"name": "Dicom Series Operator", "id": "41a5c2"}},
            ],
            "outputResources": [
                {
                    "interface": "dicomweb",
                    "connectionDetails": {
                        "operations": ["STORE"],
                        "uri": "https://dicom.example/dicom-web",
                        "authID": BASIC,
                        "authType": "Basic",
                    },
                }
            ],
        }
    )
    assert order == Order(
        transaction_id="ABCDEF123456",
        priority=255,
        algorithm="Dicom Series Operator",
        pipeline_id="41a5c2",
        wanted=(
            Selection(
                study_uid="1.2.3.4.555.6666.7777",
                series_uid="1.2.3.4.55.66.77.88",
                sop_instance_uids=("1.2.3.4.5.6.7.8.99.1", "1.2.3.4.5.6.7.8.99.2"),
            ),
        ),
        sources=(
            HttpSource(
                interface="DICOMweb",
                uri="https://dicom.example/dicom-web",
                credentials=Credentials("Bearer", "dXNlcjpwYXNz"),
            ),
        ),
        outputs=(Output(uri="https://dicom.example/dicom-web", credentials=Credentials("Basic", BASIC)),),
    )


def test_every_kind_of_input_and_names_in_any_case() -> None:
    order = read(
        {
            "TRANSACTIONid": 4711,
            "INPUTmetadata": {
                "details": {"TYPE": "dicom_patient_id", "patientid": "PAT-1"},
                "inputs": [
                    {"type": "ACCESSION_NUMBER", "accessionNumber": ["A1", 2]},
                    {
                        "type": "FHIR_RESOURCE",
                        "resources": [{"resourceType": "Patient", "id": "p"}],
                        "fhirFormat": "XML",
                    },
                    DETAILS,
                    DETAILS,
                ],
            },
            "inputResources": [
                ALGORITHM,
                {"interface": "dimse", "connectionDetails": {**DIMSE["connectionDetails"], "port": "104"}},  # type: ignore[dict-item]
                {
                    "interface": "FHIR",
                    "connectionDetails": {"baseUri": "http://ehr/fhir", "apiKey": "t", "authType": "BEARER"},
                },
            ],
        }
    )
    assert order.transaction_id == "4711"
    assert order.wanted == (
        PatientStudies(patient_id="PAT-1"),
        AccessionStudies(accession_number="A1"),
        AccessionStudies(accession_number="2"),
        FhirResource(resource_type="Patient", resource_id="p", form="xml"),
        Selection(study_uid="1.2.3"),
    )
    assert order.sources == (
        DimseSource(ae_title="PACS", host="pacs", port=104),
        HttpSource(interface="FHIR", uri="http://ehr/fhir", credentials=Credentials("Bearer", "t")),
    )


@pytest.mark.parametrize(
    ("priority", "of_job"),
    [
        (0, "lower"),
        (127, "lower"),
        (128, "normal"),
        ("129", "higher"),
        (254, "higher"),
        (255, "immediate"),
        (None, "normal"),
    ],
)
def test_priorities(priority: object, of_job: str) -> None:
    assert read({**VALID, "priority": priority}).job_priority == of_job


def changed(path: str, value: Any) -> dict[str, Any]:
    """The valid body with one thing changed; a value of None takes it away."""
    body = copy.deepcopy(VALID)
    *steps, last = path.split("/")
    place: Any = body
    for step in steps:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is None:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return body


def web(**details: Any) -> dict[str, Any]:
    return changed("inputResources/1/connectionDetails", {"uri": "http://pacs/dw", **details})


def of_type(kind: str, **more: Any) -> dict[str, Any]:
    body = changed("inputMetadata/details", {"type": kind, **more})
    body["inputResources"].append(FHIR)
    return body


def dimse(**details: Any) -> dict[str, Any]:
    return changed(
        "inputResources/1", {"interface": "DIMSE", "connectionDetails": {**DIMSE["connectionDetails"], **details}}
    )  # type: ignore[dict-item]


STUDY = "inputMetadata/details/studies/0"
RESOURCE = "inputMetadata.details.resources[0]."
CONNECTION = "inputResources[1].connectionDetails."
INVALID: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a list": ([], ("the body is a list",)),
    "nothing at all": ({}, ("transactionID is missing", "inputMetadata is missing", "inputResources is missing")),
    "no transaction ID": (changed("transactionID", None), ("transactionID is missing",)),
    "blank transaction ID": (changed("transactionID", "  "), ("transactionID is blank",)),
    "transaction ID too long": (changed("transactionID", "x" * 257), ("transactionID 'xxx",)),
    "transaction ID with control characters": (changed("transactionID", "a\nb"), ("transactionID 'a",)),
    "transaction ID a list": (changed("transactionID", ["a"]), ("transactionID is a list",)),
    "transaction ID twice": ({**VALID, "transactionid": "T2"}, ("given more than once",)),
    "priority 256": ({**VALID, "priority": 256}, ("priority '256'",)),
    "priority -1": ({**VALID, "priority": "-1"}, ("priority '-1'",)),
    "priority a word": ({**VALID, "priority": "high"}, ("priority 'high'",)),
    "priority with a fraction": ({**VALID, "priority": 1.5}, ("priority '1.5'",)),
    "no input metadata": (changed("inputMetadata", None), ("inputMetadata is missing",)),
    "input metadata a list": (changed("inputMetadata", [DETAILS]), ("inputMetadata is a list, not an object",)),
    "neither details nor inputs": (changed("inputMetadata", {}), ("neither details nor inputs",)),
    "details a list": (changed("inputMetadata/details", [DETAILS]), ("inputMetadata.details is a list",)),
    "inputs an object": (changed("inputMetadata", {"inputs": DETAILS}), ("inputMetadata.inputs is an object",)),
    "no type": (changed("inputMetadata/details/type", None), ("inputMetadata.details.type is missing",)),
    "an unknown type": (of_type("DICOM_STUDY"), ("inputMetadata.details.type 'DICOM_STUDY'",)),
    "no studies": (changed("inputMetadata/details/studies", None), ("details.studies is missing",)),
    "empty studies": (changed("inputMetadata/details/studies", []), ("details.studies is empty",)),
    "studies of texts": (changed("inputMetadata/details/studies", ["1.2"]), ("studies[0] is a text, not an object",)),
    "no study UID": (changed(STUDY, {}), ("studies[0].StudyInstanceUID is missing",)),
    "study UID no UID": (
        changed(STUDY, {"StudyInstanceUID": "../../etc"}),
        ("studies[0].StudyInstanceUID '../../etc'",),
    ),
    "series without UID": (changed(f"{STUDY}/series", [{}]), ("series[0].SeriesInstanceUID is missing",)),
    "instances empty": (
        changed(f"{STUDY}/series", [{"SeriesInstanceUID": "1.2", "instances": [{"SOPInstanceUID": []}]}]),
        ("instances[0].SOPInstanceUID is empty",),
    ),
    "instance no UID": (
        changed(f"{STUDY}/series", [{"SeriesInstanceUID": "1.2", "instances": [{"SOPInstanceUID": ["1.2", "x"]}]}]),
        ("instances[0].SOPInstanceUID[1] 'x'",),
    ),
    "no patient ID": (of_type("DICOM_PATIENT_ID"), ("details.PatientID is missing",)),
    "a wildcard for patients": (of_type("DICOM_PATIENT_ID", PatientID="*"), ("PatientID '*' is too long, or holds",)),
    "no accession number": (of_type("ACCESSION_NUMBER", accessionNumber=[]), ("accessionNumber is empty",)),
    "a blank accession number": (
        of_type("ACCESSION_NUMBER", accessionNumber=["A", " "]),
        ("accessionNumber[1] is blank",),
    ),
    "no resources": (of_type("FHIR_RESOURCE"), ("details.resources is missing",)),
    "resource without type and ID": (
        of_type("FHIR_RESOURCE", resources=[{}]),
        (f"{RESOURCE}resourceType is missing", f"{RESOURCE}id is missing"),
    ),
    "resource ID with a slash": (
        of_type("FHIR_RESOURCE", resources=[{"resourceType": "Patient", "id": "../x"}]),
        (f"{RESOURCE}id '../x'",),
    ),
    "an unknown FHIR format": (
        of_type("FHIR_RESOURCE", resources=[{"resourceType": "Patient", "id": "x"}], fhirFormat="Yaml"),
        ("fhirFormat 'Yaml'",),
    ),
    "an unknown FHIR version": (
        of_type("FHIR_RESOURCE", resources=[{"resourceType": "Patient", "id": "x"}], fhirVersion="R9"),
        ("fhirVersion 'R9'",),
    ),
    "no input resources": (changed("inputResources", []), ("inputResources is empty",)),
    "input resources an object": (changed("inputResources", WEB), ("inputResources is an object, not a list",)),
    "no algorithm": (changed("inputResources", [WEB]), ("inputResources must have one Algorithm, and have none",)),
    "two algorithms": (changed("inputResources", [ALGORITHM, ALGORITHM, WEB]), ("one Algorithm, and have 2 of them",)),
    "no source": (changed("inputResources", [ALGORITHM]), ("inputResources have no source",)),
    "no source of this kind": (changed("inputResources", [ALGORITHM, FHIR]), ("no DICOMweb or DIMSE interface",)),
    "no FHIR source": (
        changed("inputMetadata/inputs", [{"type": "FHIR_RESOURCE", "resources": [{"resourceType": "P", "id": "x"}]}]),
        ("no FHIR interface",),
    ),
    "no source that may be searched": (
        {
            **of_type("ACCESSION_NUMBER", accessionNumber="A"),
            "inputResources": [ALGORITHM, web(operations=["RETRIEVE"])["inputResources"][1]],
        },
        ("no interface with the operation QUERY",),
    ),
    "an unknown interface": (changed("inputResources/1/interface", "FTP"), ("inputResources[1].interface 'FTP'",)),
    "no interface": (changed("inputResources/1/interface", None), ("inputResources[1].interface is missing",)),
    "no connection": (
        changed("inputResources/1/connectionDetails", None),
        ("inputResources[1].connectionDetails is missing",),
    ),
    "algorithm without name and ID": (
        changed("inputResources/0/connectionDetails", {}),
        ("inputResources[0].connectionDetails.name is missing", "inputResources[0].connectionDetails.id is missing"),
    ),
    "no URI": (changed("inputResources/1/connectionDetails", {}), (f"{CONNECTION}uri is missing",)),
    "a relative URI": (web(uri="/dicom-web"), (f"{CONNECTION}uri '/dicom-web'",)),
    "a URI of another scheme": (web(uri="file:///etc/passwd"), (f"{CONNECTION}uri 'file:///etc/passwd'",)),
    "a URI with a user": (web(uri="http://user:s3cret@pacs/dw"), (f"{CONNECTION}uri holds a user",)),
    "a URI with a query": (web(uri="http://pacs/dw?a=b"), (f"{CONNECTION}uri 'http://pacs/dw?a=b'",)),
    "an unknown authentication": (web(authType="Digest"), (f"{CONNECTION}authType 'Digest'",)),
    "credentials missing": (web(authType="Basic"), (f"{CONNECTION}authID is missing",)),
    "Basic credentials that are none": (web(authType="Basic", authID="s3cret"), (f"{CONNECTION}authID is not base64",)),
    "a token that would be another header": (
        web(authType="Bearer", authID="s3cret\r\nX: y"),
        (f"{CONNECTION}authID holds control characters",),
    ),
    "an unknown operation": (web(operations=["QUERY", "DELETE"]), (f"{CONNECTION}operations[1] 'DELETE'",)),
    "an AE title too long": (dimse(aeTitle="X" * 17), (f"{CONNECTION}aeTitle",)),
    "no port": (dimse(port=0), (f"{CONNECTION}port '0'",)),
    "no host": (dimse(host="pacs port"), (f"{CONNECTION}host 'pacs port'",)),
    "an unknown retrieval": (dimse(retrieveWith="C-FETCH"), (f"{CONNECTION}retrieveWith 'C-FETCH'",)),
    "an output that is no DICOMweb": ({**VALID, "outputResources": [FHIR]}, ("outputResources[0].interface 'FHIR'",)),
    "an output without URI": (
        {**VALID, "outputResources": [{"interface": "DICOMweb", "connectionDetails": {}}]},
        ("outputResources[0].connectionDetails.uri is missing",),
    ),
    "many things at once": (
        {
            "priority": 300,
            "inputMetadata": {"details": {"type": "x"}},
            "inputResources": [ALGORITHM, {"interface": "y"}],
        },
        ("transactionID is missing", "priority '300'", "details.type 'x'", "inputResources[1].interface 'y'"),
    ),
}


def test_the_table_is_long_enough() -> None:
    assert len(INVALID) >= 60


@pytest.mark.parametrize("case", INVALID)
def test_what_is_not_valid_is_told_with_every_error_named(rest: httpx.Client, owners: Owners, case: str) -> None:
    body, expected = INVALID[case]
    answer = rest.post("/api/inference", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["title"] == "Validation error."
    for error in expected:
        assert any(error in found for found in problem["errors"]), problem["errors"]
        assert error in problem["detail"]
    assert len(problem["errors"]) >= len(expected)
    assert "s3cret" not in answer.text
    assert owners.take() == []


def test_one_mistake_is_one_error(rest: httpx.Client) -> None:
    """What follows from another error is not told beside it."""
    for case in ("priority 256", "no patient ID", "a URI with a user", "no source", "two algorithms", "no algorithm"):
        with pytest.raises(ProblemError) as caught:
            read(INVALID[case][0])
        assert len(caught.value.problem.errors) == 1, (case, caught.value.problem.errors)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"a":' * 3000, b"transactionID=1"])
def test_what_is_no_json_is_400(rest: httpx.Client, data: bytes) -> None:
    answer = rest.post("/api/inference", content=data, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text


def test_the_answers_of_the_retriever(running: Surroundings, rest: httpx.Client, owners: Owners) -> None:
    owners.answer = lambda _: messages.RequestAccepted(job_id="job-1", payload_id="payload-1")
    accepted = rest.post("/api/inference", json=VALID)
    assert accepted.status_code == 200
    assert accepted.json() == {"transactionId": "T1", "jobId": "job-1", "payloadId": "payload-1"}
    (command,) = owners.take()
    assert isinstance(command, messages.AcceptRequest)
    assert command.order == read(VALID)

    owners.answer = lambda _: messages.Refused(reason="the platform did not answer", transient=True)
    away = rest.post("/api/inference", json=VALID)
    assert away.status_code == 503
    assert away.headers["retry-after"]

    owners.answer = lambda _: messages.Refused(reason="there is no pipeline 41a5c2")
    refused = rest.post("/api/inference", json=VALID)
    assert refused.status_code == 422
    assert "there is no pipeline 41a5c2" in refused.json()["errors"][0]
    assert rest.get("/api/inference/status/T1").status_code == 404
