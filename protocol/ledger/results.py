"""What the rows of results say to others than their owner: conditions for queries."""

from typing import Any

import peewee as pw

from protocol.ledger.tables import ExportTask, Result
from protocol.states import TaskState

NOT_WANTED = (TaskState.SUCCEEDED, TaskState.CANCELED)
"""States of export tasks that need no file any more; a failed one does, since a person may have it tried again."""


def with_files() -> Any:
    """The result holds something."""
    return Result.files != _nothing(Result.files)


def tasks_of_result(task: Any) -> Any:
    """The tasks that export the result, for EXISTS; one need not name its payload: then its job says which it is.

    Args:
        task: an alias of `ExportTask`.
    """
    of_result = (task.payload_id == Result.payload_id) | task.job_id.in_((Result.job_id, Result.run_id))
    return task.select(task.task_id).where(of_result)


def awaits_export() -> Any:
    """An export of the result is still to be begun, goes on, or failed."""
    task = ExportTask.alias()
    tasks = tasks_of_result(task)
    is_to_begin = (Result.exports != _nothing(Result.exports)) & ~pw.fn.EXISTS(tasks)
    return is_to_begin | pw.fn.EXISTS(tasks.where(task.state.not_in(NOT_WANTED)))


def _nothing(column: Any) -> Any:
    return pw.Value([], converter=column.db_value, unpack=False)
