"""An actor in trouble, again and again or for want of memory: it is shown, backed off, replaced, and nobody else's."""

import contextlib
import fcntl
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.messages import ActorStatus
from tests.gateway import Gateway
from tests.peers import storescu, wait_for
from tests.samples import make_study

OBJECTS = 10


@contextlib.contextmanager
def endpoint_taken(gateway: Gateway, endpoint: str, holder: int) -> Iterator[None]:
    """Kill who has an endpoint and hold it, so that each successor ends with exit code 73."""
    with (gateway.runtime / f"{endpoint}.lock").open("r+") as lock:

        def take() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        os.kill(holder, signal.SIGKILL)
        wait_for(take, 5, f"lock of {endpoint}", interval=0.001)
        yield


def pids_but_of(gateway: Gateway, kind: str) -> dict[str, int | None]:
    return {actor.name: actor.pid for actor in gateway.status().actors if actor.kind != kind}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that each test leaves running."""
    with Gateway(tmp_path_factory.mktemp("trouble"), tolerated=("actor_failed",)) as running:
        running.add_source("MODALITY")
        running.add_aetitle("TROUBLE", pipeline_none=running.add_pipeline("none", ["/bin/true"]))
        yield running


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make_study(tmp_path / "study", "PAT-T", OBJECTS, rows=64, modality="MR").directory


def send(gateway: Gateway, study: Path) -> None:
    assert storescu(gateway.port, study, called="TROUBLE", calling="MODALITY").successes == OBJECTS


def submitter(gateway: Gateway) -> ActorStatus:
    (found,) = [actor for actor in gateway.status().actors if actor.kind == "submitter"]
    return found


def test_a_crash_loop_backs_off_is_shown_and_touches_nobody_else(shared: Gateway, study: Path) -> None:
    others = pids_but_of(shared, "submitter")
    first, restarts, jobs = submitter(shared).pid, submitter(shared).restarts, len(shared.jobs())
    logged = len(shared.log_text())
    assert first is not None
    with endpoint_taken(shared, "jobs.submitter", first):
        send(shared, study)

        def backed_off() -> bool:
            shown = submitter(shared)
            return shown.restarts >= restarts + 5 and shown.state == "backoff" and "exit code 73" in shown.detail

        shared.wait_for(backed_off, 60, "crash loop in `status`")
        lines = [line for line in shared.log_text()[logged:].splitlines() if "actor_died" in line]
        pauses = [float(line.rpartition("=")[2]) for line in lines]
        assert pauses == sorted(pauses)
        assert pauses[-1] >= 8 * pauses[0]
        told = json.loads(shared.cli("status", "--json").stdout)
        (shown,) = [actor for actor in told["actors"] if actor["kind"] == "submitter"]
        assert shown["restarts"] >= restarts + 5
        assert shown["state"] in ("backoff", "starting")
        assert shared.rest.get("/health/ready").status_code == 503
        assert shared.rest.get("/health/status").json()["services"]["JobSubmissionService"] == "Stopped"
        assert pids_but_of(shared, "submitter") == others

    (job, *_) = shared.wait_jobs(jobs + 1)
    assert job["instances"] == OBJECTS
    shared.wait_ready()
    # On a busy machine the supervisor may not have answered the API in time.
    shared.wait_for(lambda: shared.rest.get("/health/ready").status_code == 200, 10, "health of the gateway")
    assert pids_but_of(shared, "submitter") == others


def test_an_actor_that_gets_no_more_memory_dies_and_is_replaced(shared: Gateway, study: Path) -> None:
    """Its first step of a job wants a thread, and a thread wants a stack."""
    shared.cli("restart", "submitter")
    others = pids_but_of(shared, "submitter")
    poor, restarts, jobs = submitter(shared).pid, submitter(shared).restarts, len(shared.jobs())
    assert poor is not None
    size = int(Path(f"/proc/{poor}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(poor, resource.RLIMIT_AS, (size, size))
    send(shared, study)

    (job, *_) = shared.wait_jobs(jobs + 1)
    assert job["instances"] == OBJECTS
    shown = submitter(shared)
    assert shown.pid != poor
    assert (shown.restarts, shown.state) == (restarts + 1, "running")
    assert pids_but_of(shared, "submitter") == others
