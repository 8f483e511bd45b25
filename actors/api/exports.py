"""Export tasks as people and programs see them, and their decisions passed on to the exporter."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import peewee as pw
from msgspec import Meta

from actors.api.book import Book
from actors.api.entities import Entity
from actors.api.owners import Owners
from actors.api.validation import Body, known_state, text
from protocol import channels, messages
from protocol.clock import iso
from protocol.errors import NotFoundError, RefusedError
from protocol.exports import DICOMWEB, is_dicomweb
from protocol.ledger import PAGE_ROWS, Delivery, ExportTask, pages, tuples
from protocol.states import DeliveryState, TaskState

_PROBE_SECONDS = 90.0
_LONGEST_NAME = 2048


class ExportSummary(Entity, frozen=True, kw_only=True):
    """A task in a list; `delivered` and `failed` count files at the destination that has the fewest."""

    task_id: Annotated[str, Meta(examples=["5f2b6c1e-63c5-4a55-93c0-0d4c2ad0c4a1"])]
    job_id: Annotated[str, Meta(examples=["0a1f6c1e-63c5-4a55-93c0-0d4c2ad0c4a1"])]
    agent: Annotated[str, Meta(examples=["ClaraSCU"])]
    destination: Annotated[str, Meta(description="Names, or URLs, separated by commas.", examples=["MYPACS"])]
    state: Annotated[str, Meta(examples=["Succeeded"])]
    retries: Annotated[int, Meta(examples=[0])]
    files: Annotated[int, Meta(examples=[12])]
    delivered: Annotated[int, Meta(examples=[12])]
    failed: Annotated[int, Meta(description="Tried and not delivered.", examples=[0])]
    last_error: str
    created: Annotated[str, Meta(examples=["2024-01-31T12:15:00.000Z"])]
    updated: Annotated[str, Meta(examples=["2024-01-31T12:15:03.000Z"])]


class DeliveryDetail(Entity, frozen=True, kw_only=True):
    """One file on its way to one destination."""

    destination: str
    uri: str
    sop_instance_uid: str
    state: str
    tries: int
    last_error: str
    updated: str


class ExportDetail(ExportSummary, frozen=True, kw_only=True):
    """A task with its deliveries, at most 500 of them, those that are not delivered first."""

    payload_id: str
    pipeline_id: str
    origin: Annotated[str, Meta(description="The results service that it came from: embedded or clara.")]
    parameters: str
    next_try: str | None
    deliveries: tuple[DeliveryDetail, ...]


class Probed(Entity, frozen=True, kw_only=True):
    """What a destination answered."""

    destination: str
    answer: Annotated[str, Meta(examples=["MYPACS answered C-ECHO"])]
    seconds: Annotated[float, Meta(examples=[0.012])]


class Tally(msgspec.Struct):
    """Deliveries of one task to one destination."""

    delivered: int = 0
    failed: int = 0


class Exports:
    """Lists export tasks.

    Args:
        book: the ledger.
        owners: the exporter among them.
    """

    def __init__(self, book: Book, owners: Owners) -> None:
        self._book = book
        self._owners = owners

    def select(self, state: str, destination: str, job_id: str, limit: int, offset: int) -> list[ExportSummary]:
        """Tasks, the newest first. An empty argument does not restrict.

        Raises:
            InvalidError: there is no such state.
        """
        query = ExportTask.select()
        if state:
            query = query.where(ExportTask.state == known_state("state", state, TaskState))
        if destination:
            query = query.where(pw.fn.LOWER(ExportTask.destination) == _as_shown(destination).lower())
        if job_id:
            query = query.where(ExportTask.job_id == job_id.lower())
        query = query.order_by(ExportTask.created_ns.desc(), ExportTask.task_id).limit(min(limit, PAGE_ROWS))
        with self._book.use():
            rows = list(query.offset(offset))
            tallies = count_deliveries([row.task_id for row in rows])
        return [summary(row, tallies.get(row.task_id)) for row in rows]

    def one(self, task_id: str) -> ExportDetail:
        """A task with its deliveries.

        Raises:
            NotFoundError: there is none.
        """
        with self._book.use():
            row = ExportTask.get_or_none(ExportTask.task_id == task_id.lower())
            if row is None:
                raise NotFoundError(f"there is no export task {task_id!r}: see /api/exports for those there are")
            tallies = count_deliveries([row.task_id])
            done = pw.Case(Delivery.state, [(DeliveryState.DELIVERED, 1)], 0)
            query = Delivery.select().where(Delivery.task_id == row.task_id)
            deliveries = list(query.order_by(done, Delivery.delivery_id).limit(PAGE_ROWS))
        waits = row.state == TaskState.PENDING and 0 < row.next_try_ns < 2**61
        return ExportDetail(
            **msgspec.structs.asdict(summary(row, tallies.get(row.task_id))),
            payload_id=row.payload_id,
            pipeline_id=row.pipeline_id,
            origin=row.origin,
            parameters=row.parameters,
            next_try=iso(row.next_try_ns) if waits else None,
            deliveries=tuple(_detail(each) for each in deliveries),
        )

    def retry(self, task_id: str) -> int:
        """Try a task again that failed, or that waits for its next try.

        Raises:
            NotFoundError, RefusedError, UnavailableError: it is not known, is over, or nobody answers.
        """
        return self._decide(task_id, messages.RetryTasks(task_ids=(task_id.lower(),)), "is not waiting, nor failed")

    def cancel(self, task_id: str) -> int:
        """Give a task up; raises as `retry`."""
        return self._decide(task_id, messages.CancelTasks(task_ids=(task_id.lower(),)), "is over")

    def retry_all(self, body: bytes) -> int:
        """Try all tasks of a destination again, or all there are.

        Raises:
            InvalidError, RefusedError, UnavailableError: the filter is not valid; or nobody answers.
        """
        return self._owners.ask(channels.EXPORTER_COMMANDS, messages.RetryTasks(destination=_filter(body)))

    def cancel_all(self, body: bytes) -> int:
        """Give all tasks of a destination up, or all there are; raises as `retry_all`."""
        return self._owners.ask(channels.EXPORTER_COMMANDS, messages.CancelTasks(destination=_filter(body)))

    def probe(self, body: bytes) -> Probed:
        """Ask a destination whether it is there.

        Raises:
            InvalidError, RefusedError, UnavailableError: the body is not valid; it is not there; nobody answers.
        """
        reader = Body(body)
        destination = reader.required("destination", text(_LONGEST_NAME, "a destination's name, or dicomweb:URL"), "")
        reader.done()
        command = messages.ProbeDestination(destination=destination)
        answer = self._owners.ask_for(channels.EXPORTER_COMMANDS, command, _PROBE_SECONDS)
        if not isinstance(answer, messages.DestinationAnswered):
            raise RefusedError(f"the exporter answered {type(answer).__name__}: restart it")
        shown = f"dicomweb:***@{destination.rpartition('@')[2]}" if "@" in destination else destination
        return Probed(destination=shown, answer=answer.text, seconds=answer.seconds)

    def _decide(self, task_id: str, command: messages.RetryTasks | messages.CancelTasks, otherwise: str) -> int:
        state = self.one(task_id).state
        affected = self._owners.ask(channels.EXPORTER_COMMANDS, command)
        if not affected:
            raise RefusedError(f"the task {otherwise}: it is {state}")
        return affected


def count_deliveries(task_ids: Sequence[str]) -> dict[str, Tally]:
    """Of at most a page of tasks: what the destination has that has the fewest."""
    found: dict[tuple[str, str], Tally] = defaultdict(Tally)
    tried = pw.fn.SUM(pw.Case(None, [(Delivery.tries > 0, 1), (Delivery.last_error != "", 1)], 0))
    query = Delivery.select(
        Delivery.task_id, Delivery.destination, Delivery.state, pw.fn.COUNT(Delivery.delivery_id), tried
    ).where(Delivery.task_id.in_(list(task_ids)))
    for task_id, destination, state, count, failed in (
        tuples(query.group_by(Delivery.task_id, Delivery.destination, Delivery.state)) if task_ids else ()
    ):
        each = found[task_id, destination]
        if state == DeliveryState.DELIVERED:
            each.delivered += count
        else:
            each.failed += int(failed)
    worst: dict[str, Tally] = {}
    for (task_id, _), each in found.items():
        old = worst.setdefault(task_id, each)
        worst[task_id] = Tally(min(old.delivered, each.delivered), max(old.failed, each.failed))
    return worst


def summary(row: ExportTask, counted: Tally | None) -> ExportSummary:
    """A task's row with what was counted of it."""
    counted = counted or Tally()
    failed = row.files - counted.delivered if row.state in (TaskState.FAILED, TaskState.SUCCEEDED) else counted.failed
    if row.transport == "":
        # An agent that is no part of this system tells no more than how its task ended.
        done = row.state == TaskState.SUCCEEDED
        counted, failed = Tally(row.files if done else 0), row.files if row.state == TaskState.FAILED else 0
    return ExportSummary(
        task_id=row.task_id,
        job_id=row.job_id,
        agent=row.agent,
        destination=row.destination,
        state=row.state,
        retries=row.retries,
        files=row.files,
        delivered=counted.delivered,
        failed=failed,
        last_error=row.last_error,
        created=iso(row.created_ns),
        updated=iso(row.updated_ns),
    )


def of_jobs(job_ids: Sequence[str]) -> list[ExportTask]:
    """The tasks of at most a page of jobs, the oldest first."""
    query = ExportTask.select().where(ExportTask.job_id.in_(list(job_ids)))
    rows = [row for page in pages(query, ExportTask.task_id) for row in page]
    return sorted(rows, key=lambda row: (row.created_ns, row.task_id))


def _detail(row: Delivery) -> DeliveryDetail:
    return DeliveryDetail(
        destination=row.destination,
        uri=row.uri,
        sop_instance_uid=row.sop_instance_uid,
        state=row.state,
        tries=row.tries,
        last_error=row.last_error,
        updated=iso(row.updated_ns),
    )


def _filter(data: bytes) -> str:
    body: Any = Body(data)
    destination: str = body.read("destination", text(_LONGEST_NAME, "a destination"), "")
    body.refuse_unknown()
    body.refuse_null()
    body.done()
    return _as_shown(destination)


def _as_shown(destination: str) -> str:
    """A destination as tasks have it: of a DICOMweb service the bare URL, however a pipeline's export was written."""
    url = destination[len(DICOMWEB) :].rstrip("/")
    return url if is_dicomweb(destination) and url else destination  # never empty, which would mean all
