"""The `dicom-adapter` command: the original's forms, tables and JSON, and errors as sentences with an exit code."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.peers import free_port, storescu
from tests.samples import make_study

ACTOR_KEYS = {"name", "kind", "pid", "state", "restarts", "uptimeSeconds", "lastHeartbeatSeconds"}
_JOB = "jobId payloadId jobName pipelineId aeTitle state platformState priority source instances tries lastError"
JOB_KEYS = {*_JOB.split(), "created", "updated"}


def dicom_adapter(*words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run the command without a gateway."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("DICOM_ADAPTER", "DicomAdapter"))}
    command = [sys.executable, "-m", "cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env={**clean, **environ})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def test_original_forms(shared: Gateway) -> None:
    created = shared.cli(
        "create", "pipeline", "-n", "covid", "--export", "MYPACS", "--", "/bin/cp", "{input}", "{output}"
    )
    pipeline = created.stdout.split()[-1]
    shared.cli("create", "aetitle", "-a", "COVIDAET", f"pipeline-covid={pipeline}")
    shared.cli("create", "src", "-a", "MYPACS", "-i", "10.20.30.1")
    shared.cli("create", "dest", "-n", "MYPACS", "-a", "MYPACSAET", "-i", "10.20.30.2", "-p", "1104")

    (registered,) = json.loads(shared.cli("list", "pipeline", "--json").stdout)
    assert registered["pipelineId"] == pipeline
    assert registered["command"] == ["/bin/cp", "{input}", "{output}"]
    assert registered["exports"] == ["MYPACS"]
    (title,) = json.loads(shared.cli("list", "aetitle", "--json").stdout)
    assert title["processorSettings"] == {"pipeline-covid": pipeline}
    assert "10.20.30.1" in shared.cli("list", "src").stdout
    assert "MYPACSAET" in shared.cli("list", "dest").stdout

    taken = shared.cli("create", "aetitle", "-a", "COVIDAET", f"pipeline-covid={pipeline}", check=False)
    assert taken.returncode == 1
    assert "COVIDAET" in taken.stderr
    for kind, key in (("aetitle", "COVIDAET"), ("src", "MYPACS"), ("dest", "MYPACS"), ("pipeline", pipeline)):
        shared.cli("delete", kind, key)
        assert json.loads(shared.cli("list", kind, "--json").stdout) == []
        assert shared.cli("delete", kind, key, check=False).returncode == 1


@pytest.mark.alone
def test_status_shape_and_speed(shared: Gateway) -> None:
    times = []
    for _ in range(3):
        started = time.monotonic()
        answer = json.loads(shared.cli("status", "--json").stdout)
        times.append(time.monotonic() - started)
    assert set(answer) == {"actors", "activeAssociations", "storage"}
    assert all(set(actor) == ACTOR_KEYS for actor in answer["actors"])
    assert set(answer["storage"]) == {"state", "freeBytes", "reservedBytes"}
    assert "supervisor" not in {actor["kind"] for actor in answer["actors"]}
    assert min(times) < 1.0  # half of that on an idle machine
    table = shared.cli("status").stdout
    assert "receiver-1" in table
    assert "running" in table


def test_jobs_trace_and_restart(shared: Gateway, tmp_path: Path) -> None:
    pipeline = shared.add_pipeline("failing", ["/bin/sh", "-c", "echo some last words; exit 3"])
    shared.add_source("MODALITY")
    shared.add_aetitle("JOBS", pipeline_failing=pipeline)
    study = make_study(tmp_path / "study", "PAT-J", 3, rows=64, modality="MR")
    assert storescu(shared.port, study.directory, called="JOBS", calling="MODALITY").successes == 3
    shared.wait_jobs(1, platform_state="Failed")

    (job,) = json.loads(shared.cli("jobs", "list", "--json").stdout)
    assert set(job) == JOB_KEYS
    assert job["state"] == "Completed"
    assert job["instances"] == 3
    shown = shared.cli("jobs", "show", job["jobId"]).stdout
    assert "some last words" in shown
    assert job["jobName"] in shared.cli("jobs", "list", "--state", "Completed").stdout
    assert shared.cli("jobs", "list", "--state", "Faulted").stdout == "no jobs\n"

    assert shared.cli("jobs", "retry", job["jobId"]).stdout == "retry: 1 job\n"
    shared.wait_for(
        lambda: shared.jobs(platformState="Failed") and "pipeline ended" in shared.cli("trace", study.uid).stdout,
        30.0,
        "another failure",
    )
    assert "to be run again" in shared.cli("trace", study.uid).stdout
    assert shared.cli("jobs", "discard", job["jobId"]).stdout == "discard: 1 job\n"
    for verb, words in (("discard", "nothing is kept of it"), ("retry", "have the study sent again")):
        refused = shared.cli("jobs", verb, job["jobId"], check=False)
        assert (refused.returncode, words in refused.stderr) == (1, True)

    told = shared.cli("trace", study.uid).stdout
    for part in ("3 instances", "MODALITY", "group", "PayloadUploading", "pipeline started", "pipeline ended, Failed"):
        assert part in told
    journey = json.loads(shared.cli("trace", study.uid, "--json").stdout)
    assert journey["instances"] == 3

    before = set(shared.pids("extractor"))
    shared.cli("restart", "extractor-1")
    assert len(before & set(shared.pids("extractor"))) == len(before) - 1


def test_unknown_things_are_errors_with_a_sentence(shared: Gateway) -> None:
    for words in (
        ("trace", "1.2.3.4"),
        ("jobs", "show", "00000000-0000-0000-0000-000000000000"),
        ("quarantine", "release", "000000000000000000000-000001"),
        ("restart", "nobody"),
    ):
        ended = shared.cli(*words, check=False)
        assert ended.returncode == 1, words
        assert ended.stderr.startswith("dicom-adapter: "), words
        assert "Traceback" not in ended.stderr


def test_nobody_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    listed = dicom_adapter("jobs", "list", "--url", url)
    assert listed.returncode == 69
    assert url in listed.stderr
    assert "--url" in listed.stderr
    status = dicom_adapter("status", RUNTIME_DIRECTORY="/nonexistent/run")
    assert status.returncode == 69
    assert "/nonexistent/run" in status.stderr


def test_usage_errors() -> None:
    assert dicom_adapter("jobs", "retry").returncode == 64
    assert dicom_adapter("frobnicate").returncode == 64
    assert dicom_adapter("create", "aetitle", "-a", "X", "nonsense").returncode == 64
    assert dicom_adapter("jobs", "list", "--url", "nonsense").returncode == 64


def test_every_command_explains_itself() -> None:
    assert "create pipeline" in dicom_adapter("--help").stdout
    for words in (("run",), ("create", "aetitle"), ("jobs", "retry"), ("trace",), ("restart",)):
        assert "Example:" in dicom_adapter(*words, "--help").stdout, words


def test_check_config(tmp_path: Path) -> None:
    config = tmp_path / "appsettings.json"
    config.write_text('{"DicomAdapter": {"dicom": {"scp": {"port": 11104}}}}')
    good = dicom_adapter("check-config", "--config", str(config), "--show")
    assert good.returncode == 0
    assert "valid" in good.stdout
    assert "DicomAdapter.dicom.scp.port" in good.stdout

    config.write_text('{"DicomAdapter": {"dicom": {"scp": {"port": 0, "maximumNumberOfAssociations": 5000}}}}')
    for words in (("check-config",), ("run",)):
        bad = dicom_adapter(*words, "--config", str(config))
        assert bad.returncode == 78
        assert len(bad.stderr.splitlines()) == 2
        assert "DicomAdapter.dicom.scp.port" in bad.stderr
        assert "Traceback" not in bad.stderr

    missing = dicom_adapter("run", "--config", str(tmp_path / "none.json"))
    assert missing.returncode == 78
    assert "none.json" in missing.stderr
