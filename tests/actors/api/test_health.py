"""Health in the original's shape, and metrics."""

from collections.abc import Iterator

import httpx
import pytest

from actors.api.health import SERVICES
from protocol import messages
from protocol.board import Intake, host_key
from protocol.ledger import Ledger
from protocol.states import GroupState, InstanceState, JobState, RunState
from tests.actors.api import rows
from tests.actors.api.surroundings import Supervisor, Surroundings


@pytest.fixture
def supervisor(running: Surroundings) -> Iterator[Supervisor]:
    """A supervisor all of whose actors run."""
    standing_in = Supervisor(running.launcher.runtime, running.all_running())
    yield standing_in
    standing_in.close()


@pytest.mark.parametrize("path", ["/health/live", "/Health/Ready"])
def test_healthy_only_when_all_run(running: Surroundings, supervisor: Supervisor, path: str) -> None:
    def seen() -> tuple[int, str, str]:
        answer = running.rest.get(path)
        return answer.status_code, answer.text, answer.headers["content-type"].partition(";")[0]

    healthy, unhealthy = (200, "Healthy", "text/plain"), (503, "Unhealthy", "text/plain")
    assert seen() == healthy
    assert supervisor.requests == [messages.GetStatus()]
    supervisor.status = running.all_running("submitter")
    assert seen() == unhealthy
    status = running.all_running()
    supervisor.status = messages.Status(
        actors=tuple(actor for actor in status.actors if actor.kind != "guardian"),
        active_associations=0,
        storage=status.storage,
    )
    assert seen() == unhealthy
    supervisor.status = messages.Refused(reason="no")
    assert seen() == unhealthy
    supervisor.status = None
    assert seen() == unhealthy


def test_a_draining_predecessor_is_no_fault(running: Surroundings, supervisor: Supervisor) -> None:
    status = running.all_running()
    leaving = messages.ActorStatus(
        name="receiver-1",
        kind="receiver",
        pid=2,
        state="draining",
        restarts=0,
        uptime_seconds=1.0,
        last_heartbeat_seconds=0.0,
    )
    supervisor.status = messages.Status(actors=(*status.actors, leaving), active_associations=0, storage=status.storage)
    assert running.rest.get("/health/live").text == "Healthy"
    assert running.rest.get("/health/status").json()["services"]["ScpService"] == "Running"


@pytest.mark.usefixtures("running")
def test_without_a_supervisor(rest: httpx.Client) -> None:
    assert (rest.get("/health/live").status_code, rest.get("/health/live").text) == (503, "Unhealthy")
    services = rest.get("/health/status").json()["services"]
    assert set(services.values()) == {"Unknown"}


def test_status(running: Surroundings, supervisor: Supervisor) -> None:
    """The original's keys first; what this version does not have is Unknown."""
    row = running.board.claim_row()
    assert row is not None
    try:
        running.board.receiver_row(row).claim_slot(host_key("10.0.0.1"), 10, 0)
        supervisor.status = running.all_running("guardian")
        assert running.rest.get("/health/status").json() == {
            "activeDimseConnections": 1,
            "services": {
                "SpaceReclaimerService": "Stopped",
                "JobSubmissionService": "Running",
                "DataRetrievalService": "Running",
                "ScpService": "Running",
                "ScuExportService": "Running",
                "DicomWebExportService": "Running",
                "processor": "Running",
                "extractor": "Running",
                "platform": "Running",
                "api": "Running",
            },
        }
    finally:
        running.board.clear_row(row)
    assert list(running.rest.get("/health/status").json()["services"]) == [service for service, _ in SERVICES]


def test_metrics(running: Surroundings, ledger: Ledger) -> None:
    """What the board and the ledger hold, in Prometheus' format."""
    with ledger.transaction():
        rows.job("waits")
        for job_id in ("done", "done-too"):
            rows.job(job_id)
            rows.submission(job_id, JobState.COMPLETED)
        rows.run("done", RunState.RUNNING)
        rows.group(state=GroupState.OPEN)
        rows.instance(1, state=InstanceState.QUARANTINED)
        rows.instance(2, state=InstanceState.DISCARDED)
    running.board.set_storage(Intake.PAUSED, 123, 456, is_short=False)
    try:
        answer = running.rest.get("/metrics")
    finally:
        running.board.set_storage(Intake.OPEN, 0, 0, is_short=False)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    values = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    told = {name.removeprefix("dicom_adapter_"): float(value) for name, value in values.items()}
    assert (
        told.items()
        >= {
            "associations_active": 0.0,
            "stored_bytes_total": 0.0,
            "free_bytes": 123.0,
            "reserved_bytes": 456.0,
            "intake_paused": 1.0,
            "ledger_up": 1.0,
            'jobs{state="Queued"}': 1.0,
            'jobs{state="Completed"}': 2.0,
            'jobs{state="Faulted"}': 0.0,
            'runs{state="Running"}': 1.0,
            "quarantined_instances": 1.0,
            "open_groups": 1.0,
        }.items()
    )
    assert running.rest.get("/metrics").status_code == 200, "asked again"
