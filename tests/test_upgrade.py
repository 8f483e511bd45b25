"""New code beside the old, on the same spool and ledger: receivers first, then the migration, then everything."""

import contextlib
import fcntl
import sqlite3
from collections.abc import Callable
from pathlib import Path

from protocol.errors import UnavailableError
from protocol.messages import ActorStatus
from tests.gateway import Gateway
from tests.peers import storescu
from tests.samples import make_study

NewGateway = Callable[..., Gateway]
OBJECTS = 5
START_LIMIT_SECONDS = 8.0
MIGRATED = "the ledger is being migrated"

# Every process of the gateway that imports it is of the next version.
NEXT_VERSION = """
from protocol import migrations
migrations.STEPS = (*migrations.STEPS, lambda database: database.execute_sql(
    "ALTER TABLE source ADD COLUMN note VARCHAR(255) NOT NULL DEFAULT 'kept'"
))
"""


def actor(gateway: Gateway, name: str) -> ActorStatus:
    (found,) = [each for each in gateway.status().actors if each.name == name]
    return found


def versions(path: Path) -> list[int]:
    with sqlite3.connect(path) as ledger:
        return [version for (version,) in ledger.execute("SELECT version FROM schema_version")]


def count(path: Path, table: str) -> int:
    with sqlite3.connect(path) as ledger:
        return int(ledger.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_an_upgrade_in_place_and_a_step_back(new_gateway: NewGateway, tmp_path: Path) -> None:
    gateway = new_gateway(environ={"DICOM_ADAPTER_START_LIMIT_SECONDS": str(START_LIMIT_SECONDS)}).start()
    gateway.add_source("MODALITY")
    gateway.add_aetitle("UPGRADE", pipeline_none=gateway.add_pipeline("none", ["/bin/true"]))

    def send(number: int) -> None:
        study = make_study(tmp_path / f"study-{number}", f"PAT-U{number}", OBJECTS, rows=64, modality="MR")
        assert storescu(gateway.port, study.directory, called="UPGRADE", calling="MODALITY").successes == OBJECTS

    def states() -> dict[str, str]:
        with contextlib.suppress(UnavailableError):
            return {each.name: each.state for each in gateway.status().actors}
        return {}

    def receiving() -> bool:
        return states().get("receiver-1") == states().get("receiver-2") == "running"

    send(1)
    gateway.wait_for(lambda: count(gateway.ledger, "instance") == OBJECTS, 20, "instances on record")
    assert gateway.stop() == 0
    (version,) = versions(gateway.ledger)

    # The next version starts while somebody holds the migration up, for longer than an actor may take to start.
    (tmp_path / "next").mkdir()
    (tmp_path / "next/sitecustomize.py").write_text(NEXT_VERSION)
    gateway._environ["PYTHONPATH"] = str(tmp_path / "next")
    waiting = ("processor", "submitter", "platform")
    with open(f"{gateway.ledger}.migrate.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        gateway.launch()
        gateway.wait_for(receiving, 30, "receivers that run")
        send(2)

        def shown() -> list[ActorStatus]:
            return [actor(gateway, name) for name in waiting]

        gateway.wait_for(lambda: all(each.detail == MIGRATED for each in shown()), 60, "processes that wait")
        before = [each.pid for each in shown()]
        patience = 1.3 * START_LIMIT_SECONDS
        gateway.wait_for(lambda: all(each.uptime_seconds > patience for each in shown()), 60, "a long wait")
        assert [(each.pid, each.state) for each in shown()] == [(pid, "starting") for pid in before]
        assert actor(gateway, "guardian").state == "running"
        assert versions(gateway.ledger) == [version]
    gateway.wait_ready()
    assert [job["instances"] for job in gateway.wait_jobs(2)] == [OBJECTS, OBJECTS]
    assert gateway.stop() == 0

    # Rows were kept, and a copy of the ledger as it was.
    with sqlite3.connect(gateway.ledger) as ledger:
        assert ledger.execute("SELECT ae_title, note FROM source").fetchall() == [("MODALITY", "kept")]
    assert versions(gateway.ledger) == [version + 1]
    (copy,) = gateway.ledger.parent.glob(f"{gateway.ledger.name}.v{version}-*")
    assert versions(copy) == [version]
    assert (count(copy, "instance"), count(copy, "job"), count(copy, "source")) == (OBJECTS, 0, 1)

    # The former version does not touch it, and says what to do; receiving goes on all the same.
    del gateway._environ["PYTHONPATH"]
    gateway.launch()
    gateway.wait_for(lambda: receiving() and states()["processor"] == "failed", 30, "refusal")
    assert "bring back the copy that its upgrade kept" in gateway.log_text()
    send(3)
    assert versions(gateway.ledger) == [version + 1]
    assert gateway.stop() == 0
