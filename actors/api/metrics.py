"""Metrics for Prometheus: computed when they are asked for, from the board and by queries that an index answers."""

from collections.abc import Iterable, Iterator
from typing import Any

import peewee as pw
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from actors.api.book import Book
from actors.api.quarantine import quarantined
from protocol.board import Board
from protocol.errors import LedgerError
from protocol.ledger import Delivery, ExportTask, Group, InferenceRequest, Instance, Job, Run, Submission
from protocol.logs import EventLogger
from protocol.states import DeliveryState, GroupState, JobState, RequestState, RunState, TaskState


class Metrics(Collector):
    """The gateway's metrics.

    Args:
        board: what must hold over all receivers.
        book: the ledger; while it cannot be read, its metrics are left out and `ledger_up` is 0.
    """

    def __init__(self, board: Board, book: Book) -> None:
        self._board = board
        self._book = book
        self._log = EventLogger("adapter.api")
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance, so that registering asks no ledger."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        board = self._board
        yield _gauge("associations_active", "Associations over all receivers.", board.active_associations)
        yield CounterMetricFamily(
            "dicom_adapter_stored_bytes", "Bytes stored since the supervisor started.", value=board.stored_bytes
        )
        yield _gauge("free_bytes", "Free bytes of the spool, as the guardian saw them.", board.free_bytes)
        yield _gauge("reserved_bytes", "Below this many free bytes intake is paused.", board.reserved_bytes)
        yield _gauge("intake_paused", "Whether nothing more is taken in.", int(board.intake))
        try:
            of_ledger = self._of_ledger()
        except (LedgerError, pw.PeeweeException) as error:
            self._log.warning("metrics_incomplete", reason=str(error))
            of_ledger = []
        yield _gauge("ledger_up", "Whether the ledger could be read.", int(bool(of_ledger)))
        yield from of_ledger

    def _of_ledger(self) -> list[Metric]:
        with self._book.use(wait_seconds=0.0):
            jobs = _counts(Submission)
            untaken = Job.select().join(Submission, pw.JOIN.LEFT_OUTER, on=(Submission.job_id == Job.job_id))
            waiting = untaken.where(Submission.job_id.is_null()).count()
            jobs[JobState.QUEUED] = jobs.get(JobState.QUEUED, 0) + waiting
            runs = _counts(Run)
            requests = _counts(InferenceRequest)
            tasks = _counts(ExportTask)
            deliveries = _counts(Delivery)
            held = Instance.select().where(*quarantined()).count()
            open_groups = Group.select().where(Group.state == GroupState.OPEN).count()
        return [
            _by_state("jobs", "Jobs by state.", {state: jobs.get(state, 0) for state in JobState}),
            _by_state("requests", "Inference requests by state.", {s: requests.get(s, 0) for s in RequestState}),
            _by_state("runs", "Runs of the embedded platform by state.", {s: runs.get(s, 0) for s in RunState}),
            _by_state("export_tasks", "Export tasks by state.", {s: tasks.get(s, 0) for s in TaskState}),
            _by_state("deliveries", "Files on their way, by state.", {s: deliveries.get(s, 0) for s in DeliveryState}),
            _gauge("quarantined_instances", "Instances that wait for a person's decision.", held),
            _gauge("open_groups", "Groups that take more instances.", open_groups),
        ]


def _counts(table: Any) -> dict[str, int]:
    query = table.select(table.state, pw.fn.COUNT(table.state)).group_by(table.state)
    return dict(list(query.tuples()))


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dicom_adapter_{name}", about, value=value)


def _by_state(name: str, about: str, counts: dict[Any, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"dicom_adapter_{name}", about, labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return family
