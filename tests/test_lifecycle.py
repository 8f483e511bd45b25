"""From `run` to the last process's end: start, stop, a killed supervisor, and starts that cannot work."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway import Gateway
from tests.peers import echoscu, storescu, wait_for
from tests.samples import make_study

NewGateway = Callable[..., Gateway]


@pytest.mark.alone
def test_all_actors_run_within_8_seconds_and_sigterm_ends_them(new_gateway: NewGateway) -> None:
    gateway = new_gateway({"services.stopSeconds": 5})
    started = time.monotonic()
    gateway.start()
    assert time.monotonic() - started < 8.0
    kinds = {actor.kind for actor in gateway.status().actors}
    assert kinds == {
        "receiver",
        "extractor",
        "processor",
        "submitter",
        "platform",
        "retriever",
        "exporter",
        "guardian",
        "api",
    }

    stopped = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - stopped < 5.0 + 1.0


def test_killed_supervisor_leaves_nothing_and_the_next_run_works(new_gateway: NewGateway, tmp_path: Path) -> None:
    gateway = new_gateway({"services.stopSeconds": 5})
    gateway.start()
    gateway.add_source("MODALITY")
    gateway.add_aetitle("AGAIN", pipeline_none=gateway.add_pipeline("none", ["/bin/true"]))
    study = make_study(tmp_path / "study", "PAT-K", 5, rows=64, modality="MR")
    assert storescu(gateway.port, study.directory, called="AGAIN", calling="MODALITY").successes == 5

    gateway.kill_supervisor()
    wait_for(lambda: not gateway.left_over(), 5.0 + 2.0, "end of all actors after their supervisor's")

    gateway.start()
    (job,) = gateway.wait_jobs(1)
    assert job["instances"] == 5
    assert gateway.stop() == 0


def test_next_run_waits_for_the_actors_of_a_killed_supervisor(new_gateway: NewGateway) -> None:
    gateway = new_gateway({"services.stopSeconds": 5})
    gateway.start()
    gateway.kill_supervisor()
    gateway.start()
    assert gateway.stop() == 0


def test_killed_actor_is_replaced_and_the_others_stay(gateway: Gateway) -> None:
    before = {actor.name: actor.pid for actor in gateway.status().actors}
    killed = before["extractor-1"]
    assert killed is not None
    os.kill(killed, signal.SIGKILL)

    def replaced() -> bool:
        after = {actor.name: actor.pid for actor in gateway.status().actors}
        return after["extractor-1"] not in (None, killed) and gateway.running()

    gateway.wait_for(replaced, 20, "successor of the killed extractor")
    after = {actor.name: actor for actor in gateway.status().actors}
    assert after["extractor-1"].restarts == 1
    assert {name: actor.pid for name, actor in after.items() if name != "extractor-1"} == {
        name: pid for name, pid in before.items() if name != "extractor-1"
    }


def test_second_instance_on_the_same_storage_is_refused(gateway: Gateway, new_gateway: NewGateway) -> None:
    second = new_gateway({"storage.temporary": str(gateway.spool)})
    code, output = run_to_end(second)
    assert code == 78
    assert "in use by another dicom-adapter" in output
    assert "DicomAdapter.storage.temporary" in output
    assert_one_sentence(output)


def test_taken_port_is_explained(new_gateway: NewGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output = run_to_end(new_gateway({"dicom.scp.port": port}))
    assert code == 78
    assert "DicomAdapter.dicom.scp.port" in output
    assert str(port) in output
    assert_one_sentence(output)


def test_unusable_storage_is_explained(new_gateway: NewGateway, tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    code, output = run_to_end(new_gateway({"storage.temporary": str(in_the_way / "spool")}))
    assert code in (73, 78)
    assert "DicomAdapter.storage.temporary" in output
    assert_one_sentence(output)


def run_to_end(gateway: Gateway) -> tuple[int, str]:
    """Start a gateway that cannot work; returns its exit code and what it said."""
    gateway.launch()
    assert gateway.process is not None
    code = gateway.process.wait(30)
    return code, gateway.log_text()


def assert_one_sentence(output: str) -> None:
    said = [line for line in output.splitlines() if "dicom-adapter: " in line and "warning:" not in line]
    assert len(said) == 1, output
    assert "Traceback" not in output


def test_the_last_of_two_reloads_holds(new_gateway: NewGateway) -> None:
    """Although receivers of the first are still starting when the second comes."""
    gateway = new_gateway().start()
    gateway.add_aetitle("BRAIN", pipeline_x=gateway.add_pipeline("x", ["true"]))
    for rejects in (False, True):
        gateway.settings["dicom.scp.rejectUnknownSources"] = rejects
        gateway.reload()
    settled = "all that were replaced to have left"
    gateway.wait_for(lambda: gateway.log_text().count("actor_left actor=receiver") >= 4, 30.0, settled)
    for _ in range(4):
        assert echoscu(gateway.port, called="BRAIN", calling="NOBODY").rejection
