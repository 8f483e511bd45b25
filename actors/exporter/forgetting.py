"""What the exporter forgets: tasks that are over, whose job was forgotten, and whose results are gone."""

import peewee as pw

from protocol.ledger import Delivery, ExportTask, Job, Ledger, Result
from protocol.ledger.past import Forgetting, Past
from protocol.ledger.results import is_exported_by
from protocol.logs import EventLogger
from protocol.states import TaskState

_OVER = (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELED)


def forgetting(ledger: Ledger, log: EventLogger) -> Forgetting:
    """See `Forgetting`.

    Args:
        ledger: the ledger.
        log: of the actor.
    """
    job = Job.select(pw.SQL("1")).where(Job.job_id == ExportTask.job_id)
    result = Result.select(pw.SQL("1")).where(is_exported_by(ExportTask))
    tasks = Past(
        ledger,
        ExportTask.task_id,
        lambda before_ns: (
            ExportTask.state.in_(_OVER)
            & (ExportTask.report == "")
            & (ExportTask.updated_ns < before_ns)
            & ~pw.fn.EXISTS(job)
            & ~pw.fn.EXISTS(result)
        ),
        parts=(Delivery.task_id,),
    )
    return Forgetting(ledger, log, tasks)
