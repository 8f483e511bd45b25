"""What people decide about tasks."""

from actors.exporter.flow import Flow
from actors.exporter.lanes import Lanes
from actors.exporter.probing import Prober
from actors.exporter.records import Records
from actors.exporter.tasks import Batch
from protocol import messages
from protocol.logs import EventLogger


class Commands:
    """Carries commands out. Every method may raise what peewee raises; the command may then come again.

    Args:
        records: all tasks.
        flow: those that have begun.
        lanes: the destinations.
        prober: knows which destinations do not answer.
        log: of the actor.
    """

    def __init__(self, records: Records, flow: Flow, lanes: Lanes[Batch], prober: Prober, log: EventLogger) -> None:
        self._records = records
        self._flow = flow
        self._lanes = lanes
        self._prober = prober
        self._log = log

    def retry(self, command: messages.RetryTasks) -> messages.Done:
        """Try tasks again, at once, whatever their destinations' pauses say."""
        destinations = self._records.retry(command.task_ids, command.destination)
        for destination in set(destinations):
            for name in destination.split(", "):
                self._lanes.reset(name)
        if destinations:
            self._log.info("tasks_retried", tasks=len(destinations))
        return messages.Done(affected=len(destinations))

    def cancel(self, command: messages.CancelTasks) -> messages.Done:
        """Give tasks up."""
        task_ids = self._records.cancel(command.task_ids, command.destination)
        for task_id in task_ids:
            self._flow.cancel(task_id)
            self._log.info("task_canceled", task_id=task_id)
        return messages.Done(affected=len(task_ids))
