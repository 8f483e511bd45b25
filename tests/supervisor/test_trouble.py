"""An actor in trouble, again and again or for want of memory: it is shown, backed off, replaced, and nobody else's."""

import contextlib
import fcntl
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.gateway import Gateway
from tests.peers import storescu, wait_for
from tests.samples import make_study

NewGateway = Callable[..., Gateway]
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


def prepare(gateway: Gateway, directory: Path) -> Path:
    gateway.add_source("MODALITY")
    gateway.add_aetitle("TROUBLE", pipeline_none=gateway.add_pipeline("none", ["/bin/true"]))
    return make_study(directory / "study", "PAT-T", OBJECTS, rows=64, modality="MR").directory


def send(gateway: Gateway, study: Path) -> None:
    assert storescu(gateway.port, study, called="TROUBLE", calling="MODALITY").successes == OBJECTS


def test_a_crash_loop_backs_off_is_shown_and_touches_nobody_else(gateway: Gateway, tmp_path: Path) -> None:
    study = prepare(gateway, tmp_path)
    others = pids_but_of(gateway, "submitter")
    (submitter,) = gateway.pids("submitter")
    with endpoint_taken(gateway, "jobs.submitter", submitter):
        send(gateway, study)

        def backed_off() -> bool:
            (shown,) = [actor for actor in gateway.status().actors if actor.kind == "submitter"]
            return shown.restarts >= 5 and shown.state == "backoff" and "exit code 73" in shown.detail

        gateway.wait_for(backed_off, 30, "crash loop in `status`")
        pauses = [float(line.rpartition("=")[2]) for line in gateway.log_text().splitlines() if "actor_died" in line]
        assert pauses == sorted(pauses)
        assert pauses[-1] > 8 * pauses[0]
        told = json.loads(gateway.cli("status", "--json").stdout)
        (shown,) = [actor for actor in told["actors"] if actor["kind"] == "submitter"]
        assert shown["restarts"] >= 5
        assert shown["state"] in ("backoff", "starting")
        assert gateway.rest.get("/health/ready").status_code == 503
        assert gateway.rest.get("/health/status").json()["services"]["JobSubmissionService"] == "Stopped"
        assert pids_but_of(gateway, "submitter") == others

    (job,) = gateway.wait_jobs(1)
    assert job["instances"] == OBJECTS
    assert gateway.rest.get("/health/ready").status_code == 200
    assert pids_but_of(gateway, "submitter") == others


def test_an_actor_that_gets_no_more_memory_dies_and_is_replaced(new_gateway: NewGateway, tmp_path: Path) -> None:
    """Its first step of a job wants a thread, and a thread wants a stack."""
    gateway = new_gateway(tolerated=("actor_failed",)).start()
    study = prepare(gateway, tmp_path)
    others = pids_but_of(gateway, "submitter")
    (submitter,) = gateway.pids("submitter")
    size = int(Path(f"/proc/{submitter}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(submitter, resource.RLIMIT_AS, (size, size))
    send(gateway, study)

    (job,) = gateway.wait_jobs(1)
    assert job["instances"] == OBJECTS
    (shown,) = [actor for actor in gateway.status().actors if actor.kind == "submitter"]
    assert (shown.restarts, shown.state) == (1, "running")
    assert pids_but_of(gateway, "submitter") == others
    assert gateway.stop() == 0
