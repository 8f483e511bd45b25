"""The main line: real senders deliver studies, each group makes one job a pipeline, its payload is what was sent."""

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.gateway import Gateway
from tests.peers import echoscu, storescu
from tests.samples import Study, dataset_bytes, make_study, new_uid

TIMEOUT_SECONDS = 5


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all, with a source; each test has AE titles of its own."""
    with Gateway(tmp_path_factory.mktemp("main-line")) as running:
        running.add_source("MODALITY")
        yield running


def assert_payload(kept: Path, study: Study, *, called: str, calling: str) -> None:
    """A copied payload holds exactly the study: names, datasets byte for byte, and file meta groups."""
    found = {path.relative_to(kept).as_posix(): path for path in kept.rglob("*") if path.is_file()}
    assert len(found) == len(study.files)
    for uid, source in study.files.items():
        sent = pydicom.dcmread(source, stop_before_pixels=True)
        name = f"dcm/{study.patient_id}/{study.uid}/{sent.SeriesInstanceUID}/{uid}.dcm"
        assert name in found
        assert dataset_bytes(found[name]) == dataset_bytes(source)
        meta = pydicom.dcmread(found[name], stop_before_pixels=True).file_meta
        assert meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
        assert meta.MediaStorageSOPClassUID == sent.SOPClassUID
        assert meta.MediaStorageSOPInstanceUID == uid
        assert meta.SourceApplicationEntityTitle == calling
        assert meta.SendingApplicationEntityTitle == calling
        assert meta.ReceivingApplicationEntityTitle == called


def test_400_ct_objects_make_one_job_a_pipeline(gateway: Gateway, tmp_path: Path, keeping_pipeline: list[str]) -> None:
    study = make_study(tmp_path / "ct", "PAT-400", 400, series=4)
    first = gateway.add_pipeline("first-keeps", keeping_pipeline)
    second = gateway.add_pipeline("second-keeps", keeping_pipeline)
    gateway.add_aetitle("MAINLINE", timeout=TIMEOUT_SECONDS, pipeline_first=first, pipeline_second=second)

    sent = storescu(gateway.port, study.directory, called="MAINLINE", calling="MODALITY")
    assert (sent.exit_code, sent.successes) == (0, 400), sent.output[-2000:]

    jobs = gateway.wait_jobs(2, aeTitle="MAINLINE")
    assert {job["pipelineId"] for job in jobs} == {first, second}
    for job in jobs:
        assert job["state"] == "Completed"
        assert job["instances"] == 400
        assert job["aeTitle"] == "MAINLINE"
        assert re.fullmatch(r"mainline-(first|second)-\d{14}", job["jobName"])
        assert_payload(tmp_path / "kept" / job["jobId"], study, called="MAINLINE", calling="MODALITY")


def test_verification(gateway: Gateway) -> None:
    gateway.add_source("KNOWN")
    gateway.add_aetitle("VERIFY", pipeline_none=gateway.add_pipeline("verify", ["/bin/true"]))

    assert echoscu(gateway.port, called="VERIFY", calling="KNOWN").statuses == ("Success",)

    unknown_source = echoscu(gateway.port, called="VERIFY", calling="STRANGER")
    assert unknown_source.rejection == "Calling AE Title Not Recognized"
    unknown_title = echoscu(gateway.port, called="NOBODY", calling="KNOWN")
    assert unknown_title.rejection == "Called AE Title Not Recognized"
    assert "Rejected Permanent, Source: Service User" in unknown_title.output

    aborted = echoscu(gateway.port, called="VERIFY", calling="KNOWN", options=["--abort"])
    assert aborted.statuses == ("Success",)
    gateway.wait_for(lambda: gateway.status().active_associations == 0, 10, "end of the aborted association")


def test_two_ae_titles_by_study_and_by_patient(gateway: Gateway, tmp_path: Path) -> None:
    first = gateway.add_pipeline("first", ["/bin/true"])
    second = gateway.add_pipeline("second", ["/bin/true"])
    gateway.add_aetitle("Clara1", pipeline_one=first)
    gateway.add_aetitle("Clara2", timeout=10, groupBy="0010,0020", pipeline_one=first, pipeline_two=second)

    studies = [
        make_study(tmp_path / f"{patient}-{number}", patient, 3, rows=64, modality="MR")
        for patient in ("PAT-A", "PAT-B")
        for number in range(2)
    ]
    for study in studies:
        for called in ("Clara1", "Clara2"):
            assert storescu(gateway.port, study.directory, called=called, calling="MODALITY").successes == 3

    jobs = [*gateway.wait_jobs(4, aeTitle="Clara1"), *gateway.wait_jobs(4, aeTitle="Clara2")]
    counts = Counter((job["aeTitle"], job["pipelineId"], job["instances"]) for job in jobs)
    assert counts == {("Clara1", first, 3): 4, ("Clara2", first, 6): 2, ("Clara2", second, 6): 2}


def test_one_study_over_five_associations_is_one_job(
    gateway: Gateway, tmp_path: Path, keeping_pipeline: list[str]
) -> None:
    gateway.add_aetitle("FIVE", pipeline_keep=gateway.add_pipeline("keep", keeping_pipeline))
    study = make_study(tmp_path / "study", "PAT-5", 20, rows=64, modality="MR")
    for part in range(5):
        sent = storescu(gateway.port, *study.part(4 * part, 4 * part + 4), called="FIVE", calling="MODALITY")
        assert sent.successes == 4

    (job,) = gateway.wait_jobs(1, aeTitle="FIVE")
    assert job["instances"] == 20
    assert_payload(tmp_path / "kept" / job["jobId"], study, called="FIVE", calling="MODALITY")
    journey = gateway.cli("trace", study.uid, "--json").stdout
    assert journey.count('"associationId"') >= 5


@pytest.mark.alone
def test_pipeline_starts_within_a_second_of_the_timeout(gateway: Gateway, tmp_path: Path) -> None:
    stamp = tmp_path / "started"
    script = tmp_path / "stamp.py"
    script.write_text(f"import time\nopen({str(stamp)!r}, 'w').write(repr(time.time()))\n")
    pipeline = gateway.add_pipeline("stamp", [sys.executable, "-S", str(script)])
    gateway.add_aetitle("PROMPT", timeout=TIMEOUT_SECONDS, pipeline_stamp=pipeline)

    study = make_study(tmp_path / "study", "PAT-T", 50)
    assert storescu(gateway.port, study.directory, called="PROMPT", calling="MODALITY").successes == 50
    answered = time.time()
    gateway.wait_jobs(1, aeTitle="PROMPT")
    assert float(stamp.read_text()) - answered <= TIMEOUT_SECONDS + 1.0


def test_stopped_extractors_do_not_split_a_study(gateway: Gateway, tmp_path: Path) -> None:
    gateway.add_aetitle("STALL", timeout=TIMEOUT_SECONDS, pipeline_none=gateway.add_pipeline("stall", ["/bin/true"]))
    study = make_study(tmp_path / "study", "PAT-S", 30, rows=64, modality="MR")
    assert storescu(gateway.port, *study.part(0, 10), called="STALL", calling="MODALITY").successes == 10

    extractors = gateway.pids("extractor")
    for pid in extractors:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert storescu(gateway.port, *study.part(10, 20), called="STALL", calling="MODALITY").successes == 10
        # Longer than the timeout, shorter than the heartbeat's limit, after which they would be replaced.
        silent_since = time.monotonic()
        gateway.wait_for(lambda: time.monotonic() - silent_since > TIMEOUT_SECONDS + 2, 30, "passing of the timeout")
        assert gateway.jobs(aeTitle="STALL") == []
        assert storescu(gateway.port, *study.part(20, 30), called="STALL", calling="MODALITY").successes == 10
    finally:
        for pid in extractors:
            os.kill(pid, signal.SIGCONT)

    (job,) = gateway.wait_jobs(1, aeTitle="STALL")
    assert job["instances"] == 30


def test_what_comes_late_makes_a_second_job_of_what_is_new(gateway: Gateway, tmp_path: Path) -> None:
    gateway.add_aetitle("LATE", pipeline_none=gateway.add_pipeline("late", ["/bin/true"]))
    uid = new_uid()
    early = make_study(tmp_path / "early", "PAT-L", 3, rows=64, modality="MR", study_uid=uid)
    late = make_study(tmp_path / "late", "PAT-L", 2, rows=64, modality="MR", study_uid=uid)
    assert storescu(gateway.port, early.directory, called="LATE", calling="MODALITY").successes == 3
    gateway.wait_jobs(1, aeTitle="LATE")
    # A repeat of what it has, byte for byte, and two new ones.
    assert storescu(gateway.port, *early.part(0, 1), late.directory, called="LATE", calling="MODALITY").successes == 3
    jobs = gateway.wait_jobs(2, aeTitle="LATE")
    assert sorted(job["instances"] for job in jobs) == [2, 3]
