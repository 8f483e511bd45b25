"""What the exporter forgets: tasks that are over, whose job was forgotten, and whose results are gone."""

import peewee as pw

from protocol.ledger import Delivery, ExportTask, Job, Ledger, Result
from protocol.ledger.past import Forgetting, Past
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
    # A task need not name its payload: then its job, or its run, says which it is.
    of_task = (Result.payload_id == ExportTask.payload_id) | ExportTask.job_id.in_((Result.job_id, Result.run_id))
    result = Result.select(pw.SQL("1")).where(of_task)
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
