"""Pipelines that misbehave: each ends as a failed run with its reason, and disturbs nobody else."""

import sys
from pathlib import Path

from tests.gateway import Gateway
from tests.peers import storescu
from tests.samples import make_study

_FLOOD = "import sys\nfor _ in range(200): sys.stdout.write('x' * 1000000)\nprint('the end')\nsys.exit(4)\n"
_HANG = "import subprocess, time\nsubprocess.Popen(['/bin/sleep', '1000'])\ntime.sleep(1000)\n"
_VANDAL = """\
import os, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob('*.dcm'):
    os.chmod(path.parent, 0o700)
    os.chmod(path, 0o600)
    path.write_bytes(b'gone')
    path.unlink()
"""


def test_misbehaving_pipelines_fail_with_a_reason_and_disturb_nobody(
    gateway: Gateway, tmp_path: Path, keeping_pipeline: list[str]
) -> None:
    commands = {
        "missing": ["/nonexistent/program"],
        "failing": ["/bin/sh", "-c", "echo famous last words >&2; exit 3"],
        "flooding": [sys.executable, "-c", _FLOOD],
        "hanging": [sys.executable, "-c", _HANG],
        "vandal": [sys.executable, "-c", _VANDAL, "{input}"],
        "good": keeping_pipeline,
    }
    ids = {name: gateway.add_pipeline(name, command, timeout=4) for name, command in commands.items()}
    gateway.add_source("MODALITY")
    settings = {f"pipeline_{name}": pipeline for name, pipeline in ids.items()}
    gateway.add_aetitle("MIXED", **settings)
    study = make_study(tmp_path / "study", "PAT-M", 4, rows=64, modality="MR")
    assert storescu(gateway.port, study.directory, called="MIXED", calling="MODALITY").successes == 4

    def ended() -> bool:
        jobs = gateway.jobs()
        return len(jobs) == len(ids) and all(job["platformState"] in ("Succeeded", "Failed") for job in jobs)

    gateway.wait_for(ended, 90, "end of all runs")
    names = {pipeline: name for name, pipeline in ids.items()}
    runs = {
        names[job["pipelineId"]]: gateway.rest.get(f"/api/jobs/{job['jobId']}").json()["run"] for job in gateway.jobs()
    }
    states = {name: run["state"] for name, run in runs.items()}
    failed = dict.fromkeys(("missing", "failing", "flooding", "hanging"), "Failed")
    assert states == {**failed, "vandal": "Succeeded", "good": "Succeeded"}

    assert "/nonexistent/program" in runs["missing"]["error"] + runs["missing"]["lastOutput"]
    assert runs["failing"]["exitCode"] == 3
    assert "famous last words" in runs["failing"]["lastOutput"]
    assert "the end" in runs["flooding"]["lastOutput"]
    assert len(runs["flooding"]["lastOutput"]) < 100_000
    assert "4 s" in runs["hanging"]["error"]

    # The vandal had a copy of its own: the good one has all, and the spool too.
    (good,) = [job for job in gateway.jobs() if job["pipelineId"] == ids["good"]]
    kept = tmp_path / "kept" / good["jobId"]
    assert {path.stem for path in kept.rglob("*.dcm")} == set(study.files)
    assert all(path.stat().st_size > 1000 for path in kept.rglob("*.dcm"))
    assert all(path.stat().st_size > 1000 for path in (gateway.spool / "instances").rglob("*.dcm"))

    # What the hanging one started is gone too.
    gateway.wait_for(lambda: not sleepers(gateway), 10, "end of what pipelines had started")


def sleepers(gateway: Gateway) -> list[int]:
    """Processes of the gateway that run /bin/sleep."""
    found = []
    for pid in gateway.left_over():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"sleep" in command.split(b"\0")[0]:
            found.append(pid)
    return found
