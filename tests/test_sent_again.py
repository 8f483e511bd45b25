"""What is sent again, or found again, is neither lost nor done twice."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.gateway import Gateway
from tests.peers import storescu
from tests.samples import Study, make_study

NOBODY = "00000000-0000-0000-0000-000000000000"


def send(gateway: Gateway, study: Study) -> None:
    sent = storescu(gateway.port, study.directory, called="BRAIN", calling="MODALITY")
    assert sent.successes == len(study.files)


def states(gateway: Gateway) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True)) as ledger:
        return ledger.execute("SELECT state, COUNT(*) FROM instance GROUP BY state ORDER BY state").fetchall()


def test_a_study_whose_job_was_discarded(tmp_path: Path) -> None:
    """What its fault says: mend the AE title, discard the job, send again. That is no repeat of anything."""
    with Gateway(tmp_path / "gateway") as gateway:
        gateway.add_source("MODALITY")
        gateway.add_aetitle("BRAIN", pipeline_x=NOBODY)
        study = make_study(tmp_path / "study", "PAT-1", 3, rows=64)
        send(gateway, study)
        (job,) = gateway.wait_for(lambda: gateway.jobs(state="Faulted"), 30.0, "fault")
        assert "send its study again" in job["lastError"]

        settings = {"timeout": "5", "pipeline-x": gateway.add_pipeline("x", ["true"])}
        changed = {"name": "BRAIN", "aeTitle": "BRAIN", "processorSettings": settings}
        assert gateway.rest.put("/api/config/claraaetitle/BRAIN", json=changed).status_code == 200
        gateway.cli("jobs", "discard", job["jobId"])
        send(gateway, study)
        (again,) = gateway.wait_for(lambda: gateway.jobs(platformState="Succeeded"), 30.0, "the second job's end")
        assert again["instances"] == 3

        send(gateway, study)  # and this is one
        gateway.wait_for(lambda: ("Repeated", 3) in states(gateway), 30.0, "three repeats")
        assert len(gateway.jobs()) == 2


def test_an_instance_whose_file_is_gone(tmp_path: Path) -> None:
    """The copy that is there stands for it, although the first one should."""
    with Gateway(tmp_path / "gateway") as gateway:
        gateway.add_source("MODALITY")
        gateway.add_aetitle("BRAIN", timeout=8, pipeline_x=gateway.add_pipeline("x", ["true"]))
        study = make_study(tmp_path / "study", "PAT-1", 4, rows=64)
        send(gateway, study)
        gateway.wait_for(lambda: states(gateway) == [("Grouped", 4)], 20.0, "four instances on record")
        min(gateway.spool.glob("instances/*/*.dcm")).unlink()
        send(gateway, study)
        (job,) = gateway.wait_for(lambda: gateway.jobs(platformState="Succeeded"), 40.0, "the job's end")
        assert job["instances"] == 4


def test_a_spool_that_is_older_than_the_ledger(tmp_path: Path) -> None:
    """Instances that were done, and are back from a backup: they make no job, go away, and hold nothing up."""
    place, settings = tmp_path / "gateway", {"dicom.scp.repeatSeconds": 1}
    study, backup = make_study(tmp_path / "study", "PAT-1", 3, rows=64), tmp_path / "backup"
    with Gateway(place, settings) as gateway:
        gateway.add_source("MODALITY")
        gateway.add_aetitle("BRAIN", pipeline_x=gateway.add_pipeline("x", ["true"]))
        send(gateway, study)
        shutil.copytree(gateway.spool / "instances", backup)
        gateway.wait_jobs(1)
        gateway.wait_for(lambda: states(gateway) == [], 40.0, "reclaim")
    shutil.copytree(backup, place / "spool" / "instances", dirs_exist_ok=True)
    with Gateway(place, settings) as gateway:
        gateway.wait_for(lambda: not list(gateway.spool.glob("instances/*/*.dcm")), 40.0, "deletion of what is back")
        send(gateway, make_study(tmp_path / "next", "PAT-2", 2, rows=64))
        gateway.wait_jobs(2)
        assert {actor.restarts for actor in gateway.status().actors} == {0}
