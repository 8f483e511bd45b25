"""What is asked for each job, or every few seconds, costs no more after years: SQLite looks at nothing that is over."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.exporter import forgetting as of_exporter
from actors.exporter.destinations import Target
from actors.exporter.records import Records
from actors.exporter.results.base import Offer
from actors.exporter.scu import ScuDestination
from actors.platform.freeing import Before, unneeded
from actors.platform.runs import Runs
from actors.processor import forgetting as of_processor
from actors.submitter.progress import untaken
from protocol.availability import Availability
from protocol.config import load
from protocol.ledger import Delivery, ExportTask, Ledger, Result, Run
from protocol.logs import EventLogger
from protocol.messages import DiscardRuns
from protocol.spool import Spool
from protocol.states import DeliveryState, RunState, TaskState
from tests.actors.exporter.sending import scu_settings
from tests.aged import FAILED_EACH, FILES, age, work

YOUNG, OLD = 600, 6000
HOUR_NS = 3600 * 1_000_000_000
TARGET = Target(name="PACS", where=ScuDestination(name="PACS", ae_title="PACS", host="127.0.0.1", port=104))
SCU = scu_settings()
LOG = EventLogger("adapter.test")


def task_of(records: Records) -> ExportTask:
    """One that is under way."""
    offer = Offer(
        task_id="task",
        job_id="job",
        payload_id="payload",
        pipeline_id="pipeline",
        agent=SCU.ae_title,
        parameters='"PACS"',
        uris=tuple(f"{number}.dcm" for number in range(FILES)),
    )
    records.record([offer], "embedded", SCU)
    (row,) = records.begin(["task"])
    return row


def missed(count: int) -> None:
    """Results of which an export missed files, the newest of all: behind all that is over."""
    now = time.time_ns()
    for table, key in ((Run, Run.run_id), (Result, Result.run_id), (ExportTask, ExportTask.task_id)):
        table.delete().where(key.startswith("missed-")).execute()
    Delivery.delete().where(Delivery.task_id.startswith("missed-")).execute()
    for number in range(count):
        key = f"missed-{number}"
        common = {"job_id": key, "payload_id": key, "pipeline_id": "p", "created_ns": now - HOUR_NS}
        Run.create(run_id=key, name="n", priority="normal", state=RunState.SUCCEEDED, kept_bytes=1, **common)
        Result.create(run_id=key, directory="/x", files=["a.dcm"], exports=["A"], **common)
        columns = {"origin": "embedded", "agent": "A", "parameters": "", "uris": ["a.dcm"], "files": 1}
        ExportTask.create(task_id=key, state=TaskState.SUCCEEDED, updated_ns=now - HOUR_NS, **columns, **common)
        Delivery.create(task_id=key, destination="A", uri="a.dcm", state=DeliveryState.REFUSED, updated_ns=now)


def test_no_statement_looks_at_what_is_over(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    age(ledger, range(YOUNG))
    records = Records(ledger, Availability(ledger, LOG))
    runs = Runs(ledger, Availability(ledger, LOG), Spool(tmp_path))
    missed(20)
    task = task_of(records)
    failed = (f"task-{number:06d}" for number in range(0, YOUNG, FAILED_EACH))
    ledger_is = f"ConnectionStrings.DicomAdapterDatabase=Data Source={tmp_path}/ledger.db"
    settings = load(None, None, [ledger_is], {}).settings
    asked: dict[str, Callable[[], Any]] = {
        "waited for": records.waited_for,
        "due": lambda: records.due("PACS", 10),
        "under way": records.under_way,
        "planned": lambda: records.plan(task, [TARGET], {}),
        "wanted": lambda: records.wanted(task, [TARGET]),
        "counted": lambda: records.counts(task, ["PACS"]),
        "error": lambda: records.some_error(task),
        "to report": records.to_report,
        "held": records.held,
        "unreachable": records.unreachable,
        "revived": lambda: records.revive("PACS"),
        "retried": lambda: records.retry([next(failed)], ""),
        "tasks forgotten": lambda: of_exporter.forgetting(ledger, LOG).look(settings),
        "groups forgotten": lambda: of_processor.forgetting(ledger, LOG).look(settings),
        "results that nobody needs": lambda: unneeded(Before(time.time_ns(), time.time_ns())),
        "results to be discarded": lambda: runs.discardable(DiscardRuns(state=RunState.SUCCEEDED)),
        "one to be discarded": lambda: runs.discardable(DiscardRuns(state=RunState.SUCCEEDED, job_ids=("missed-1",))),
        "inputs to be discarded": lambda: runs.discard_inputs(DiscardRuns(state=RunState.FAILED)),
        "untaken": lambda: list(untaken(time.time_ns() - HOUR_NS)),
    }
    asked["planned"]()
    young = {name: work(ledger, call) for name, call in asked.items()}
    age(ledger, range(YOUNG, OLD))
    missed(20)
    old = {name: work(ledger, call) for name, call in asked.items()}
    # To look at one row takes several steps: these are few of them, such as what failed and waits for a person.
    assert {name: (young[name], old[name]) for name in asked if old[name] > 2 * young[name] + OLD} == {}
    # What does look at all of it is found by this.
    assert work(ledger, lambda: list(Delivery.select().where(Delivery.tries == 7))) > OLD
    ledger.close()
