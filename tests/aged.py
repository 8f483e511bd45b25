"""A ledger after a long time, and how much of it SQLite looks at: counted in its own steps, without a clock."""

import time
from collections.abc import Callable
from typing import Any

from protocol.ledger import Delivery, ExportTask, Group, Job, Ledger, Submission
from protocol.states import DeliveryState, GroupState, JobState, TaskState

_OPERATIONS = 50
_ROWS_AT_ONCE = 100
_DAY_NS = 86400 * 1_000_000_000
FILES = 4
"""Of each task."""
FAILED_EACH = 10
"""Of so many tasks the first failed: all of its files were refused."""


def age(ledger: Ledger, jobs: range) -> None:
    """Put finished jobs on record, each exported or refused; the first of all a day ago, the next ones before it.

    Args:
        ledger: is filled.
        jobs: their numbers.
    """
    last = time.time_ns() - _DAY_NS
    for first in jobs[::_ROWS_AT_ONCE]:
        numbers = range(first, min(first + _ROWS_AT_ONCE, jobs.stop))
        made = [(f"{number:06d}", last - number * _DAY_NS // 100) for number in numbers]
        with ledger.transaction():
            Group.insert_many(
                {
                    "group_id": int(key) + 1,
                    "ae_title": "OLD",
                    "processor": "",
                    "key_value": key,
                    "revision": 0,
                    "state": GroupState.RECLAIMED,
                    "instances": FILES,
                    "last_wall_ns": moment,
                    "last_boot_ns": 0,
                    "boot": "",
                    "opened_ns": moment,
                    "closed_ns": moment,
                }
                for key, moment in made
            ).execute()
            Job.insert_many(
                {
                    "job_id": key,
                    "group_id": int(key) + 1,
                    "ae_title": "OLD",
                    "name": f"old-{key}",
                    "pipeline_id": "pipeline",
                    "priority": "normal",
                    "source": "OLD (pipeline)",
                    "instances": FILES,
                    "created_ns": moment,
                }
                for key, moment in made
            ).execute()
            Submission.insert_many(
                {
                    "job_id": key,
                    "state": JobState.COMPLETED,
                    "platform_state": "Succeeded",
                    "steps": [],
                    "created_ns": moment,
                    "updated_ns": moment,
                }
                for key, moment in made
            ).execute()
            ExportTask.insert_many(
                {
                    "task_id": f"task-{key}",
                    "origin": "embedded",
                    "job_id": key,
                    "payload_id": key,
                    "pipeline_id": "pipeline",
                    "agent": "ClaraSCU",
                    "transport": "scu",
                    "parameters": '"OLD"',
                    "destination": "OLD",
                    "uris": [f"{number}.dcm" for number in range(FILES)],
                    "files": FILES,
                    "state": TaskState.FAILED if int(key) % FAILED_EACH == 0 else TaskState.SUCCEEDED,
                    "created_ns": moment,
                    "updated_ns": moment,
                }
                for key, moment in made
            ).execute()
            Delivery.insert_many(
                {
                    "task_id": f"task-{key}",
                    "destination": "OLD",
                    "uri": f"{number}.dcm",
                    "state": DeliveryState.REFUSED if int(key) % FAILED_EACH == 0 else DeliveryState.DELIVERED,
                    "tries": 1,
                    "updated_ns": moment,
                }
                for key, moment in made
                for number in range(FILES)
            ).execute()


def work(ledger: Ledger, call: Callable[[], Any]) -> int:
    """How many steps SQLite's machine takes for what a call asks of the ledger.

    Args:
        ledger: of SQLite.
        call: asks.
    """
    connection, counted = ledger.database.connection(), [0]

    def count() -> None:
        counted[0] += _OPERATIONS

    connection.set_progress_handler(count, _OPERATIONS)
    try:
        call()
    finally:
        connection.set_progress_handler(None, 0)
    return counted[0]
