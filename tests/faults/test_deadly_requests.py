"""A request whose rounds end the retriever: it is given up, and the others go on."""

import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler

import pytest

from actors.retriever.pending import MOST_DEATHS
from tests.faults.victims import QUICK
from tests.gateway import Gateway
from tests.http_peers import FhirServer
from tests.inference import body, fhir, resources, status, wait_succeeded
from tests.peers import wait_for

NewGateway = Callable[..., Gateway]
FILES = 5


class Deadly(FhirServer):
    """Kills the retriever that asks for certain resources.

    Args:
        gateway: whose retriever.
        is_deadly: tells of which.
    """

    def __init__(self, gateway: Gateway, is_deadly: Callable[[str], bool]) -> None:
        self._gateway = gateway
        self.is_deadly = is_deadly
        self.killed: list[int] = []
        super().__init__()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Kill, or answer."""
        if not self.is_deadly(request.path.rpartition("/")[2]):
            super().answer(request)
            return
        for pid in self._gateway.pids("retriever"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)


@pytest.fixture
def gateway(new_gateway: NewGateway) -> Gateway:
    return new_gateway(environ=QUICK).start()


def submit(gateway: Gateway, transaction: str, pipeline: str, peer: FhirServer, *identifiers: str) -> None:
    """Until it is accepted, since the retriever may just have been killed."""
    for identifier in identifiers:
        peer.add("Patient", identifier)
    wanted = [resources(*(("Patient", identifier) for identifier in identifiers))]
    request = body(transaction, pipeline, wanted, [fhir(f"{peer.url}/base")])
    gateway.wait_for(
        lambda: gateway.rest.post("/api/inference", json=request).status_code == 200,
        60.0,
        f"acceptance of {transaction}",
    )


def rows(gateway: Gateway, table: str) -> int:
    with closing(sqlite3.connect(f"file:{gateway.ledger}?mode=ro", uri=True, timeout=10.0)) as ledger:
        return int(ledger.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_it_is_given_up_and_the_others_go_on(gateway: Gateway) -> None:
    """After three processes; the retry begins again, and succeeds where nothing is deadly any more."""
    pipeline = gateway.add_pipeline("true", [sys.executable, "-c", ""])
    with Deadly(gateway, lambda identifier: identifier == "deadly") as peer:
        submit(gateway, "DEADLY", pipeline, peer, "deadly")
        for number in range(3):
            submit(gateway, f"GOOD-{number}", pipeline, peer, f"good-{number}")
        gateway.wait_for(lambda: status(gateway, "DEADLY")["dicom"]["status"] == "Fail", 90.0, "the end of it")
        for number in range(3):
            wait_succeeded(gateway, f"GOOD-{number}", 60.0)
        assert len(peer.killed) == MOST_DEATHS
        assert "3 processes in a row" in status(gateway, "DEADLY")["message"]
        assert "retrieval_given_up" in gateway.log_text()
        (job,) = gateway.wait_for(lambda: gateway.jobs(state="Faulted"), 30.0, "the fault of its job")

        peer.is_deadly = lambda _: False
        gateway.wait_ready(60.0)
        gateway.cli("jobs", "retry", job["jobId"])
        wait_succeeded(gateway, "DEADLY", 60.0)
        assert len(peer.killed) == MOST_DEATHS


def test_what_brings_files_is_not_given_up(gateway: Gateway) -> None:
    """However often the retriever ends meanwhile."""
    pipeline = gateway.add_pipeline("true", [sys.executable, "-c", ""])
    seen: set[str] = set()

    def is_deadly(identifier: str) -> bool:
        """At first sight of each, when what former processes have brought is on record, and the last one's on disk."""
        if identifier in seen:
            return False
        wait_for(lambda: rows(gateway, "retrieval") >= len(seen) - 1, 30.0, "the record of those before")
        seen.add(identifier)
        return True

    with Deadly(gateway, is_deadly) as peer:
        submit(gateway, "LONG", pipeline, peer, *(f"part-{number}" for number in range(FILES)))
        wait_succeeded(gateway, "LONG", 120.0)
        assert len(peer.killed) == FILES
    assert (status(gateway, "LONG")["dicom"]["status"], rows(gateway, "retrieval")) == ("Success", FILES)


def test_a_restart_is_no_death(gateway: Gateway) -> None:
    """However often the retriever is restarted on purpose while a source keeps it waiting."""
    pipeline = gateway.add_pipeline("true", [sys.executable, "-c", ""])
    go_on, asked = threading.Event(), threading.Semaphore(0)

    class Silent(FhirServer):
        def answer(self, request: BaseHTTPRequestHandler) -> None:
            asked.release()
            go_on.wait(120.0)
            super().answer(request)

    with Silent() as peer:
        submit(gateway, "SLOW", pipeline, peer, "slow")
        for _ in range(MOST_DEATHS + 1):
            assert asked.acquire(timeout=30.0)
            gateway.cli("restart", "retriever")
        assert asked.acquire(timeout=30.0)
        go_on.set()
        wait_succeeded(gateway, "SLOW", 60.0)
        assert "retrieval_given_up" not in gateway.log_text()
        assert gateway.log_text().count("actor_died actor=retriever") == 0
