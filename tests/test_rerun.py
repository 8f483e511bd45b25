"""A study whose pipeline failed need not be sent again: it is run again, once, whatever is killed meanwhile."""

import contextlib
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults.victims import Points, Victims
from tests.gateway import Gateway
from tests.peers import storescp, storescu
from tests.samples import Study, make_study

NewGateway = Callable[..., Gateway]
OBJECTS = 3
WEEK_NS = 7 * 24 * 3600 * 10**9
# Copies its input to its output when it was mended, and fails before that.
COPYING = (
    "import os, shutil, sys; from pathlib import Path; Path(sys.argv[3]).exists() or sys.exit(9); "
    "[shutil.copy(Path(place, name), Path(sys.argv[2], name))"
    " for place, _, names in os.walk(sys.argv[1]) for name in names]"
)


def send(gateway: Gateway, study: Study, ae_title: str = "BRAIN") -> None:
    assert storescu(gateway.port, study.directory, called=ae_title, calling="MODALITY").successes == OBJECTS


def wait_failed(gateway: Gateway, count: int = 1) -> list[str]:
    """IDs of the jobs whose pipeline failed, when there are so many."""

    def failed() -> list[str]:
        found = [job["jobId"] for job in gateway.jobs(platformState="Failed")]
        return found if len(found) == count else []

    found: list[str] = gateway.wait_for(failed, 40.0, f"{count} failed jobs")
    return found


def wait_succeeded(gateway: Gateway, *job_ids: str) -> None:
    def succeeded() -> bool:
        return {job["jobId"] for job in gateway.jobs(platformState="Succeeded")} >= set(job_ids)

    gateway.wait_for(succeeded, 40.0, f"the success of {job_ids}")


def test_what_an_operator_does(new_gateway: NewGateway, tmp_path: Path) -> None:
    """The list names it, status says what it holds, and one command has it at PACS when the pipeline is mended."""
    gateway = new_gateway({"dicom.scp.repeatSeconds": 0}).start()
    mended = tmp_path / "mended"
    with storescp(tmp_path / "pacs") as pacs:
        gateway.add_source("MODALITY")
        gateway.add_destination("MYPACS", pacs.port)
        command = [sys.executable, "-I", "-c", COPYING, "{input}", "{output}", str(mended)]
        pipeline_id = gateway.add_pipeline("copying", command, exports=["MYPACS"])
        gateway.add_aetitle("BRAIN", pipeline_x=pipeline_id)
        studies = [make_study(tmp_path / f"study-{n}", f"PAT-{n}", OBJECTS, rows=64) for n in range(3)]
        for study in studies:
            send(gateway, study)
        one, *others = wait_failed(gateway, 3)
        gateway.wait_for(lambda: "its pipeline failed" in gateway.cli("status").stdout, 10.0, "what holds the spool")
        assert gateway.cli("jobs", "list", "--platform", "Failed").stdout.count("brain-x-") == 3

        wrong = gateway.cli("jobs", "retry", "--platform", "Succeeded", check=False)
        assert (wrong.returncode, "Failed, or nothing" in wrong.stderr) == (1, True)
        assert "retry: 0 jobs" in gateway.cli("jobs", "retry", "--all").stdout  # those that faulted: none

        mended.touch()
        assert gateway.cli("jobs", "retry", one).stdout == "retry: 1 job\n"
        wait_succeeded(gateway, one)
        again = gateway.cli("jobs", "retry", one, check=False)
        assert (again.returncode, "is Completed, and Succeeded there: only" in again.stderr) == (1, True)
        assert "retry: 0 jobs" in gateway.cli("jobs", "retry", "--platform", "Failed", "-a", "OTHER").stdout
        assert "retry: 2 jobs" in gateway.cli("jobs", "retry", "--platform", "Failed", "-a", "BRAIN").stdout
        wait_succeeded(gateway, *others)
        received = {uid for study in studies for uid in study.files}
        gateway.wait_for(lambda: len(list((tmp_path / "pacs").glob("*"))) == len(received), 30.0, "results at PACS")
        gateway.wait_for(lambda: not list(gateway.spool.glob("instances/*/*.dcm")), 60.0, "reclaim")


def test_what_failed_does_not_keep_others_out(new_gateway: NewGateway, tmp_path: Path) -> None:
    """The inputs of failed runs would fill the quota: the oldest go, and intake is closed for a moment at most."""
    gateway = new_gateway({"dicom.scp.repeatSeconds": 0, "storage.volumeSize": "64Mi", "storage.watermarkPercent": 75})
    gateway.start()
    gateway.add_source("MODALITY")
    gateway.add_aetitle("BRAIN", pipeline_x=gateway.add_pipeline("x", ["false"]))
    studies = [make_study(tmp_path / f"study-{n}", f"PAT-{n}", 11, rows=512) for n in range(10)]  # of 5.8 MB each
    for study in studies[:8]:
        assert storescu(gateway.port, study.directory, called="BRAIN", calling="MODALITY").successes == 11
    wait_failed(gateway, 8)

    def sent() -> bool:
        return all(
            storescu(gateway.port, study.directory, called="BRAIN", calling="MODALITY").successes == 11
            for study in studies[8:]
        )

    gateway.wait_for(sent, 30.0, "room for more")
    wait_failed(gateway, 10)
    assert "inputs_given_up" in gateway.log_text()


