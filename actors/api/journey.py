"""A study's journey with times: from its associations over its groups to its jobs, uploads, starts and ends.

It is put together from what the ledger has, so it tells nothing that a restart would forget. A group's key is not
told, since it may be a patient's ID.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import peewee as pw
from msgspec import Meta

from actors.api.book import Book
from actors.api.entities import Entity
from actors.api.exports import ExportSummary, count_deliveries, of_jobs, summary
from actors.api.jobs import Step, steps_of
from protocol.clock import iso
from protocol.errors import NotFoundError
from protocol.ledger import (
    PAGE_ROWS,
    Delivery,
    ExportTask,
    Group,
    InferenceRequest,
    Instance,
    InstanceHistory,
    Job,
    Retrieval,
    Run,
    Submission,
    pages,
    tuples,
)
from protocol.spool import association_of
from protocol.states import DeliveryState, InstanceState, TaskState


class Event(Entity, frozen=True, kw_only=True):
    """Something that happened to the study; `fields` depends on the event."""

    time: Annotated[str, Meta(examples=["2024-01-31T12:15:00.000Z"])]
    event: Annotated[str, Meta(examples=["FirstInstanceStored", "GroupClosed", "RunEnded"])]
    fields: dict[str, str | int | None]


class Association(Entity, frozen=True, kw_only=True):
    """An association that brought instances of the study."""

    association_id: str
    host: str
    calling_ae_title: str
    called_ae_title: str
    instances: int
    bytes: int
    first_stored: str
    last_stored: str


class JourneyGroup(Entity, frozen=True, kw_only=True):
    """A group that holds instances of the study; `instances` counts the group's, `of_study` the study's."""

    group_id: int
    ae_title: str
    revision: int
    state: str
    instances: int
    of_study: int
    opened: str
    closed: str | None


class JourneyJob(Entity, frozen=True, kw_only=True):
    """A job made of such a group."""

    job_id: str
    job_name: str
    group_id: int | None
    pipeline_id: str
    state: str
    platform_state: str
    last_error: str
    created: str
    steps: tuple[Step, ...]
    run_started: str | None
    run_ended: str | None
    exit_code: int | None


class JourneyRetrieval(Entity, frozen=True, kw_only=True):
    """What an inference request has retrieved of the study; `bytes` is the length of the files."""

    transaction_id: str
    job_id: str
    instances: int
    bytes: int
    first_retrieved: str
    last_retrieved: str


class Journey(Entity, frozen=True, kw_only=True):
    """All of it; `states` counts the study's instances by their state, and `instances` those that were received."""

    study_instance_uid: str
    instances: int
    bytes: int
    states: dict[str, int]
    associations: tuple[Association, ...]
    groups: tuple[JourneyGroup, ...]
    retrievals: tuple[JourneyRetrieval, ...]
    jobs: tuple[JourneyJob, ...]
    exports: tuple[ExportSummary, ...]
    events: tuple[Event, ...]


