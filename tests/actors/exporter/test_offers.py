"""What a results service lists: tasks that can be kept, and those that no ledger could hold."""

from actors.exporter.results.clara import ClaraResults
from protocol.logs import EventLogger
from tests.actors.exporter.service import ResultsService


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
