"""Exporting: objects a second and CPU time through our SCU and through DCMTK's storescu, to the same storescp.

DCMTK's programs run with Nagle's algorithm off (`TCP_NODELAY=1`, which changes both its ends) and on, as they come. Our
SCU runs in this process, as it does in the exporter; storescu is a process a round, as it is used.
"""

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from actors.exporter.scu import ScuDestination, ScuSender
from actors.exporter.sender import Outcome, OutgoingFile, Report
from bench.place import Place
from bench.report import Section, spread, table
from protocol.config.settings import Export, Scu
from tests.peers import Server, free_port
from tests.samples import make_study

_OBJECTS = 400
_ROWS = 512
_SETTINGS = Scu(
    ae_title="BENCH",
    log_dimse_datasets=False,
    log_data_pdus=False,
    maximum_number_of_associations=1,
    export=Export(maximum_retries=0, failure_threshold=0.0, poll_frequency_ms=500, agent="DICOMweb"),
)


@dataclass
class Series:
    """One sender to one storescp, round by round."""

    rates: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def add(self, seconds: float, cpu_seconds: float) -> None:
        """One more round."""
        self.rates.append(_OBJECTS / seconds)
        self.cpu_seconds.append(cpu_seconds)


def measure(place: Place) -> Section:
    """The part of the bench: both senders to both peers in turn, round after round; the first round is not counted."""
    section = Section("export", "Exporting, our SCU beside storescu")
    with place.in_memory() as directory, ExitStack() as stack:
        study = make_study(directory / "study", "PAT-BENCH", _OBJECTS, rows=_ROWS)
        files = list(study.files.values())
        peers = {nodelay: stack.enter_context(_storescp(directory, nodelay=nodelay)) for nodelay in (True, False)}
        results = {(sender, nodelay): Series() for nodelay in peers for sender in (_ours, _storescu)}
        for number in range(place.rounds + 1):
            # In turn from both ends: what comes behind a sender that mostly waits finds a machine that sleeps.
            for (sender, nodelay), series in list(results.items())[:: -1 if number % 2 else 1]:
                series_of_round = series if number else Series()
                series_of_round.add(*sender(peers[nodelay].port, files, nodelay=nodelay))
                place.tell(f"export round {number}: {sender.__name__} {nodelay} {series_of_round.rates[-1]:.0f}/s")
    for nodelay in peers:
        title = f"{_OBJECTS} CT objects (526 kB), storescp with Nagle's algorithm {'off' if nodelay else 'on'}"
        ours, theirs = results[_ours, nodelay], results[_storescu, nodelay]
        section.tables.append(table(title, _COLUMNS, [_row("our SCU", ours, theirs), _row("storescu", theirs, theirs)]))
    return section


_COLUMNS = ("sender", "instances/s", "ratio to storescu", "CPU s", "ratio to storescu")


def _row(name: str, series: Series, base: Series) -> tuple[str, str, str, str, str]:
    return (
        name,
        spread(series.rates),
        f"{_ratio(series.rates, base.rates):.2f}",
        spread(series.cpu_seconds, 2),
        f"{_ratio(series.cpu_seconds, base.cpu_seconds):.2f}",
    )


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def _storescp(directory: Path, *, nodelay: bool) -> Server:
    received = directory / f"received-{nodelay}"
    received.mkdir()
    port = free_port()
    command = ["storescp", "--max-pdu", "131072", "-od", received, "+xa", "+B", str(port)]
    return Server(command, port, directory / f"storescp-{nodelay}.log", nodelay=nodelay)


def _ours(port: int, files: Sequence[Path], *, nodelay: bool) -> tuple[float, float]:
    """Seconds and CPU seconds."""
    del nodelay  # it is always off for us
    delivered: list[Report] = []
    sender = ScuSender(ScuDestination(name="BENCH", ae_title="BENCH", host="127.0.0.1", port=port), _SETTINGS)
    outgoing = [OutgoingFile(uri=path.name, path=str(path)) for path in files]
    began, cpu = time.monotonic(), time.process_time()
    sender.deliver(outgoing, delivered.append, threading.Event())
    taken = time.monotonic() - began, time.process_time() - cpu
    if [report.outcome for report in delivered] != [Outcome.DELIVERED] * len(files):
        raise RuntimeError("not everything was delivered")
    return taken


def _storescu(port: int, files: Sequence[Path], *, nodelay: bool) -> tuple[float, float]:
    """Seconds and CPU seconds, its start included."""
    environ = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    if nodelay:
        environ["TCP_NODELAY"] = "1"
    command = ["storescu", "--max-pdu", "131072", "+sd", "-xe", "-aet", "BENCH", "-aec", "BENCH"]
    began = time.monotonic()
    process = subprocess.Popen([*command, "127.0.0.1", str(port), str(files[0].parent)], env=environ)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"storescu ended with {process.returncode}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime
