"""What is long over is forgotten, by every process, whatever is killed meanwhile; what matters still is not."""

import contextlib
import os
import signal
import sqlite3
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.peers import storescp, storescu
from tests.samples import Study, make_study
from tests.test_exports import COPYING

AGE_NS = 200 * 86400 * 1_000_000_000
COUNT = 3
LOOKING_SECONDS = 120.0  # results are freed every half a minute, and three owners wait for each other
KINDS = ("processor", "submitter", "platform", "exporter", "guardian", "retriever", "api")


def rows(gateway: Gateway, table: str) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True)) as ledger:
        (count,) = ledger.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


def make_old(gateway: Gateway) -> None:
    """All that is on record happened so long before."""
    with contextlib.closing(sqlite3.connect(gateway.ledger)) as ledger, ledger:
        for (table,) in ledger.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, *_ in ledger.execute(f"PRAGMA table_info({table})").fetchall():
                if column.endswith("_ns") and column != "deleted_ns":
                    ledger.execute(
                        f"UPDATE {table} SET {column} = {column} - ? WHERE {column} > ?",
                        (AGE_NS, AGE_NS),
                    )


def send(gateway: Gateway, study: Study, ae_title: str) -> None:
    assert storescu(gateway.port, study.directory, called=ae_title, calling="MODALITY").successes == COUNT


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_is_over(new_gateway: Callable[[dict[str, object]], Gateway], tmp_path: Path, *, is_killed: bool) -> None:
    gateway = new_gateway({"dicom.scp.repeatSeconds": 0, "services.platform.maxRetries": 0})
    gateway.start()
    with storescp(tmp_path / "pacs") as pacs:
        gateway.add_source("MODALITY")
        gateway.add_destination("MYPACS", pacs.port)
        pipelines = {
            "EXPORTED": gateway.add_pipeline("exported", COPYING, exports=["mypacs"]),
            "TALKING": gateway.add_pipeline("talking", [sys.executable, "-c", "print('nothing found')"]),
            "FAILING": gateway.add_pipeline("failing", ["/bin/false"]),
            "KEPT": gateway.add_pipeline("kept", COPYING),
            "FAULTED": str(uuid.uuid4()),
        }
        studies = {}
        for ae_title, pipeline in pipelines.items():
            gateway.add_aetitle(ae_title, pipeline_one=pipeline)
            studies[ae_title] = make_study(tmp_path / ae_title, "PAT-PAST", COUNT, rows=32)
            if ae_title == "FAULTED":  # the newest group is never forgotten: let it be this one
                gateway.wait_for(lambda: len(gateway.jobs()) == 4, 60.0, "the jobs of the others")
            send(gateway, studies[ae_title], ae_title)
        of = {"EXPORTED": "Succeeded", "TALKING": "Succeeded", "FAILING": "Failed", "KEPT": "Succeeded", "FAULTED": ""}

        def ended() -> bool:
            jobs = {job["aeTitle"]: job for job in gateway.jobs()}
            return (
                {name: job["platformState"] for name, job in jobs.items()} == of
                and jobs["FAULTED"]["state"] == "Faulted"
                and [task["state"] for task in gateway.exports()] == ["Succeeded"]
                and rows(gateway, "instance_history") == 3 * COUNT  # what failed keeps its input
            )

        gateway.wait_for(ended, 60.0, "jobs that are over")
        gateway.stop()
        make_old(gateway)
        gateway.start()
        # Two things matter still: results that nobody has, and a job that a person has to decide on.
        # What failed kept its files until now, so that it is over only now.
        expected = {"job": 3, "instance_group": 3, "submission": 3, "run": 2, "result": 1, "reclaim": 2}
        expected |= {"instance": COUNT, "instance_history": 2 * COUNT, "export_task": 0, "delivery": 0}
        victims = list(KINDS) if is_killed else []

        def forgotten() -> bool:
            if victims and gateway.running():
                os.kill(gateway.pids(victims.pop())[0], signal.SIGKILL)
            return not victims and {table: rows(gateway, table) for table in expected} == expected

        gateway.wait_for(forgotten, LOOKING_SECONDS, "what is past to be forgotten")
        gateway.wait_for(gateway.running, 30.0, "all actors")
        assert {job["aeTitle"] for job in gateway.jobs()} == {"KEPT", "FAULTED", "FAILING"}
        assert len(list((gateway.spool / "platform").iterdir())) == 2
        assert gateway.cli("trace", studies["EXPORTED"].uid, check=False).returncode == 1
        assert "kept" in gateway.cli("trace", studies["KEPT"].uid).stdout
        assert gateway.cli("jobs", "retry", "--all").stdout == "retry: 1 job\n"

        # It is a new study, as if it had never been here.
        send(gateway, studies["EXPORTED"], "EXPORTED")
        gateway.wait_for(lambda: [task["state"] for task in gateway.exports()] == ["Succeeded"], 60.0, "a new export")
        (job,) = gateway.wait_jobs(1, aeTitle="EXPORTED")
        assert job["instances"] == COUNT
        assert len(gateway.jobs()) == 4
