"""What tests of senders share: files to send, what was reported, settings."""

import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from actors.exporter.sender import DestinationDownError, OutgoingFile, Report, Sender
from protocol.config.settings import Export, Scu


def scu_settings(*, log_datasets: bool = False, log_pdus: bool = False) -> Scu:
    """The SCU's section of the settings."""
    return Scu(
        ae_title="OURSELVES",
        log_dimse_datasets=log_datasets,
        log_data_pdus=log_pdus,
        maximum_number_of_associations=8,
        export=Export(maximum_retries=3, failure_threshold=0.5, poll_frequency_ms=500, agent="DICOMweb"),
    )


class Delivery:
    """One call of `deliver`, and what came of it.

    Args:
        sender: of the destination.
        paths: what is sent; a path is also its URI.
        stop_after: reports after which the call is asked to end.
    """

    def __init__(self, sender: Sender, paths: Iterable[Path], *, stop_after: int = 0) -> None:
        self.reports: list[Report] = []
        self.down = ""
        self._stopping = threading.Event()
        self._stop_after = stop_after
        files = [OutgoingFile(uri=str(path), path=str(path)) for path in paths]
        try:
            sender.deliver(files, self._report, self._stopping)
        except DestinationDownError as error:
            self.down = str(error)
        assert len({report.uri for report in self.reports}) == len(self.reports), "a file was reported twice"

    def _report(self, report: Report) -> None:
        self.reports.append(report)
        if len(self.reports) == self._stop_after:
            self._stopping.set()

    @property
    def counts(self) -> dict[str, int]:
        """How many files had which outcome."""
        return dict(Counter(report.outcome.value for report in self.reports))

    def uris(self, outcome: str = "delivered") -> list[str]:
        """Files with an outcome, as they were reported."""
        return [report.uri for report in self.reports if report.outcome.value == outcome]

    @property
    def reasons(self) -> set[str]:
        """The different reasons that were reported."""
        return {report.reason for report in self.reports} - {""}
