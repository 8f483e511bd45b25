"""What results services list: tasks that can be kept, those that no ledger could hold, those of a lost key."""

import time
from pathlib import Path

import pytest

from actors.exporter import destinations
from actors.exporter import records as records_module
from actors.exporter.records import Records
from actors.exporter.results.base import Offer
from actors.exporter.results.clara import ClaraResults
from actors.exporter.results.embedded import EmbeddedResults
from protocol.availability import Availability
from protocol.ledger import ExportTask, InferenceRequest, Ledger, Result
from protocol.logs import EventLogger
from protocol.vault import Vault
from tests.actors.exporter.service import ResultsService
from tests.actors.launcher import Launcher, wait_until


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


def test_a_result_is_looked_at_once_and_one_without_files_never(tmp_path: Path) -> None:
    """An hour's results would otherwise be read again every few seconds."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    (tmp_path / "launcher").mkdir()
    results = EmbeddedResults(Launcher(tmp_path / "launcher").settings.dicom.scu, Vault(tmp_path))

    def add(run_id: str, files: list[str]) -> None:
        Result.create(
            run_id=run_id,
            job_id=run_id,
            payload_id=run_id,
            pipeline_id="p",
            directory=str(tmp_path),
            files=files,
            exports=["MYPACS"],
            created_ns=time.time_ns(),
        )

    add("first", ["a.dcm"])
    add("empty", [])
    assert [offer.job_id for offer in results.look()] == ["first"]
    add("second", ["a.dcm"])
    assert [offer.job_id for offer in results.look()] == ["second"]
    # A successor finds all of them, and the ledger says which have tasks.
    successor = EmbeddedResults(Launcher(tmp_path / "launcher").settings.dicom.scu, Vault(tmp_path))
    assert {offer.job_id for offer in successor.look()} == {"first", "second"}
    ledger.close()


def test_what_waits_is_asked_for_again_after_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And when its time has come; in between the ledger is left alone."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    (tmp_path / "launcher").mkdir()
    scu = Launcher(tmp_path / "launcher").settings.dicom.scu
    records = Records(ledger, Availability(ledger, EventLogger("adapter.test")))
    assert records.waited_for() == []
    with monkeypatch.context() as patched:
        patched.setattr(records_module, "tuples", None)
        assert records.waited_for() == []
    offer = Offer(
        task_id="t", job_id="j", payload_id="p", pipeline_id="p", agent=scu.ae_title, parameters='"A"', uris=("a.dcm",)
    )
    records.record([offer], "embedded", scu)
    assert records.waited_for() == ["A"]
    (row,) = records.begin(["t"])
    records.put_back(row, "not now", 0.05)
    wait_until(lambda: records.waited_for() == ["A"], "its time")
    (row,) = records.begin(["t"])
    records.put_back(row, "not now", 90.0)
    assert (records.waited_for(), records.due("A", 10)) == ([], [])
    # No pause is so long: the clock was set back since.
    ExportTask.update(next_try_ns=time.time_ns() + 7200 * 1_000_000_000).execute()
    assert records.due("A", 10) == ["t"]
    ledger.close()