def test_a_pipeline_under_an_id_that_is_named_already(new_gateway: NewGateway, tmp_path: Path) -> None:
    """An AE title brought an ID along, from another platform or by mistake: what faulted for it goes on with that."""
    gateway = new_gateway().start()
    gateway.add_source("MODALITY")
    gateway.add_aetitle("BRAIN", pipeline_x="8ABF244AA7DF4A5B")
    send(gateway, make_study(tmp_path / "study", "PAT-1", OBJECTS, rows=64))
    (job,) = gateway.wait_for(lambda: gateway.jobs(state="Faulted"), 30.0, "fault")
    assert "create pipeline --id 8abf244aa7df4a5b" in job["lastError"]
    made = gateway.cli("create", "pipeline", "-n", "x", "--id", "8ABF244AA7DF4A5B", "--", "true")
    assert made.stdout.split()[-1] == "8abf244aa7df4a5b"
    taken = gateway.cli("create", "pipeline", "-n", "y", "--id", "8abf244aa7df4a5b", "--", "true", check=False)
    assert "is taken already" in taken.stderr
    for words in (("-n", "y", "--id", "X"), ("-n", "8ABF244AA7DF4A5B")):  # an ID that is a name, and the reverse
        ambiguous = gateway.cli("create", "pipeline", *words, "--", "true", check=False)
        assert "is taken already" in ambiguous.stderr
    gateway.cli("jobs", "retry", job["jobId"])
    wait_succeeded(gateway, job["jobId"])


def test_killed_at_every_point(new_gateway: NewGateway, tmp_path: Path) -> None:
    """One run more for each command, a result that is registered once, and an input that is given up whole."""
    points = Points(tmp_path / "points")
    gateway = new_gateway({"dicom.scp.repeatSeconds": 0}, environ=points.environ).start()
    victims, mended, count = Victims(gateway), tmp_path / "mended", tmp_path / "count"
    gateway.add_source("MODALITY")
    script = f"echo $JOB_ID >> {count}; test -e {mended} && touch $OUTPUT_DIR/made"
    gateway.add_aetitle("BRAIN", pipeline_x=gateway.add_pipeline("x", ["sh", "-c", script]))

    def reach(point: str) -> None:
        gateway.wait_for(lambda: points.taken(point), 60.0, f"process that reaches {point}")
        pid = points.taken(point)
        kind = point.partition(".")[0]
        gateway.wait_for(lambda: pid not in victims.pids(kind) and gateway.running(), 60.0, "successor")
        gateway.wait_ready()

    for number, point in enumerate(("submitter.rerun-committed", "submitter.rerun-asked", "platform.rerun-queued")):
        mended.unlink(missing_ok=True)
        send(gateway, make_study(tmp_path / f"study-{number}", f"PAT-{number}", OBJECTS, rows=64))
        (job_id,) = wait_failed(gateway)
        mended.touch()
        points.arm(point, "kill")
        gateway.cli("jobs", "retry", job_id, check=False)  # it may not be answered
        reach(point)

        def is_over(job_id: str = job_id) -> bool:
            (job,) = [job for job in gateway.jobs() if job["jobId"] == job_id]
            return job["platformState"] in ("Succeeded", "Failed")

        gateway.wait_for(is_over, 40.0, "an end")
        if point == "submitter.rerun-committed":  # the platform was not asked
            assert wait_failed(gateway) == [job_id]
            gateway.cli("jobs", "retry", job_id)
        wait_succeeded(gateway, job_id)
        assert count.read_text().split().count(job_id) == 2
    with contextlib.closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True)) as ledger:
        assert ledger.execute("SELECT files FROM result").fetchall() == [('["made"]',)] * 3

    mended.unlink()
    send(gateway, make_study(tmp_path / "last", "PAT-9", OBJECTS, rows=64))
    (job_id,) = wait_failed(gateway)
    with contextlib.closing(sqlite3.connect(gateway.ledger)) as ledger, ledger:
        ledger.execute("UPDATE run SET ended_ns = ended_ns - ? WHERE job_id = ?", (WEEK_NS, job_id))
    points.arm("platform.rerun-given-up", "kill")
    reach("platform.rerun-given-up")
    gateway.wait_for(lambda: not list(gateway.spool.glob("platform/*/payload")), 30.0, "the end of its payload")
    refused = gateway.cli("jobs", "retry", job_id, check=False)
    assert (refused.returncode, "have the study sent again" in refused.stderr) == (1, True)
    wait_failed(gateway)
    gateway.wait_for(lambda: not list(gateway.spool.glob("instances/*/*.dcm")), 60.0, "reclaim")
