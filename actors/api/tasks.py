"""The Results Service, as pipelines and other agents use it: Clara's REST calls over this system's own export tasks."""

import uuid
from typing import Annotated

from msgspec import Meta

from actors.api import validation
from actors.api.book import Book
from actors.api.entities import Entity
from actors.api.owners import Owners
from actors.api.validation import Body
from protocol import channels, messages
from protocol.config.kinds import flag
from protocol.errors import NotFoundError, RefusedError
from protocol.ledger import ExportTask
from protocol.states import TaskState

_ASK_SECONDS = 10.0
_MOST_FILES = 100_000
_LONGEST_PARAMETERS = 16_384


class ResultsTask(Entity, frozen=True, kw_only=True):
    """A task as the Results Service shows it."""

    task_id: Annotated[str, Meta(examples=["5f2b6c1e-63c5-4a55-93c0-0d4c2ad0c4a1"])]
    job_id: str
    payload_id: str
    pipeline_id: str
    parameters: Annotated[str, Meta(description="A JSON text.", examples=['"MYPACS"'])]
    state: Annotated[str, Meta(examples=["Pending"])]
    agent: Annotated[str, Meta(examples=["ClaraSCU"])]
    retries: Annotated[int, Meta(examples=[0])]
    uris: Annotated[tuple[str, ...], Meta(examples=[["result-1.dcm", "result-2.dcm"]])]


class Tasks:
    """The Results Service.

    Args:
        book: the ledger.
        owners: the exporter among them.
    """

    def __init__(self, book: Book, owners: Owners) -> None:
        self._book = book
        self._owners = owners

    def register(self, data: bytes) -> ResultsTask:
        """Make a task from a body.

        Raises:
            InvalidError: it is not valid.
            RefusedError, UnavailableError: the exporter refuses, or does not answer.
        """
        body = Body(data)
        task_id = body.read("taskId", validation.text(64, "a UUID"), "") or str(uuid.uuid4())
        try:
            task_id = str(uuid.UUID(task_id))
        except ValueError:
            body.errors.append(f"taskId {task_id!r} is no UUID: leave it out")
        parameters = body.value("parameters")
        uris = tuple(dict.fromkeys(body.texts("uris", validation.text(1024, "a file's name in the payload"))))
        if not uris and not body.errors:
            body.errors.append("uris is missing: a list of names of files in the payload, at least one")
        if len(uris) > _MOST_FILES:
            body.errors.append(f"uris has {len(uris)} names: at most {_MOST_FILES}")
        is_text = isinstance(parameters, str) and "\0" not in parameters
        if parameters is not None and not (is_text and len(str(parameters)) <= _LONGEST_PARAMETERS):
            body.errors.append(f"parameters is not a text of at most {_LONGEST_PARAMETERS} characters (JSON in it)")
        command = messages.RegisterTask(
            task_id=task_id,
            job_id=body.required("jobId", validation.text(64, "a job's ID"), ""),
            payload_id=body.read("payloadId", validation.optional_text(64, "a payload's ID"), ""),
            pipeline_id=body.read("pipelineId", validation.optional_text(64, "a pipeline's ID"), ""),
            agent=body.required("agent", validation.text(64, "an agent's name"), ""),
            parameters=parameters if isinstance(parameters, str) else "",
            uris=uris,
        )
        body.done()
        new = self._owners.ask(channels.EXPORTER_COMMANDS, command)
        task = self.one(task_id)
        same = (task.job_id, task.agent, task.parameters, task.uris) == (
            command.job_id,
            command.agent,
            command.parameters,
            command.uris,
        )
        if not (new or same):
            raise RefusedError(f"the task ID {task_id} belongs to another task: leave taskId out")
        return task

    def one(self, task_id: str) -> ResultsTask:
        """A task.

        Raises:
            NotFoundError: there is none.
        """
        with self._book.use():
            return _shown(_found(task_id))

    def pending(self, agent: str, size: int) -> list[ResultsTask]:
        """Tasks that wait for an agent; one that is no part of this system has them for ten minutes.

        Raises:
            RefusedError, UnavailableError: the exporter refuses, or does not answer.
        """
        answer = self._owners.ask_for(
            channels.EXPORTER_COMMANDS, messages.TakeTasks(agent=agent, size=size), _ASK_SECONDS
        )
        if not isinstance(answer, messages.TasksTaken):
            raise RefusedError(f"the exporter answered {type(answer).__name__}: restart it")
        with self._book.use():
            query = ExportTask.select().where(ExportTask.task_id.in_(list(answer.task_ids)))
            rows = list(query.order_by(ExportTask.created_ns, ExportTask.task_id)) if answer.task_ids else []
        return [_shown(row) for row in rows]

    def succeeded(self, task_id: str) -> ResultsTask:
        """An agent has exported a task.

        Raises:
            NotFoundError, RefusedError, UnavailableError: it is not known, is not an agent's, or nobody answers.
        """
        return self._finish(messages.FinishTask(task_id=self.one(task_id).task_id, succeeded=True))

    def failed(self, task_id: str, data: bytes) -> ResultsTask:
        """An agent could not export a task; raises as `succeeded`."""
        body = Body(data or b"{}")
        retry_later = body.read("RetryLater", flag(), False)
        body.done()
        task_id = self.one(task_id).task_id
        return self._finish(messages.FinishTask(task_id=task_id, succeeded=False, retry_later=retry_later))

    def _finish(self, command: messages.FinishTask) -> ResultsTask:
        self._owners.ask(channels.EXPORTER_COMMANDS, command)
        return self.one(command.task_id)


def _found(task_id: str) -> ExportTask:
    row: ExportTask | None = ExportTask.get_or_none(ExportTask.task_id == task_id.lower())
    if row is None:
        raise NotFoundError(f"there is no task {task_id!r}: see /api/exports for those there are")
    return row


def _shown(row: ExportTask) -> ResultsTask:
    return ResultsTask(
        task_id=row.task_id,
        job_id=row.job_id,
        payload_id=row.payload_id,
        pipeline_id=row.pipeline_id,
        parameters=row.parameters,
        state=TaskState.FAILED if row.state == TaskState.CANCELED else row.state,
        agent=row.agent,
        retries=row.retries,
        uris=tuple(row.uris),
    )
