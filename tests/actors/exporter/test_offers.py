"""What results services list: tasks that can be kept, those that no ledger could hold, those of a lost key."""

import time
from pathlib import Path

from actors.exporter import destinations
from actors.exporter.results.clara import ClaraResults
from actors.exporter.results.embedded import EmbeddedResults
from protocol.ledger import ExportTask, InferenceRequest, Ledger, Result
from protocol.logs import EventLogger
from protocol.vault import Vault
from tests.actors.exporter.service import ResultsService
from tests.actors.launcher import Launcher


def test_what_no_ledger_can_hold_is_left_out() -> None:
    with ResultsService() as service:
        results = ClaraResults(service.url, EventLogger("adapter.test"))
        for bad in ("a\0b", "\0"):
            service.add(bad, ["1.dcm"], "")
            service.add("payload", ["1.dcm", bad], "")
            service.add("payload", ["1.dcm"], bad)
        good = service.add("payload", ["1.dcm"], '"MYPACS"', retries=10**30)
        (offer,) = results.pending("ClaraSCU", 100)
        assert offer.task_id == good
        assert 0 < offer.retries < 2**31
        results.close()


def test_a_request_whose_secrets_cannot_be_opened_holds_up_no_result(tmp_path: Path) -> None:
    """Its own task says why it fails."""
    for name in ("old", "new", "launcher"):
        (tmp_path / name).mkdir()
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    vault = Vault(tmp_path / "new")
    now = time.time_ns()
    sealed = Vault(tmp_path / "old").seal("[]")
    InferenceRequest.create(
        transaction_id="T",
        job_id="locked",
        job_name="name",
        pipeline_id="p",
        priority="normal",
        digest="",
        request=sealed,
        outputs=sealed,
        created_ns=now,
        updated_ns=now,
    )
    for job_id, exports in (("locked", []), ("other", ["MYPACS"])):
        common = {"run_id": job_id, "job_id": job_id, "payload_id": job_id, "pipeline_id": "p", "created_ns": now}
        Result.create(directory=str(tmp_path), files=["a.dcm"], exports=exports, **common)
    scu = Launcher(tmp_path / "launcher").settings.dicom.scu
    offers = {offer.job_id: offer for offer in EmbeddedResults(scu, vault).look()}
    assert offers.keys() == {"locked", "other"}
    task = ExportTask(job_id="locked", payload_id="locked", transport=destinations.DICOMWEB, parameters="")
    assert "another key" in destinations.route(task, vault).problem
    ledger.close()
