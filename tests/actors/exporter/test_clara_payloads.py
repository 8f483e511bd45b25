"""A task's files when its payload is on Clara Platform: downloaded, and each failure that of one file."""

import threading
from pathlib import Path

import pytest

from actors.exporter.payloads import Payloads
from protocol.errors import UnavailableError
from protocol.ledger import ExportTask, Ledger
from protocol.spool import Spool
from tests.clara.faults import Fault
from tests.clara.server import ClaraServer
from tests.protocol.platforms.opening import opened


def test_files_are_downloaded_one_by_one(tmp_path: Path) -> None:
    """One that is not there, one that the platform breaks off, one whose name leads out: the others are there whole."""
    stopping = threading.Event()
    spool = Spool(tmp_path / "spool")
    spool.create()
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    contents = {"out/PAT-1/1.dcm": b"1" * 200_000, "out/2.dcm": b"2", "out/3.dcm": b"3"}
    with ClaraServer(tmp_path / "clara") as clara, opened(clara.endpoint, tmp_path, stopping) as platform:
        job = clara.store.create_job("job", clara.store.add_pipeline("covid"), 2, {})
        for name, data in contents.items():
            clara.store.write(job["payload_id"], name, iter([data]))
        payloads = Payloads(spool, platform, lambda: True)
        task = ExportTask(task_id="task", job_id=job["job_id"], payload_id=job["payload_id"], origin="clara")
        clara.faults.add("Payloads/Download", Fault.REFUSE, skip=4)
        bad = ["out/none.dcm", "out/broken.dcm", "../../jobs/x"]
        fetched = payloads.fetch(task, [*contents, *bad], stopping)
        assert {uri: Path(path).read_bytes() for uri, path in fetched.paths.items()} == contents
        assert set(fetched.problems) == set(bad)
        assert "INTERNAL" in fetched.problems["out/broken.dcm"]
        assert "PAT-1" not in str(fetched.problems)
        payloads.discard("task")
        assert not list((spool.root / "exports").iterdir())
        clara.faults.add("Payloads/Download", Fault.REFUSE, times=2, skip=1, code="UNAVAILABLE")
        with pytest.raises(UnavailableError):  # in the middle: the task waits, and no file has failed
            payloads.fetch(task, list(contents), stopping)
        clara.close()
        with pytest.raises(UnavailableError):
            payloads.fetch(task, ["out/2.dcm"], stopping)
    ledger.close()
