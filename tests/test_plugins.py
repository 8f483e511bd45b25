"""A job processor of another package, in the whole gateway: its settings, its jobs, and what it cannot harm."""

import re
import sys
import time
from collections import Counter
from pathlib import Path

from tests import plug_ins
from tests.gateway import Gateway
from tests.peers import storescu
from tests.samples import make_study, new_uid

TIMEOUT_SECONDS = 5
LIMITS = {
    "DICOM_ADAPTER_PLUGIN_KEYS_SECONDS": "2",
    "DICOM_ADAPTER_PLUGIN_PLAN_SECONDS": "2",
    "DICOM_ADAPTER_PLUGIN_LONGEST_PAUSE_SECONDS": "3",
}


def add(gateway: Gateway, ae_title: str, **settings: str) -> None:
    """Create an AE title with the job processor `wayward`."""
    body = {"aeTitle": ae_title, "processor": "wayward", "processorSettings": settings}
    answer = gateway.rest.post("/api/config/claraaetitle", json=body)
    assert answer.status_code == 201, answer.text


def test_the_documentations_example(tmp_path: Path) -> None:
    """Its settings error is the 400 of POST and what the command line says; its jobs have its names and pipelines."""
    page = Path(__file__).parents[1] / "docs" / "job-processors.md"
    example = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert example
    environment = plug_ins.install(tmp_path / "by_modality", example[1], **{"by-modality": "ByModality"})
    with Gateway(tmp_path, environ=environment) as gateway:
        body = {"aeTitle": "SORTER", "processor": "by-modality", "processorSettings": {"ct": "any"}}
        wrong = gateway.rest.post("/api/config/claraaetitle", json=body)
        sentence = "mr is missing: give the pipeline's ID"
        assert (wrong.status_code, wrong.json()["errors"]) == (400, [f"processorSettings: {sentence}"])
        create = ("create", "aetitle", "-a", "SORTER", "--processor", "by-modality", "timeout=5")
        told = gateway.cli(*create, "ct=any", check=False)
        assert (told.returncode != 0, sentence in told.stdout + told.stderr) == (True, True)

        pipelines = {modality: gateway.add_pipeline(modality, ["/bin/true"]) for modality in ("ct", "mr")}
        gateway.cli(*create, *(f"{modality}={pipeline}" for modality, pipeline in pipelines.items()))
        gateway.add_source("MODALITY")
        uid = new_uid()
        for modality, instances in (("CT", 2), ("MR", 3)):
            directory = tmp_path / modality
            study = make_study(directory, "PAT-W", instances, rows=64, modality=modality, study_uid=uid)
            sent = storescu(gateway.port, study.directory, called="SORTER", calling="MODALITY")
            assert sent.successes == instances
        jobs = {job["pipelineId"]: job for job in gateway.wait_jobs(2)}
    for modality, instances in (("ct", 2), ("mr", 3)):
        job = jobs[pipelines[modality]]
        assert job["instances"] == instances
        assert re.fullmatch(rf"sorter-{modality}-\d{{14}}", job["jobName"])


def test_loops_and_crashes_harm_itself_alone(tmp_path: Path) -> None:
    """Four AE titles whose job processor loops or crashes in one of its steps, and one of ours beside them.

    When it is mended, all four get their jobs, and nothing has been restarted.
    """
    misdeeds = {
        "KEYLOOP": "group_key loop",
        "KEYEXIT": "group_key leave",
        "PLANLOOP": "plan loop",
        "PLANEXIT": "plan crash",
    }
    stamp, script = tmp_path / "started", tmp_path / "stamp.py"
    script.write_text(f"import time\nopen({str(stamp)!r}, 'w').write(repr(time.time()))\n")
    with Gateway(tmp_path, environ={**plug_ins.install_wayward(tmp_path), **LIMITS}) as gateway:
        gateway.add_source("MODALITY")
        ours = gateway.add_pipeline("stamp", [sys.executable, "-S", str(script)])
        theirs = gateway.add_pipeline("none", ["/bin/true"])
        for ae_title, misdeed in misdeeds.items():
            directory = tmp_path / ae_title
            directory.mkdir()
            step, how = misdeed.split()
            (directory / step).write_text(how)
            add(gateway, ae_title, pipeline=theirs, directory=str(directory))
            study = make_study(tmp_path / f"study-{ae_title}", "PAT-V", 4, rows=64, modality="MR")
            assert storescu(gateway.port, study.directory, called=ae_title, calling="MODALITY").successes == 4
        gateway.add_aetitle("OURS", timeout=TIMEOUT_SECONDS, pipeline_stamp=ours)
        processor = gateway.pids("processor")

        def failed_steps() -> set[tuple[str, str]]:
            found = re.findall(r"job_processor_failed processor=wayward ae_title=(\w+) step=(\w+)", gateway.log_text())
            return {(ae_title, step) for ae_title, step in found}

        all_failed = {(ae_title, misdeed.split()[0]) for ae_title, misdeed in misdeeds.items()}
        gateway.wait_for(lambda: failed_steps() == all_failed, 30, "failures of all four")
        study = make_study(tmp_path / "study", "PAT-O", 50)
        assert storescu(gateway.port, study.directory, called="OURS", calling="MODALITY").successes == 50
        answered = time.time()
        gateway.wait_jobs(1)
        assert float(stamp.read_text()) - answered <= TIMEOUT_SECONDS + 1.0

        for ae_title, misdeed in misdeeds.items():
            (tmp_path / ae_title / misdeed.split()[0]).unlink()
        jobs = gateway.wait_jobs(5)
        assert Counter((job["aeTitle"], job["instances"]) for job in jobs if job["aeTitle"] != "OURS") == {
            (ae_title, 4): 1 for ae_title in misdeeds
        }
        assert gateway.pids("processor") == processor
        assert {actor.restarts for actor in gateway.status().actors} == {0}
        assert gateway.rest.get("/api/quarantine").json() == []