class Trace:
    """Finds journeys.

    Args:
        book: the ledger.
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    def of(self, study_uid: str) -> Journey:
        """The journey of a study.

        Raises:
            NotFoundError: no instance of it is on record.
        """
        with self._book.use():
            tally = _Tally(study_uid)
            retrievals = _retrievals(study_uid)
            if not tally.instances and not retrievals:
                raise NotFoundError(f"nothing of the study {study_uid!r} is on record: check the Study Instance UID")
            groups = list(_of_keys(Group, Group.group_id, sorted(tally.in_groups)))
            jobs = list(_of_keys(Job, Job.group_id, sorted(tally.in_groups)))
            jobs += list(_of_keys(Job, Job.job_id, [each.job_id for each in retrievals]))
            job_ids = [job.job_id for job in jobs]
            submissions = {row.job_id: row for row in _of_keys(Submission, Submission.job_id, job_ids)}
            tasks = [task for page in _portions(job_ids) for task in of_jobs(page)]
            deliveries = _deliveries([task.task_id for task in tasks])
            counted = [count_deliveries(page) for page in _portions(list(deliveries))]
            tallies = {task_id: each for page in counted for task_id, each in page.items()}
            runs = {row.job_id: row for row in _of_keys(Run, Run.job_id, job_ids)}
        events = [*tally.events()]
        for group in groups:
            events += _group_events(group)
        for each in retrievals:
            events += _retrieval_events(each)
        for job in jobs:
            events += _job_events(job, submissions.get(job.job_id), runs.get(job.job_id))
        names = {job.job_id: job.name for job in jobs}
        exports = [summary(task, tallies.get(task.task_id)) for task in tasks]
        for task, export in zip(tasks, exports, strict=True):
            events += _task_events(task, export, names[task.job_id], deliveries[task.task_id])
        events.sort(key=lambda event: event[0])
        return Journey(
            study_instance_uid=study_uid,
            instances=tally.instances,
            bytes=tally.bytes,
            states=dict(tally.states),
            associations=tally.associations(),
            groups=tuple(_group(row, tally.in_groups[row.group_id]) for row in groups),
            retrievals=tuple(_retrieval(each) for each in retrievals),
            jobs=tuple(
                _job(row, submissions.get(row.job_id), runs.get(row.job_id))
                for row in sorted(jobs, key=lambda row: (row.created_ns, row.job_id))
            ),
            exports=tuple(exports),
            events=tuple(Event(time=iso(at), event=name, fields=fields) for at, name, fields in events),
        )


_Happened = tuple[int, str, dict[str, str | int | None]]


class _Tally:
    """A study's instances, counted by association, group and state; a study may have very many."""

    def __init__(self, study_uid: str) -> None:
        self.instances = 0
        self.bytes = 0
        self.states: Counter[str] = Counter()
        self.in_groups: Counter[int] = Counter()
        self._first: dict[str, Any] = {}
        self._last_ns: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._quarantined: dict[str, list[int]] = {}
        for table in (Instance, InstanceHistory):
            query = table.select(
                table.identifier,
                table.group_id,
                table.state,
                table.reason,
                table.called_ae_title,
                table.calling_ae_title,
                table.host,
                table.size,
                table.stored_wall_ns,
            ).where(table.study_uid == study_uid)
            for page in pages(query, table.identifier):
                for row in page:
                    self._add(row)

    def _add(self, row: Any) -> None:
        association = association_of(row.identifier.rpartition("/")[2])
        self.instances += 1
        self.bytes += row.size
        self.states[row.state] += 1
        if row.group_id is not None:
            self.in_groups[row.group_id] += 1
        first = self._first.setdefault(association, row)
        if row.stored_wall_ns < first.stored_wall_ns:
            self._first[association] = row
        self._last_ns[association] = max(self._last_ns[association], row.stored_wall_ns)
        self._counts[association] += 1
        self._bytes[association] += row.size
        if row.state == InstanceState.QUARANTINED:
            self._quarantined.setdefault(row.reason, []).append(row.stored_wall_ns)

    def associations(self) -> tuple[Association, ...]:
        return tuple(
            Association(
                association_id=association,
                host=first.host,
                calling_ae_title=first.calling_ae_title,
                called_ae_title=first.called_ae_title,
                instances=self._counts[association],
                bytes=self._bytes[association],
                first_stored=iso(first.stored_wall_ns),
                last_stored=iso(self._last_ns[association]),
            )
            for association, first in sorted(self._first.items(), key=lambda item: item[1].stored_wall_ns)
        )

    def events(self) -> Iterator[_Happened]:
        for association, first in self._first.items():
            yield (
                first.stored_wall_ns,
                "FirstInstanceStored",
                {
                    "associationId": association,
                    "host": first.host,
                    "callingAeTitle": first.calling_ae_title,
                    "calledAeTitle": first.called_ae_title,
                },
            )
            count = self._counts[association]
            yield self._last_ns[association], "LastInstanceStored", {"associationId": association, "instances": count}
        for reason, stored in self._quarantined.items():
            yield max(stored), "InstancesQuarantined", {"instances": len(stored), "reason": reason}


def _of_keys(table: Any, column: Any, keys: Sequence[Any]) -> Iterator[Any]:
    """The rows whose column has one of these values, asked for in portions."""
    for start in range(0, len(keys), PAGE_ROWS):
        query = table.select().where(column.in_(keys[start : start + PAGE_ROWS]))
        for page in pages(query, table._meta.primary_key):
            yield from page


class _Retrieved(NamedTuple):
    """A request, and the instances of the study that it has retrieved."""

    request: InferenceRequest
    job_id: str
    instances: int
    bytes: int
    first_ns: int
    last_ns: int


def _retrievals(study_uid: str) -> list[_Retrieved]:
    query = (
        Retrieval.select(
            Retrieval.job_id,
            pw.fn.COUNT(Retrieval.path),
            pw.fn.SUM(Retrieval.size),
            pw.fn.MIN(Retrieval.retrieved_ns),
            pw.fn.MAX(Retrieval.retrieved_ns),
        )
        .where(Retrieval.study_uid == study_uid)
        .group_by(Retrieval.job_id)
        .limit(PAGE_ROWS)
    )
    found = {str(row[0]): row for row in tuples(query)}
    requests = _of_keys(InferenceRequest, InferenceRequest.job_id, list(found))
    return [_Retrieved(row, row.job_id, *map(int, found[row.job_id][1:])) for row in requests]


