"""The main line with Clara Platform: studies go in by C-STORE, and what counts is what the platform was given."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.platforms.clara.generated import jobs_pb2
from tests.clara.faults import Fault
from tests.clara.server import ClaraServer
from tests.gateway import Gateway
from tests.peers import storescu
from tests.samples import Study, dataset_bytes, make_study


@pytest.fixture(scope="module")
def clara(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClaraServer]:
    with ClaraServer(tmp_path_factory.mktemp("clara")) as clara:
        yield clara


@pytest.fixture(scope="module")
def gateway(clara: ClaraServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = {
        "services.platform.endpoint": clara.endpoint,
        "services.platform.uploadMetadata": True,
        "services.platform.metadataDicomSource": ["0010,0020", "0020,000D"],
        "services.platform.retryDelaySeconds": 1,
        "dicom.scp.repeatSeconds": 0,
    }
    with Gateway(tmp_path_factory.mktemp("gateway"), settings) as running:
        running.add_source("MODALITY")
        yield running


def assert_payload(clara: ClaraServer, job: dict[str, Any], study: Study) -> None:
    """A payload has each instance of a study once, under its name, with its bytes."""
    blobs = clara.store.blobs(job["payload_id"])
    assert {Path(name).stem for name in blobs} == set(study.files)
    for name, path in blobs.items():
        assert name.startswith(f"dcm/{study.patient_id}/{study.uid}/")
        assert dataset_bytes(path) == dataset_bytes(study.files[path.stem])
    uploads = Counter(name for payload, name in clara.uploaded if payload == job["payload_id"])
    assert set(uploads.values()) == {1}


def test_400_instances_for_three_pipelines(gateway: Gateway, clara: ClaraServer, tmp_path: Path) -> None:
    """One upload is cut in the middle; and the spool is freed when the platform has it all, not before."""
    pipelines = {name: clara.store.add_pipeline(name) for name in ("one", "two", "three")}
    settings = {f"pipeline_{name}": pipeline_id for name, pipeline_id in pipelines.items()}
    gateway.add_aetitle("CLARA", priority="immediate", **settings)
    study = make_study(tmp_path / "ct", "PAT-400", 400, rows=64, series=4)
    clara.faults.add("Payloads/Upload", Fault.CUT, skip=600)
    clara.faults.add("Jobs/Start", Fault.REFUSE, times=3 * 4)
    sent = storescu(gateway.port, study.directory, called="CLARA", calling="MODALITY")
    assert (sent.exit_code, sent.successes) == (0, 400), sent.output[-2000:]

    spooled = gateway.directory / "spool" / "instances"
    gateway.wait_jobs(3, 120, platform_state="", aeTitle="CLARA", state="Faulted")
    assert len(list(spooled.rglob("*.dcm"))) == 400
    gateway.cli("jobs", "retry", "--ae-title", "CLARA")
    jobs = gateway.wait_jobs(3, aeTitle="CLARA")
    assert len(clara.store.jobs()) == 3
    for job in clara.store.jobs():
        name = re.fullmatch(r"clara-(one|two|three)-\d{14}", job["name"])
        assert name
        assert job["pipeline_id"] == pipelines[name[1]]
        assert job["priority"] == jobs_pb2.JOB_PRIORITY_IMMEDIATE
        (known,) = [each for each in jobs if each["jobName"] == job["name"]]
        assert job["metadata"] == {
            "Source": "CLARA (AE Title Job Processor)",
            "Instances": "400",
            "DicomAdapterJobId": known["jobId"],
            "00100020": "PAT-400",
            "0020000D": study.uid,
        }
        assert_payload(clara, job, study)
    assert [clara.faults.count(method) for method in ("Jobs/Create", "Jobs/AddMetadata")] == [3, 3]
    assert clara.faults.count("Jobs/Start") == 3 * 4 + 3
    gateway.wait_for(lambda: not list(spooled.rglob("*.dcm")), 60, "the spool is freed")


def test_two_studies_that_close_in_the_same_second(gateway: Gateway, clara: ClaraServer, tmp_path: Path) -> None:
    """Both creations lose their answers; each study finds its own job again."""
    gateway.add_aetitle("TWINS", pipeline_one=clara.store.add_pipeline("twins"))
    before = {job["job_id"] for job in clara.store.jobs()}
    studies = [make_study(tmp_path / f"study{number}", f"PAT-TWIN{number}", 3, rows=64) for number in range(2)]
    clara.faults.add("Jobs/Create", Fault.CUT_AFTER, times=2)
    sent = storescu(gateway.port, *(study.directory for study in studies), called="TWINS", calling="MODALITY")
    assert sent.successes == 6
    gateway.wait_jobs(2, aeTitle="TWINS")
    made = [job for job in clara.store.jobs() if job["job_id"] not in before]
    assert len(made) == 2
    by_study = {job["metadata"]["0020000D"]: job for job in made}
    for study in studies:
        assert_payload(clara, by_study[study.uid], study)
