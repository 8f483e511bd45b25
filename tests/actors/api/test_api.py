"""The process itself: its life in asyncio's loop, its sockets, and the ledger that may be away."""

import signal
import socket
import sqlite3
import textwrap
import threading
import time
from pathlib import Path

import httpx
import pytest

from protocol import messages, migrations
from protocol.access import AccessFile, AccessList, AeTitleRule, SourceRule
from protocol.ledger import AeTitle, Ledger
from tests import plug_ins
from tests.actors.api.rows import SECOND, START
from tests.actors.api.surroundings import Surroundings
from tests.actors.launcher import Launcher, wait_until
from tests.peers import free_port

SOURCE = {"aeTitle": "MYPACS", "hostIp": "10.20.30.1"}


def test_beats_and_ends(tmp_path: Path) -> None:
    """It reports ready once it serves, beats from its loop, and a drain ends it with code 0."""
    with Surroundings(tmp_path, owners=False) as running:
        assert running.rest.get("/api/config/sourceaetitle").status_code == 200

        def beats() -> int:
            return sum(isinstance(message, messages.Heartbeat) for message in running.api.told)

        running.api.wait_for(lambda: beats() >= 2, "two heartbeats")
        running.api.drain(10.0)
        assert running.api.wait_ended() == 0
        assert messages.Draining() in running.api.told


@pytest.mark.parametrize("how", ["SIGTERM", "supervisor gone"])
def test_other_ends(tmp_path: Path, how: str) -> None:
    with Surroundings(tmp_path, owners=False) as running:
        if how == "SIGTERM":
            running.api.process.send_signal(signal.SIGTERM)
        else:
            running.api.abandon()
        assert running.api.wait_ended() == 0


def test_request_under_way_is_answered(tmp_path: Path) -> None:
    """A drain lets the answer out that a client waits for."""
    with Surroundings(tmp_path) as running:
        entered, release = threading.Event(), threading.Event()

        def hold(_: messages.Message) -> messages.Message:
            entered.set()
            release.wait(20.0)
            return messages.Done(affected=5)

        assert running.owners is not None
        running.owners.answer = hold
        answers: list[httpx.Response] = []
        client = threading.Thread(target=lambda: answers.append(running.rest.post("/api/jobs/retry", json={})))
        client.start()
        assert entered.wait(20.0)
        running.api.drain(20.0)
        running.api.wait_for(lambda: messages.Draining() in running.api.told, "its drain")
        wait_until(lambda: refused(running.port), "a closed port")
        release.set()
        client.join(20.0)
        assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"affected": 5})]
        assert running.api.wait_ended() == 0


def refused(port: int) -> bool:
    """Whether nobody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_half_a_request_does_not_hold_up_a_drain(tmp_path: Path) -> None:
    with Surroundings(tmp_path, owners=False) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=30.0) as connection:
            connection.sendall(b"GET / HT")
            running.rest.get("/health/status")
            started = time.monotonic()
            running.api.drain(10.0)
            assert running.api.wait_ended() == 0
        assert time.monotonic() - started < 9.0


def test_taken_port(tmp_path: Path) -> None:
    """One sentence with the remedy, and the code of what cannot be created."""
    with Surroundings(tmp_path, owners=False) as running:
        second = running.launcher.start("api", ready=False)
        assert second.wait_ended() == 73
        assert "DicomAdapter.api.port" in second.log_text()


def test_unavailable_ledger(tmp_path: Path) -> None:
    """Without the ledger health and the board are told, the old access list stays; when it comes, all works."""
    place = tmp_path / "not" / "yet"
    spool = tmp_path / "spool"
    spool.mkdir()
    kept = AccessList(sources=(SourceRule(ae_title="OLD", host_ip="h"),))
    AccessFile(spool / "access.json").replace(kept)
    database = f"ConnectionStrings.DicomAdapterDatabase=Data Source={place / 'ledger.db'}"
    with Surroundings(tmp_path, database, owners=False) as running:
        assert running.rest.get("/health/live").text == "Unhealthy"
        assert "dicom_adapter_ledger_up 0.0" in running.rest.get("/metrics").text
        answer = running.rest.post("/api/config/sourceaetitle", json=SOURCE)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert str(place) in answer.json()["detail"]
        assert AccessFile(running.access).current() == kept
        place.mkdir(parents=True)
        wait_until(lambda: running.rest.post("/api/config/sourceaetitle", json=SOURCE).status_code == 201, "the ledger")
        assert AccessFile(running.access).current().sources == (SourceRule(ae_title="MYPACS", host_ip="10.20.30.1"),)


def test_newer_ledger(tmp_path: Path) -> None:
    """It ends with the configuration's code, so that it is not started again and again."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("UPDATE schema_version SET version = ?", (migrations.latest() + 1,))
    database.close()
    with Launcher(tmp_path, f"DicomAdapter.api.port={free_port()}") as launcher:
        assert launcher.start("api", ready=False).wait_ended() == 78


