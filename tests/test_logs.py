"""The logs of a gateway that runs: levels by the original's categories, SIGHUP, JSON lines, and no patient in them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import patients
from tests.gateway import Gateway
from tests.peers import echoscu, storescu
from tests.samples import make_study

_SERVER = "Nvidia.Clara.DicomAdapter.Server"


def prepare(gateway: Gateway) -> Gateway:
    """A source, and an AE title with a pipeline that tells what it should not, and fails."""
    gateway.add_source("MODALITY")
    told = f"echo {patients.PATIENT_NAME} born {patients.BIRTH_DATE}; find $INPUT_DIR -type f; exit 3"
    gateway.add_aetitle("LOGS", pipeline_telling=gateway.add_pipeline("telling", ["/bin/sh", "-c", told]))
    return gateway


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield prepare(running)


def send_one(gateway: Gateway, directory: Path) -> list[str]:
    """Send a study of one object; returns the lines that this made until its association was over."""
    before = len(gateway.log_text())
    study = make_study(directory / f"at-{before}", "PAT-LOG", 1, rows=64, modality="MR")
    assert storescu(gateway.port, study.directory, called="LOGS", calling="MODALITY").successes == 1
    gateway.wait_for(lambda: gateway.status().active_associations == 0, 10, "end of the association")
    return gateway.log_text()[before:].splitlines()


def shows(lines: list[str], level: str, category: str, event: str) -> bool:
    """Whether a line has this level, category and event."""
    return any(f" {level}: {category} [" in line and f"] {event} " in line for line in lines)


def test_levels_of_the_originals_categories_and_sighup(shared: Gateway, tmp_path: Path) -> None:
    """`Services.Scp` at Debug shows each instance, at Error not even associations; nothing is restarted for it."""
    before = {actor.name: actor.pid for actor in shared.status().actors}
    lines = send_one(shared, tmp_path)
    assert shows(lines, "info", "adapter.receiver", "association_ended")
    assert not any(" debug: " in line for line in lines)

    shared.logging = {"LogLevel": {"Nvidia": "Information", f"{_SERVER}.Services.Scp": "Debug"}}
    assert shared.reload() == "nothing"
    # The supervisor has told all, but each hears it in its own time.
    lines = shared.wait_for(
        lambda: (
            (found := send_one(shared, tmp_path))
            and shows(found, "debug", "adapter.receiver", "instance_stored")
            and found
        ),
        15,
        "lines of instances",
    )
    debugged = {line.split()[3] for line in shared.log_text().splitlines() if " debug: " in line}
    assert debugged <= {"adapter.receiver", "adapter.extractor"}

    shared.logging = {"LogLevel": {"nvidia": "Information", f"{_SERVER}.Services.Scp".upper(): "Error"}}
    assert shared.reload() == "nothing"
    shared.wait_for(
        lambda: not any("adapter.receiver" in line for line in send_one(shared, tmp_path)), 15, "silent receivers"
    )

    shared.logging = {}
    assert shared.reload() == "nothing"
    shared.wait_for(
        lambda: shows(send_one(shared, tmp_path), "info", "adapter.receiver", "association_ended"), 15, "lines again"
    )
    assert {actor.name: actor.pid for actor in shared.status().actors} == before


def test_a_wrong_reload_is_explained_and_changes_nothing(shared: Gateway, tmp_path: Path) -> None:
    shared.logging = {"LogLevel": {"Nvidia": "Loud"}}
    shared.write_configuration()
    assert shared.process is not None
    shared.process.send_signal(1)
    shared.wait_for(lambda: "reload_refused" in shared.log_text(), 10, "refusal")
    assert 'Logging.LogLevel.Nvidia: \\"Loud\\"' in shared.log_text()
    shared.logging = {}
    assert shared.reload() == "nothing"
    assert shows(send_one(shared, tmp_path), "info", "adapter.receiver", "association_ended")


def test_what_a_pipeline_tells_stays_out_of_the_log(shared: Gateway, tmp_path: Path) -> None:
    """Its output is for `jobs show`; the log above Debug has neither it nor paths with Patient IDs."""
    send_one(shared, tmp_path)

    def failed() -> list[dict[str, Any]]:
        return [job for job in shared.jobs() if job["platformState"] == "Failed"]

    job = shared.wait_for(failed, 30, "job whose pipeline has failed")[0]
    shown = shared.cli("jobs", "show", job["jobId"]).stdout
    assert patients.PATIENT_NAME in shown
    assert "dcm/PAT-LOG/" in shown
    assert f"run_ended job={job['jobName']}" in shared.log_text()
    assert patients.search(shared.log_text()) == []


def test_datasets_on_demand_as_json_lines(tmp_path: Path) -> None:
    """`logDimseDatasets` says first that patient data will be there; every line is a JSON object by setting."""
    gateway = Gateway(tmp_path, {"dicom.scp.logDimseDatasets": True}, logging={"Console": {"format": "json"}})
    with gateway:
        prepare(gateway)
        study = make_study(tmp_path / "study", "PAT-LOG", 1, rows=64, modality="MR")
        assert storescu(gateway.port, study.directory, called="LOGS", calling="MODALITY").successes == 1
        assert echoscu(gateway.port, called="LOGS", calling="MODALITY").statuses == ("Success",)
        gateway.wait_for(lambda: gateway.log_text().count("association_ended") == 2, 10, "both associations' ends")
        lines = [json.loads(line) for line in gateway.log_text().splitlines()]
    assert all({"time", "level", "category", "actor", "event"} <= line.keys() for line in lines)

    warning = next(line for line in lines if line["event"] == "configuration_warning")
    assert warning["told"] == "DicomAdapter.dicom.scp.logDimseDatasets: patient data will be in the log"
    assert lines.index(warning) < [line["event"] for line in lines].index("association_accepted")

    said = [line for line in lines if line["event"].startswith("dimse_")]
    assert {line["level"] for line in said} == {"info"}
    words = ["dimse_request", "dimse_dataset", "dimse_response", "dimse_request", "dimse_response"]
    assert [line["event"] for line in said] == words
    (uid,) = study.files
    assert f"0000,1000 UI Affected SOP Instance UID: {uid}" in said[0]["elements"]
    assert f"0010,0010 PN Patient's Name: {patients.PATIENT_NAME}" in said[1]["elements"]
    assert f"0020,000D UI Study Instance UID: {study.uid}" in said[1]["elements"]
    assert "7FE0,0010" not in said[1]["elements"]
    assert (said[2]["elements"], said[2]["message"]) == ("status 0x0000", 1)
    assert said[0]["association"] == said[2]["association"] != said[3]["association"]
