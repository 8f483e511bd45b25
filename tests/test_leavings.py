"""What pipelines have left on this machine: kept until a person discards it, or for so many days; then it goes."""

import contextlib
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults.victims import Points, Victims
from tests.gateway import Gateway
from tests.peers import free_port, storescu
from tests.samples import make_study
from tests.test_exports import COPYING
from tests.test_rerun import OBJECTS, wait_failed, wait_succeeded

NewGateway = Callable[..., Gateway]


def make_older(gateway: Gateway, seconds: float) -> None:
    """As if all results had been made earlier."""
    with contextlib.closing(sqlite3.connect(gateway.ledger, timeout=30.0)) as ledger, ledger:
        ledger.execute("UPDATE result SET created_ns = created_ns - ?", (int(seconds * 10**9),))


def homes(gateway: Gateway) -> set[str]:
    """Payload IDs of the runs that have left something."""
    return {path.parent.name for path in gateway.spool.glob("platform/*/runs")}


def payload_of(gateway: Gateway, job_id: str) -> str:
    (found,) = [job["payloadId"] for job in gateway.jobs() if job["jobId"] == job_id]
    return str(found)


def test_what_an_operator_does(new_gateway: NewGateway, tmp_path: Path) -> None:
    """The disk is nearly full of results: one command frees it, but for what a dead destination shall still get."""
    points = Points(tmp_path / "points")
    gateway = new_gateway({"dicom.scp.repeatSeconds": 0}, environ=points.environ).start()
    victims = Victims(gateway)
    gateway.add_source("MODALITY")
    gateway.add_destination("DEAD", free_port())
    gateway.add_aetitle("BRAIN", pipeline_x=gateway.add_pipeline("x", COPYING))
    gateway.add_aetitle("SENT", pipeline_y=gateway.add_pipeline("y", COPYING, exports=["DEAD"]))
    gateway.add_aetitle("WRONG", pipeline_z=gateway.add_pipeline("z", [sys.executable, "-c", "raise SystemExit(9)"]))
    for number, ae_title in enumerate(("BRAIN", "BRAIN", "SENT", "WRONG")):
        study = make_study(tmp_path / f"study-{number}", f"PAT-{number}", OBJECTS, rows=64)
        assert storescu(gateway.port, study.directory, called=ae_title, calling="MODALITY").successes == OBJECTS
    (wrong,) = wait_failed(gateway)
    gateway.wait_for(lambda: len(gateway.jobs(platformState="Succeeded")) == 3, 40.0, "three results")
    gateway.wait_for(gateway.exports, 30.0, "an export")
    (sent,) = [job["jobId"] for job in gateway.jobs() if job["aeTitle"] == "SENT"]
    one, other = [job["jobId"] for job in gateway.jobs() if job["aeTitle"] == "BRAIN"]
    gateway.wait_for(lambda: "results of pipelines" in gateway.cli("status").stdout, 30.0, "what holds the storage")
    assert "keepsResults  True" in gateway.cli("jobs", "show", one).stdout

    assert gateway.cli("jobs", "discard", one).stdout == "discard: 1 job\n"
    make_older(gateway, 60.0)
    gateway.wait_for(lambda: payload_of(gateway, one) not in homes(gateway), 60.0, "room")
    assert {payload_of(gateway, other), payload_of(gateway, sent)} <= homes(gateway)

    # The platform is killed when the decision stands in the ledger; the successor does it.
    points.arm("platform.results-discarded", "kill")
    gateway.cli("jobs", "discard", "--platform", "Succeeded", "--all", check=False)
    gateway.wait_for(lambda: points.taken("platform.results-discarded"), 30.0, "a platform that was killed")
    pid = points.taken("platform.results-discarded")
    gateway.wait_for(lambda: pid not in victims.pids("platform") and gateway.running(), 60.0, "successor")
    gateway.wait_for(lambda: payload_of(gateway, other) not in homes(gateway), 60.0, "room")
    assert payload_of(gateway, sent) in homes(gateway)
    refused = gateway.cli("jobs", "discard", sent, check=False)
    assert (refused.returncode, "exports list" in refused.stderr) == (1, True)
    gateway.cli("exports", "cancel", "--destination", "DEAD")
    assert gateway.cli("jobs", "discard", "--platform", "Succeeded", "-a", "SENT").stdout == "discard: 1 job\n"
    gateway.wait_for(lambda: payload_of(gateway, sent) not in homes(gateway), 60.0, "room")

    assert gateway.cli("jobs", "discard", "--platform", "Failed", "-a", "WRONG").stdout == "discard: 1 job\n"
    gateway.wait_for(lambda: not list(gateway.spool.glob("platform/*/payload")), 30.0, "the end of its input")
    refused = gateway.cli("jobs", "retry", wrong, check=False)
    assert (refused.returncode, "have the study sent again" in refused.stderr) == (1, True)
    gateway.wait_for(lambda: not list(gateway.spool.glob("instances/*/*.dcm")), 60.0, "reclaim")


def test_results_have_their_days(new_gateway: NewGateway, tmp_path: Path) -> None:
    """A reload is enough; what is younger stays."""
    gateway = new_gateway({"dicom.scp.repeatSeconds": 0}).start()
    gateway.add_source("MODALITY")
    gateway.add_aetitle("BRAIN", pipeline_x=gateway.add_pipeline("x", COPYING))

    def made(number: int) -> str:
        study = make_study(tmp_path / f"study-{number}", f"PAT-{number}", OBJECTS, rows=64)
        assert storescu(gateway.port, study.directory, called="BRAIN", calling="MODALITY").successes == OBJECTS
        gateway.wait_for(lambda: len(gateway.jobs()) == number + 1, 30.0, "a job")
        job_id = str(gateway.jobs()[0]["jobId"])
        wait_succeeded(gateway, job_id)
        return payload_of(gateway, job_id)

    old = made(0)
    make_older(gateway, 3 * 86_400)
    young = made(1)
    gateway.settings["services.platform.resultsDays"] = 2
    gateway.reload()
    gateway.wait_for(lambda: old not in homes(gateway), 60.0, "room")
    assert young in homes(gateway)