def test_access_is_brought_up_at_start(tmp_path: Path) -> None:
    """What a crash left between commit and file is mended, garbage is replaced, and long deleted titles go."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    columns = {
        "processor": "aetitle",
        "processor_settings": {"pipeline-a": "p"},
        "created_ns": START,
        "updated_ns": START,
    }
    now = time.time_ns()
    with ledger.transaction():
        AeTitle.create(name="A", ae_title="A", **columns)
        AeTitle.create(name="B", ae_title="B", deleted_ns=now - 10 * SECOND, **columns)
        AeTitle.create(name="C", ae_title="C", deleted_ns=START, **columns)
    ledger.close()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "access.json").write_text("{")
    with Surroundings(tmp_path, owners=False) as running:
        access = AccessFile(running.access)

        def rules() -> dict[str, bool]:
            return {rule.ae_title: rule.accepting for rule in access.current().ae_titles}

        assert rules().items() >= {"A": True, "B": False}.items()
        running.api.wait_for_log("deleted_forgotten ae_titles=1")
        running.rest.post("/api/config/sourceaetitle", json=SOURCE)
        assert rules() == {"A": True, "B": False}


def test_access_that_somebody_deletes_empties_or_replaces(tmp_path: Path) -> None:
    """It is written anew by itself; until then nobody is rejected for long."""
    with Surroundings(tmp_path) as running:
        source = {"aeTitle": "MYPACS", "hostIp": "10.20.30.1"}
        assert running.rest.post("/api/config/sourceaetitle", json=source).status_code == 201
        right = running.access.read_bytes()
        AccessFile(running.access).replace(AccessList())
        wait_until(lambda: running.access.read_bytes() == right, "the access list instead of an old one")
        running.access.write_bytes(b"")
        wait_until(lambda: running.access.read_bytes() == right, "the access list instead of an empty file")
        running.access.unlink()
        wait_until(lambda: running.access.exists() and running.access.read_bytes() == right, "the access list")


def test_access_that_cannot_be_written(tmp_path: Path) -> None:
    """The change is recorded, the answer says what is missing, and it is made up for when there is space again."""
    with Surroundings(tmp_path, owners=False) as running:
        running.access.unlink()
        running.access.mkdir()
        answer = running.rest.post("/api/config/sourceaetitle", json=SOURCE)
        assert (answer.status_code, "it is tried again" in answer.json()["detail"]) == (503, True)
        assert running.rest.get("/api/config/sourceaetitle").json() == [SOURCE]
        running.access.rmdir()
        access = AccessFile(running.access)
        wait_until(lambda: access.current().sources, "the access list")


def test_owners_that_do_not_listen(tmp_path: Path) -> None:
    """A change is answered without them."""
    body = {"aeTitle": "A", "processorSettings": {"pipeline-a": "p"}}
    with Surroundings(tmp_path, owners=False) as running:
        assert running.rest.post("/api/config/claraaetitle", json=body).status_code == 201
        running.api.wait_for_log("change_not_told owner=processor")


# Python runs a module of this name at its start. It waits for a file, and then stops the loop that serves requests.
STUCK = """
    import asyncio, gc, pathlib, threading, time

    here = pathlib.Path(__file__).parent

    def stop():
        while not (here / "stop").exists():
            time.sleep(0.02)
        loops = [one for one in gc.get_objects() if isinstance(one, asyncio.AbstractEventLoop)]
        next(loop for loop in loops if loop.is_running()).call_soon_threadsafe(hold)

    def hold():
        (here / "stopped").touch()
        time.sleep(5)

    threading.Thread(target=stop, daemon=True).start()
"""


def test_stuck_web_server_stops_the_heartbeats(tmp_path: Path) -> None:
    """They come from the loop that serves requests: five seconds without it are five seconds without them."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(STUCK))
    with Surroundings(tmp_path, owners=False, environment={"PYTHONPATH": str(site)}) as running:

        def beats() -> int:
            return sum(isinstance(message, messages.Heartbeat) for message in running.api.told)

        running.api.wait_for(beats, "a heartbeat")
        (site / "stop").touch()
        wait_until((site / "stopped").exists, "the loop is stuck")
        before = beats()
        assert running.rest.get("/api/config/sourceaetitle").status_code == 200, "answered when the loop goes on"
        assert beats() <= before + 2
        running.api.wait_for(lambda: beats() > before + 2, "heartbeats again")


PLUG_IN = """
    from protocol.job_processors import JobProcessor

    class Ward(JobProcessor):
        tags = ("00081040",)

        @classmethod
        def validate(cls, settings):
            if "crash" in settings:
                raise ZeroDivisionError
            return [] if "ward" in settings else ["ward is missing: name the ward"]

        def group_key(self, instance):
            return instance.attributes["00081040"]

        def plan(self, group_key, instances):
            return []
"""


def test_plug_in(tmp_path: Path) -> None:
    """A job processor of an installed package: its settings error is the 400, its crash is told, its tags count."""
    environment = plug_ins.install(tmp_path / "ward_plug_in", PLUG_IN, ward="Ward")

    def post(running: Surroundings, title: str, **settings: str) -> httpx.Response:
        body = {"aeTitle": title, "processor": "Ward", "processorSettings": settings}
        return running.rest.post("/api/config/claraaetitle", json=body)

    with Surroundings(tmp_path, environment=environment) as running:
        wrong = post(running, "W")
        assert (wrong.status_code, wrong.json()["detail"]) == (
            400,
            "processorSettings: ward is missing: name the ward",
        )
        crashed = post(running, "W", crash="1")
        assert (crashed.status_code, "ZeroDivisionError" in crashed.json()["detail"]) == (400, True)
        assert post(running, "W", ward="7").status_code == 201
        rule = AeTitleRule(ae_title="W", tags=("00081040",))
        assert AccessFile(running.access).current().ae_titles == (rule,)
    (tmp_path / "ward_plug_in" / "ward_plug_in-1.0.dist-info" / "entry_points.txt").unlink()
    with Surroundings(tmp_path, environment=environment) as running:
        running.api.wait_for_log("job_processor_failed processor=Ward")
        assert AccessFile(running.access).current().ae_titles == (rule,), "its tags stay while the package is away"
