"""Tasks that are lent to agents that are no part of this system: they ask for them, and say how they ended.

`records.py` has every other change of a task, and how a change is made.
"""

import peewee as pw

from actors.exporter.lanes import LONGEST_PAUSE_SECONDS
from actors.exporter.records import Records, has_come, in_seconds, rows_of
from protocol import messages
from protocol.errors import RefusedError
from protocol.ledger import ExportTask
from protocol.states import TaskState, advance, is_final

LEASE_SECONDS = 600.0


class Lent:
    """The tasks of such agents. Every method may raise what peewee raises; it may then be called again.

    Args:
        records: all tasks.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def lend(self, agent: str, size: int) -> list[str]:
        """Give tasks to an agent for a while; returns their IDs.

        Args:
            agent: as tasks name it, in any case.
            size: how many at most.
        """
        with self._records.commit():
            condition = (pw.fn.LOWER(ExportTask.agent) == agent.lower()) & (ExportTask.transport == "")
            due = (ExportTask.state == TaskState.PENDING) & has_come(ExportTask.next_try_ns, LONGEST_PAUSE_SECONDS)
            query = ExportTask.select().where(condition & due).order_by(ExportTask.created_ns, ExportTask.task_id)
            rows = list(query.limit(size))
            for row in rows:
                self._records.change(row, state=TaskState.IN_PROGRESS, next_try_ns=in_seconds(LEASE_SECONDS))
        return [row.task_id for row in rows]

    def end_leases(self) -> int:
        """Offer again what an agent has taken and never finished; returns how many."""
        rows = rows_of(
            (ExportTask.state == TaskState.IN_PROGRESS)
            & (ExportTask.transport == "")
            & has_come(ExportTask.next_try_ns, LEASE_SECONDS)
        )
        if not rows:
            return 0
        with self._records.commit():
            for row in rows:
                self._records.change(
                    row, state=TaskState.PENDING, next_try_ns=0, last_error="its agent did not finish it in time"
                )
        return len(rows)

    def finish(self, command: messages.FinishTask) -> messages.Done:
        """An agent says how a task ended.

        Raises:
            RefusedError: the task is none of an agent's.
        """
        row = ExportTask.get_or_none(ExportTask.task_id == command.task_id)
        if row is None:
            raise RefusedError(f"there is no task {command.task_id}")
        if row.transport:
            raise RefusedError(f"the task is for {row.agent}, which is this system: nobody else can finish it")
        changed = self._finish(row, succeeded=command.succeeded, retry_later=command.retry_later)
        return messages.Done(affected=int(changed))

    def _finish(self, row: ExportTask, *, succeeded: bool, retry_later: bool) -> bool:
        """False when that was said before."""
        if is_final(TaskState(row.state)) or row.state == TaskState.FAILED:
            return False
        following = TaskState.SUCCEEDED if succeeded else TaskState.PENDING if retry_later else TaskState.FAILED
        with self._records.commit():
            if row.state == TaskState.PENDING:  # it was listed, and the agent had it from an earlier list
                row.state = advance(TaskState.PENDING, TaskState.IN_PROGRESS)
            reason = "" if succeeded else "its agent could not export it"
            self._records.change(
                row,
                state=following,
                last_error=reason,
                retries=row.retries + (following is TaskState.PENDING),
                next_try_ns=0,
            )
        return True