def _retrieval_events(of: _Retrieved) -> Iterable[_Happened]:
    told: dict[str, str | int | None] = {"transactionId": of.request.transaction_id, "jobId": of.job_id}
    yield of.request.created_ns, "RequestAccepted", told
    yield of.first_ns, "FirstInstanceRetrieved", told
    yield of.last_ns, "LastInstanceRetrieved", {**told, "instances": of.instances}


def _retrieval(of: _Retrieved) -> JourneyRetrieval:
    return JourneyRetrieval(
        transaction_id=of.request.transaction_id,
        job_id=of.job_id,
        instances=of.instances,
        bytes=of.bytes,
        first_retrieved=iso(of.first_ns),
        last_retrieved=iso(of.last_ns),
    )


def _group_events(row: Group) -> Iterable[_Happened]:
    told: dict[str, str | int | None] = {"groupId": row.group_id, "aeTitle": row.ae_title, "revision": row.revision}
    yield row.opened_ns, "GroupOpened", told
    if row.closed_ns is not None:
        yield row.closed_ns, "GroupClosed", {**told, "instances": row.instances}


def _job_events(job: Job, submission: Submission | None, run: Run | None) -> Iterable[_Happened]:
    told: dict[str, str | int | None] = {"jobId": job.job_id, "jobName": job.name}
    yield job.created_ns, "JobCreated", {**told, "pipelineId": job.pipeline_id, "instances": job.instances}
    for state, at in submission.steps if submission else ():
        yield at, "JobAdvanced", {**told, "state": state}
    if run is not None and run.queued_ns:
        yield run.queued_ns, "RunQueuedAgain", {**told, "runId": run.run_id}
    if run is not None and run.started_ns is not None:
        yield run.started_ns, "RunStarted", {**told, "runId": run.run_id}
    if run is not None and run.ended_ns is not None:
        yield run.ended_ns, "RunEnded", {**told, "runId": run.run_id, "state": run.state, "exitCode": run.exit_code}


_Made = tuple[str, int, int]  # to which destination, how many, when the last of them


def _deliveries(task_ids: Sequence[str]) -> dict[str, list[_Made]]:
    """What was delivered of each task."""
    made: dict[str, list[_Made]] = {task_id: [] for task_id in task_ids}
    columns = Delivery.task_id, Delivery.destination
    for page in _portions(task_ids):
        query = Delivery.select(*columns, pw.fn.COUNT(Delivery.delivery_id), pw.fn.MAX(Delivery.updated_ns)).where(
            Delivery.task_id.in_(page) & (Delivery.state == DeliveryState.DELIVERED)
        )
        for task_id, destination, count, last_ns in tuples(query.group_by(*columns)):
            made[task_id].append((destination, count, last_ns))
    return made


def _portions(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + PAGE_ROWS] for start in range(0, len(keys), PAGE_ROWS))


def _task_events(row: ExportTask, export: ExportSummary, job_name: str, made: Iterable[_Made]) -> Iterable[_Happened]:
    told: dict[str, str | int | None] = {"jobId": row.job_id, "jobName": job_name, "taskId": row.task_id}
    told |= {"agent": row.agent, "destination": row.destination}
    yield row.created_ns, "ExportTaskCreated", {**told, "files": row.files}
    for destination, delivered, last_ns in made:
        yield last_ns, "DeliveriesMade", {**told, "destination": destination, "delivered": delivered}
    if row.state not in (TaskState.PENDING, TaskState.IN_PROGRESS):
        counted = {"delivered": export.delivered, "failed": export.failed}
        yield row.updated_ns, "ExportTaskEnded", {**told, "state": row.state, **counted}


def _group(row: Group, of_study: int) -> JourneyGroup:
    return JourneyGroup(
        group_id=row.group_id,
        ae_title=row.ae_title,
        revision=row.revision,
        state=row.state,
        instances=row.instances,
        of_study=of_study,
        opened=iso(row.opened_ns),
        closed=None if row.closed_ns is None else iso(row.closed_ns),
    )


def _job(row: Job, submission: Submission | None, run: Run | None) -> JourneyJob:
    return JourneyJob(
        job_id=row.job_id,
        job_name=row.name,
        group_id=row.group_id,
        pipeline_id=row.pipeline_id,
        state=submission.state if submission else "Queued",
        platform_state=submission.platform_state if submission else "",
        last_error=submission.last_error if submission else "",
        created=iso(row.created_ns),
        steps=steps_of(submission),
        run_started=None if run is None or run.started_ns is None else iso(run.started_ns),
        run_ended=None if run is None or run.ended_ns is None else iso(run.ended_ns),
        exit_code=run.exit_code if run else None,
    )
