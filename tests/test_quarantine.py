"""Instances that cannot be described are kept with their reason, until a person releases or discards them."""

import contextlib
import json
import os
import signal
import sqlite3
from pathlib import Path

import pydicom

from actors.processor.quarantine import RELEASED
from tests.gateway import Gateway
from tests.peers import storescu
from tests.samples import make_study


def test_released_and_discarded(gateway: Gateway, tmp_path: Path) -> None:
    gateway.add_source("MODALITY")
    pipeline = gateway.add_pipeline("none", ["/bin/true"])
    gateway.add_aetitle("STATION", groupBy="0008,1010", pipeline_none=pipeline)
    study = make_study(tmp_path / "study", "PAT-Q", 3, rows=64, modality="MR")
    for path in study.files.values():
        dataset = pydicom.dcmread(path)
        del dataset.StationName
        dataset.save_as(path)
    assert storescu(gateway.port, study.directory, called="STATION", calling="MODALITY").successes == 3

    def quarantined() -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(gateway.cli("quarantine", "list", "--json").stdout)
        return found

    gateway.wait_for(lambda: len(quarantined()) == 3, 20, "three instances in quarantine")
    released, discarded, deleted = quarantined()
    assert released["aeTitle"] == "STATION"
    assert "0008" in released["reason"]
    assert "PAT-Q" not in released["reason"]
    assert released["id"] in gateway.cli("quarantine", "list").stdout

    (file,) = gateway.spool.glob(f"instances/*/{deleted['id']}.dcm")
    file.unlink()
    refused = gateway.cli("quarantine", "release", deleted["id"], check=False)
    assert refused.returncode == 1
    assert "its file is gone" in refused.stderr
    # One that was released before its file went says so after a restart, and may be discarded.
    with contextlib.closing(sqlite3.connect(gateway.ledger)) as ledger, ledger:
        ledger.execute("UPDATE instance SET reason = ? WHERE identifier LIKE ?", (RELEASED, f"%/{deleted['id']}"))
    (pid,) = gateway.pids("processor")
    os.kill(pid, signal.SIGKILL)
    gateway.wait_for(
        lambda: any("its file is gone" in each["reason"] for each in quarantined()), 20, "a reason for it to be there"
    )
    gateway.wait_for(gateway.running, 20, "all actors")
    gateway.cli("quarantine", "discard", deleted["id"])
    gateway.cli("quarantine", "release", released["id"])
    gateway.cli("quarantine", "discard", discarded["id"])
    (job,) = gateway.wait_jobs(1)
    assert job["instances"] == 1
    assert quarantined() == []
    again = gateway.cli("quarantine", "discard", discarded["id"], check=False)
    assert again.returncode == 1
