"""Results out, on the whole gateway: senders, an embedded pipeline that makes DICOM, DCMTK's storescp, Orthanc."""

import json
import sys
from pathlib import Path

import httpx
import pydicom

from tests.gateway import Gateway
from tests.peers import free_port, orthanc, storescp, storescu
from tests.samples import dataset_bytes, dataset_offset, make_study

_COPYING = """
import os, shutil
n = 0
for directory, _, names in os.walk(os.environ["INPUT_DIR"]):
    for name in sorted(names):
        n += 1
        shutil.copyfile(os.path.join(directory, name), os.path.join(os.environ["OUTPUT_DIR"], f"result-{n:03d}.dcm"))
with open(os.path.join(os.environ["OUTPUT_DIR"], "report.json"), "w") as report:
    report.write("{}")
"""
COPYING = [sys.executable, "-c", _COPYING]


def received(directory: Path) -> dict[str, Path]:
    """What a storescp has, by SOP Instance UID."""
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in directory.iterdir()}


def test_the_whole_circle(gateway: Gateway, tmp_path: Path) -> None:
    """A study comes in, results go to storescp and, by STOW, to two of Orthanc: datasets are equal, trace shows it."""
    study = make_study(tmp_path / "ct", "PAT-CIRCLE", 12)
    with storescp(tmp_path / "pacs") as pacs, orthanc(tmp_path / "one") as one, orthanc(tmp_path / "other") as other:
        services = [f"http://127.0.0.1:{web['http']}" for web in (one, other)]
        urls = [f"{service}/dicom-web" for service in services]
        gateway.add_destination("MYPACS", pacs.port)
        exports = ["mypacs", *(f"dicomweb:{url}" for url in urls)]
        pipeline = gateway.add_pipeline("copying", COPYING, exports=exports)
        gateway.add_source("MODALITY")
        gateway.add_aetitle("CIRCLE", pipeline_copying=pipeline)
        assert storescu(gateway.port, study.directory, called="CIRCLE", calling="MODALITY").successes == 12
        gateway.wait_for(
            lambda: len(tasks := gateway.exports()) == 3 and all(task["state"] == "Succeeded" for task in tasks),
            60.0,
            "exports that succeeded",
        )
        listed = json.loads(gateway.cli("exports", "list", "--json").stdout)
        assert {task["destination"] for task in listed} == {"MYPACS", *urls}
        assert {(task["files"], task["delivered"], task["failed"], task["retries"]) for task in listed} == {
            (12, 12, 0, 0)
        }
        found = received(tmp_path / "pacs")
        assert found.keys() == study.files.keys()
        for uid, path in found.items():
            assert dataset_bytes(path) == dataset_bytes(study.files[uid])
        for service in services:
            with httpx.Client(base_url=service) as rest:
                there = {}
                for instance in rest.get("/instances").json():
                    uid = rest.get(f"/instances/{instance}/tags?simplify").json()["SOPInstanceUID"]
                    there[uid] = rest.get(f"/instances/{instance}/file").content
            assert there.keys() == study.files.keys()
            for uid, data in there.items():
                assert data[dataset_offset(data) :] == dataset_bytes(study.files[uid])
        told = gateway.cli("trace", study.uid).stdout
        assert "12 files delivered to MYPACS" in told
        for url in urls:
            assert f"12 files delivered to {url}" in told


