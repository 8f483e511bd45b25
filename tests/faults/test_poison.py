"""An instance that ends every extractor, while nothing else comes: it is kept, given up, and may be released."""

import json
from pathlib import Path

import pytest

from tests.faults.scu import SUCCESS, Association, digest, make_dataset
from tests.faults.trial import AE_TITLE, Trial
from tests.samples import new_uid


@pytest.mark.soak
def test_it_is_quarantined_and_released(tmp_path: Path) -> None:
    with Trial(tmp_path) as trial:
        gateway, uid = trial.gateway, new_uid()
        data = make_dataset(uid, new_uid(), "PAT-POISON", b"pixels")
        trial.points.arm("extractor.reading", "kill")
        association = Association(gateway.port, called=AE_TITLE, calling="MODALITY")
        assert association.store(uid, data) == SUCCESS
        association.release()
        killed: set[int] = set()

        def given_up() -> bool:
            pid = trial.points.taken("extractor.reading")
            if pid is not None and pid not in killed:
                killed.add(pid)
                trial.points.arm("extractor.reading", "kill")
            return "instance_given_up" in gateway.log_text()

        gateway.wait_for(given_up, 90.0, "end of the tries")
        assert len(killed) == 3
        trial.points.disarm("extractor.reading")

        def quarantined() -> list[dict[str, str]]:
            found: list[dict[str, str]] = json.loads(gateway.cli("quarantine", "list", "--json").stdout)
            return found

        (kept,) = gateway.wait_for(quarantined, 30.0, "an instance in quarantine")
        assert kept["reason"] == "3 extractors ended while they read it"
        assert kept["aeTitle"] == AE_TITLE
        (file,) = (gateway.spool / "instances").glob("*/*.dcm")
        assert file.stem == kept["id"]
        assert file.read_bytes().endswith(data)
        gateway.wait_ready()
        assert {actor.name: actor.state for actor in gateway.status().actors}["extractor-1"] == "running"

        gateway.cli("quarantine", "release", kept["id"])
        trial.settle()
        (record,) = trial.records[0].iterdir()
        assert record.read_text() == f"{uid} {digest(data)}\n"
