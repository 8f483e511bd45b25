"""Conditions on results of runs, for the queries of those who make them, export them, forget them and show them."""

from typing import Any

import peewee as pw

from protocol.ledger.tables import ExportTask, Result
from protocol.states import TaskState

NEEDS_NO_FILE = (TaskState.SUCCEEDED, TaskState.CANCELED)
"""States of export tasks that read nothing any more; a failed one may be tried again."""


def with_files() -> Any:
    """The result holds something."""
    return Result.files != pw.Value([], converter=Result.files.db_value, unpack=False)


def is_exported_by(task: Any) -> Any:
    """A task exports the result; it need not name its payload: then its job, or its run, says which it is.

    Args:
        task: `ExportTask`, or an alias of it.
    """
    return (task.payload_id == Result.payload_id) | task.job_id.in_((Result.job_id, Result.run_id))


def tasks_of_result(task: Any) -> Any:
    """The tasks that export the result, for EXISTS.

    Args:
        task: an alias of `ExportTask`.
    """
    return task.select(task.task_id).where(is_exported_by(task))


def awaits_export() -> Any:
    """An export of the result waits, goes on, or failed; those that are still to be made are not among them."""
    task = ExportTask.alias()
    return pw.fn.EXISTS(tasks_of_result(task).where(task.state.not_in(NEEDS_NO_FILE)))
