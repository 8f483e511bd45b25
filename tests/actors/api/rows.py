"""Rows as the other processes would write them."""

from typing import Any

from protocol.ledger import (
    ExportTask,
    Group,
    InferenceRequest,
    Instance,
    InstanceHistory,
    Job,
    Result,
    Retrieval,
    Run,
    Submission,
)
from protocol.states import GroupState, InstanceState, JobState, RequestState, RunState

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
"""2023-11-14T22:13:20Z"""


def instance(number: int, *, history: bool = False, **columns: Any) -> None:
    """An instance on record; `number` tells its position and the second in which it was stored."""
    table: Any = InstanceHistory if history else Instance
    association = columns.pop("association", "018bcfe568000a1b2c3d")
    values: dict[str, Any] = {
        "identifier": f"20231114T221300-receiver_1-0001/{association}-{number:06d}",
        "group_id": None,
        "state": InstanceState.GROUPED,
        "called_ae_title": "COVIDAET",
        "calling_ae_title": "MODALITY",
        "host": "10.0.0.9",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": f"1.2.3.{number}",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "study_uid": "1.2.3",
        "series_uid": "1.2.3.4",
        "patient_id": "PAT-SECRET",
        "size": 1000,
        "dataset_offset": 300,
        "stored_wall_ns": START + number * SECOND,
        "stored_boot_ns": 0,
        "boot": "",
    }
    if history:
        values["reclaimed_ns"] = START
    table.create(**{**values, **columns})


def group(**columns: Any) -> int:
    """A closed group; returns its ID."""
    values: dict[str, Any] = {
        "ae_title": "COVIDAET",
        "processor": "aetitle",
        "key_value": "PAT-SECRET",
        "revision": 0,
        "state": GroupState.CLOSED,
        "instances": 2,
        "last_wall_ns": START + 10 * SECOND,
        "last_boot_ns": 0,
        "boot": "",
        "opened_ns": START + SECOND,
        "closed_ns": START + 20 * SECOND,
        **columns,
    }
    made: int = Group.create(**values).group_id
    return made


def job(job_id: str, *, seconds: int = 0, **columns: Any) -> None:
    """A job, decided so many seconds after the start."""
    values: dict[str, Any] = {
        "job_id": job_id,
        "group_id": None,
        "ae_title": "COVIDAET",
        "name": f"covidaet-covid-{job_id}",
        "pipeline_id": "p1",
        "priority": "normal",
        "source": "COVIDAET (AeTitle)",
        "instances": 2,
        "created_ns": START + seconds * SECOND,
        **columns,
    }
    Job.create(**values)


def submission(job_id: str, state: JobState, *, seconds: int = 0, **columns: Any) -> None:
    """How far a job has come."""
    at = START + seconds * SECOND
    values: dict[str, Any] = {"job_id": job_id, "state": state, "created_ns": at, "updated_ns": at, **columns}
    Submission.create(**values)


def run(job_id: str, state: RunState, **columns: Any) -> None:
    """What the embedded platform made of a job."""
    values: dict[str, Any] = {
        "run_id": f"run-{job_id}",
        "job_id": job_id,
        "payload_id": f"payload-{job_id}",
        "name": job_id,
        "pipeline_id": "p1",
        "priority": "normal",
        "state": state,
        "created_ns": START,
        **columns,
    }
    Run.create(**values)


def result(job_id: str, **columns: Any) -> None:
    """What the run of a job has made."""
    values: dict[str, Any] = {
        "run_id": f"run-{job_id}",
        "job_id": job_id,
        "payload_id": f"payload-{job_id}",
        "pipeline_id": "p1",
        "directory": "/payloads/platform/x/output",
        "files": ["a.dcm"],
        "exports": [],
        "created_ns": START,
        **columns,
    }
    Result.create(**values)


def task(task_id: str, **columns: Any) -> None:
    """An export task."""
    values: dict[str, Any] = {
        "task_id": task_id,
        "origin": "embedded",
        "pipeline_id": "p1",
        "agent": "ClaraSCU",
        "parameters": "",
        "uris": ["a.dcm"],
        "files": 1,
        "created_ns": START,
        "updated_ns": START,
        **columns,
    }
    ExportTask.create(**values)


def retrieval(job_id: str, **columns: Any) -> None:
    """A file that was retrieved for the job of an inference request."""
    values: dict[str, Any] = {
        "job_id": job_id,
        "path": "dcm/1.2.3.1.dcm",
        "name": "dcm/PAT-SECRET/1.2.3/1.2.3.4/1.2.3.1.dcm",
        "size": 1000,
        "study_uid": "1.2.3",
        "source": 0,
        "retrieved_ns": START + 3 * SECOND,
        **columns,
    }
    Retrieval.create(**values)


def request(job_id: str, transaction_id: str, **columns: Any) -> None:
    """An inference request that is retrieved."""
    values: dict[str, Any] = {
        "transaction_id": transaction_id,
        "job_id": job_id,
        "job_name": transaction_id.lower(),
        "platform_job_id": f"platform-{job_id}",
        "payload_id": f"payload-{job_id}",
        "pipeline_id": "p",
        "priority": "higher",
        "digest": "",
        "request": "sealed",
        "outputs": "sealed",
        "state": RequestState.QUEUED,
        "created_ns": START + SECOND,
        "updated_ns": START + 2 * SECOND,
        **columns,
    }
    InferenceRequest.create(**values)