def test_registered_tasks_and_people(gateway: Gateway, tmp_path: Path) -> None:
    """A pipeline registers its own results; people see, retry and cancel exports, and ask destinations."""
    study = make_study(tmp_path / "mr", "PAT-TASKS", 3, rows=32, modality="MR")
    port = free_port()
    gateway.add_destination("LATE", port)
    gateway.add_source("MODALITY")
    gateway.add_aetitle("TASKS", pipeline_copying=gateway.add_pipeline("copying", COPYING))
    assert storescu(gateway.port, study.directory, called="TASKS", calling="MODALITY").successes == 3
    (job,) = gateway.wait_jobs(1)
    task = {
        "jobId": job["jobId"],
        "payloadId": job["payloadId"],
        "agent": "ClaraSCU",
        "parameters": '["late"]',
        "uris": ["result-001.dcm", "result-002.dcm"],
    }
    made = gateway.rest.post("/api/tasks", json=task)
    assert made.status_code == 201
    task_id = made.json()["taskId"]
    assert gateway.rest.get(made.headers["Location"]).json()["uris"] == task["uris"]
    same = {**task, "taskId": task_id}
    assert gateway.rest.post("/api/tasks", json=same).status_code == 201
    assert gateway.rest.post("/api/tasks", json={**same, "uris": ["other.dcm"]}).status_code == 409
    assert gateway.rest.post("/api/tasks", json={**task, "parameters": '"\0"'}).status_code == 400
    wrong = gateway.rest.post("/api/tasks", json={"agent": "ClaraSCU", "uris": "x"})
    assert wrong.status_code == 400
    assert any("jobId" in error for error in wrong.json()["errors"])
    # Our own agents' tasks are nobody else's.
    assert gateway.rest.get("/api/tasks/ClaraSCU/pending").json() == []
    assert gateway.rest.put(f"/api/tasks/success/{task_id}").status_code == 409

    ended = gateway.cli("echo", "late", check=False)
    assert ended.returncode == 1
    assert gateway.cli("echo", "nobody", check=False).returncode == 1
    gateway.wait_for(lambda: gateway.exports()[0]["failed"] == 2, 30.0, "export that fails")
    assert json.loads(gateway.cli("exports", "show", task_id, "--json").stdout)["deliveries"][0]["lastError"]
    with storescp(tmp_path / "late", port=port):
        assert "LATE" in gateway.cli("echo", "LATE").stdout or "late" in gateway.cli("echo", "late").stdout
        retried = gateway.cli("exports", "retry", task_id, check=False)
        # It may have been taken up by itself already, since its destination answers.
        assert retried.returncode == 0 or "InProgress" in retried.stderr or "Succeeded" in retried.stderr
        gateway.wait_for(lambda: gateway.exports()[0]["state"] == "Succeeded", 30.0, "export that succeeds")
        assert len(received(tmp_path / "late")) == 2
    assert gateway.cli("exports", "cancel", task_id, check=False).returncode == 1
    assert "LATE" in gateway.cli("exports", "list").stdout

    lent = gateway.rest.post("/api/tasks", json={**task, "agent": "OTHERS"}).json()["taskId"]
    assert [each["taskId"] for each in gateway.rest.get("/api/tasks/others/pending?size=5").json()] == [lent]
    assert gateway.rest.get("/api/tasks/others/pending").json() == []
    failed = gateway.rest.put(f"/api/tasks/failure/{lent}", json={"RetryLater": True})
    assert (failed.status_code, failed.json()["state"], failed.json()["retries"]) == (200, "Pending", 1)
    assert len(gateway.rest.get("/api/tasks/others/pending").json()) == 1
    assert gateway.rest.put(f"/api/tasks/success/{lent}").json()["state"] == "Succeeded"


def test_credentials_of_dicomweb_services(gateway: Gateway) -> None:
    """They are shown to nobody, stand nowhere in clear, and stay when a pipeline is put back as it was shown."""
    written = "dicomweb:https://user:geheim@pacs.example/dicom-web"
    answer = gateway.rest.post(
        "/api/config/pipeline", json={"name": "p", "command": ["/bin/true"], "exports": [written]}
    )
    assert answer.status_code == 201
    assert answer.json()["exports"] == ["dicomweb:https://***@pacs.example/dicom-web"]
    made = answer.json()
    again = gateway.rest.put(f"/api/config/pipeline/{made['pipelineId']}", json=made)
    assert (again.status_code, again.json()) == (200, made)
    other = {**made, "exports": ["dicomweb:https://***@other.example/dicom-web", "dicomweb:ftp://u:geheim@x"]}
    refused = gateway.rest.put(f"/api/config/pipeline/{made['pipelineId']}", json=other)
    assert refused.status_code == 400
    assert len(refused.json()["errors"]) == 2
    assert "geheim" not in refused.text + answer.text + gateway.log_text() + gateway.cli("list", "pipeline").stdout
    assert b"geheim" not in b"".join(path.read_bytes() for path in gateway.ledger.parent.iterdir())
