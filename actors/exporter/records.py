"""The rows of tasks and deliveries: this actor owns both tables, and every change of them is here, or in `lent.py`.

All may raise what peewee raises; then nothing has changed, and it may be called again.
"""

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import peewee as pw

from actors.exporter import destinations
from actors.exporter.destinations import Target
from actors.exporter.lanes import LONGEST_PAUSE_SECONDS
from actors.exporter.results.base import Offer
from actors.exporter.sender import Outcome, Report
from actors.exporter.tasks import FAILURE, SUCCESS, Batch, Count, Missing, Verdict
from protocol.availability import Availability
from protocol.clock import NANOSECONDS
from protocol.config.settings import Scu
from protocol.ledger import PAGE_ROWS, Delivery, ExportTask, Ledger, pages, tuples
from protocol.states import DeliveryState, TaskState, advance

NEVER_NS = 2**62
"""The next try of a task that its results service will offer again."""
_ASK_AGAIN_SECONDS = 5.0  # clocks are set
_LONGEST_REASON = 500
_INSERTED_ROWS = 100  # at once: PostgreSQL and SQLite limit the values of a statement
_UNDER_WAY = (TaskState.PENDING, TaskState.IN_PROGRESS)
EMBEDDED = "embedded"


class Records:
    """All tasks and their deliveries.

    Args:
        ledger: the ledger.
        availability: told of every commit.
    """

    def __init__(self, ledger: Ledger, availability: Availability) -> None:
        self._ledger = ledger
        self._availability = availability
        self._changed: list[tuple[ExportTask, dict[str, Any]]] = []
        self._nothing_until = 0.0

    # Tasks come.

    def record(self, offers: Sequence[Offer], origin: str, scu: Scu) -> int:
        """Take tasks over; one that is known is taken up again, or its outcome told again. Returns how many are new."""
        new = 0
        for start in range(0, len(offers), PAGE_ROWS):
            page = {offer.task_id: offer for offer in offers[start : start + PAGE_ROWS]}
            with self.commit():
                for row in list(ExportTask.select().where(ExportTask.task_id.in_(list(page)))):
                    self._offered_again(row, page.pop(row.task_id))
                for offer in page.values():
                    self._insert(offer, origin, scu)
                new += len(page)
        return new

    def _insert(self, offer: Offer, origin: str, scu: Scu) -> None:
        now = time.time_ns()
        ExportTask.create(
            task_id=offer.task_id,
            origin=origin,
            job_id=offer.job_id,
            payload_id=offer.payload_id,
            pipeline_id=offer.pipeline_id,
            agent=offer.agent,
            transport=destinations.transport_of(offer.agent, scu),
            parameters=offer.parameters,
            destination=offer.destination or destinations.named(offer.parameters),
            uris=list(offer.uris),
            files=len(offer.uris),
            retries=offer.retries,
            created_ns=now,
            updated_ns=now,
        )

    def _offered_again(self, row: ExportTask, offer: Offer) -> None:
        """Its service does not know yet what became of it, or wants it tried again."""
        if row.report or row.origin == EMBEDDED or row.state == TaskState.IN_PROGRESS:
            return
        if row.state == TaskState.PENDING and row.next_try_ns == NEVER_NS:
            self.change(row, next_try_ns=0, retries=max(row.retries, offer.retries))
        elif row.state == TaskState.SUCCEEDED:
            self.change(row, report=SUCCESS)
        elif row.state in (TaskState.FAILED, TaskState.CANCELED):
            self.change(row, report=FAILURE)

    # Tasks begin.

    def waited_for(self) -> list[str]:
        """Destinations for which tasks wait for a try, that of the oldest task first.

        It is asked twice a second. All changes are made here, so while there are none, the ledger is asked again only
        when the next task is due, and now and then.
        """
        if time.monotonic() < self._nothing_until:
            return []
        query = ExportTask.select(ExportTask.destination).where(_is_due()).group_by(ExportTask.destination)
        found = [destination for (destination,) in tuples(query.order_by(pw.fn.MIN(ExportTask.created_ns)))]
        if not found:
            ((next_ns,),) = tuples(ExportTask.select(pw.fn.MIN(ExportTask.next_try_ns)).where(_is_waiting()))
            pause = _ASK_AGAIN_SECONDS if next_ns is None else (next_ns - time.time_ns()) / NANOSECONDS
            self._nothing_until = time.monotonic() + min(pause, _ASK_AGAIN_SECONDS)
        return found

    def due(self, destination: str, most: int) -> list[str]:
        """IDs of tasks that wait for a try at a destination, the oldest first."""
        query = ExportTask.select(ExportTask.task_id).where(_is_due() & (ExportTask.destination == destination))
        ordered = query.order_by(ExportTask.created_ns, ExportTask.task_id)
        return [task_id for (task_id,) in tuples(ordered.limit(most))]

    def begin(self, task_ids: Collection[str]) -> list[ExportTask]:
        """Take tasks from those that wait."""
        with self.commit():
            rows = rows_of(ExportTask.task_id.in_(list(task_ids)) & (ExportTask.state == TaskState.PENDING))
            for row in rows:
                self.change(row, state=TaskState.IN_PROGRESS)
        return rows

    def under_way(self) -> list[ExportTask]:
        """What the last process had begun."""
        query = ExportTask.select().where((ExportTask.state == TaskState.IN_PROGRESS) & (ExportTask.transport != ""))
        return [row for page in pages(query, ExportTask.task_id) for row in page]

    def put_back(self, row: ExportTask, reason: str, pause_seconds: float) -> None:
        """A try did not begin, through no fault of the task."""
        with self.commit():
            self.change(row, state=TaskState.PENDING, last_error=reason, next_try_ns=in_seconds(pause_seconds))

    # Deliveries.

    def wanted(self, row: ExportTask, targets: Sequence[Target]) -> list[str]:
        """Files that not every destination has, in the task's order."""
        done = [
            {each.uri for page in _deliveries(row, target) for each in page if each.state == DeliveryState.DELIVERED}
            for target in targets
        ]
        return [uri for uri in row.uris if any(uri not in uris for uris in done)]

    def plan(self, row: ExportTask, targets: Sequence[Target], problems: dict[str, str]) -> dict[str, list[Missing]]:
        """Put on record what is to be delivered, and return what is missing at each destination.

        Args:
            row: the task.
            targets: its destinations.
            problems: why files cannot be sent.
        """
        now = time.time_ns()
        with self.commit():
            new = []
            for target in targets:
                known = {each.uri for page in _deliveries(row, target) for each in page}
                new += [
                    {"task_id": row.task_id, "destination": target.name, "uri": uri, "updated_ns": now}
                    for uri in row.uris
                    if uri not in known
                ]
            for start in range(0, len(new), _INSERTED_ROWS):
                Delivery.insert_many(new[start : start + _INSERTED_ROWS]).execute()
            self.change(row, destination=", ".join(target.name for target in targets) or row.destination)
            return {target.name: self._missing(row, target, problems) for target in targets}

    def _missing(self, row: ExportTask, target: Target, problems: dict[str, str]) -> list[Missing]:
        missing = []
        for page in _deliveries(row, target):
            for each in page:
                if each.state != DeliveryState.PENDING:
                    continue
                if each.uri in problems:
                    self._note(each.delivery_id, last_error=problems[each.uri], tries=each.tries + 1)
                else:
                    missing.append(Missing(delivery_id=each.delivery_id, uri=each.uri, tries=each.tries))
        return sorted(missing, key=lambda each: each.delivery_id)  # in the task's order

    def note_reports(self, reports: Sequence[tuple[Missing, Report]]) -> None:
        """What destinations have answered."""
        with self.commit():
            for missing, report in reports:
                columns: dict[str, Any] = {"tries": missing.tries + 1, "last_error": report.reason[:_LONGEST_REASON]}
                if report.sop_instance_uid:
                    columns["sop_instance_uid"] = report.sop_instance_uid
                if report.outcome is Outcome.DELIVERED:
                    columns["state"] = advance(DeliveryState.PENDING, DeliveryState.DELIVERED)
                elif report.outcome is Outcome.REFUSED:
                    columns["state"] = advance(DeliveryState.PENDING, DeliveryState.REFUSED)
                self._note(missing.delivery_id, **columns)

    def note_down(self, batches: Sequence[tuple[Batch, str]]) -> None:
        """Why destinations did not answer for files that they should have; the first of each may be why."""
        with self.commit():
            for batch, reason in batches:
                waiting = [missing.delivery_id for missing in batch.unanswered]
                for start in range(0, len(waiting), PAGE_ROWS):
                    Delivery.update(last_error=reason[:_LONGEST_REASON], updated_ns=time.time_ns()).where(
                        Delivery.delivery_id.in_(waiting[start : start + PAGE_ROWS])
                    ).execute()
                for missing in batch.unanswered[:1]:
                    self._note(missing.delivery_id, tries=missing.tries + 1)

    def counts(self, row: ExportTask, targets: Sequence[str]) -> list[Count]:
        """How far each destination is."""
        found = {name: Count() for name in targets}
        query = Delivery.select(Delivery.destination, Delivery.state, pw.fn.COUNT(Delivery.delivery_id)).where(
            Delivery.task_id == row.task_id
        )
        for destination, state, count in tuples(query.group_by(Delivery.destination, Delivery.state)):
            if destination not in found:
                continue
            if state == DeliveryState.DELIVERED:
                found[destination].delivered = count
            elif state == DeliveryState.PENDING:
                found[destination].pending = count
        return list(found.values())

    def some_error(self, row: ExportTask) -> str:
        """Why one of a task's files is not delivered."""
        query = Delivery.select(Delivery.last_error).where(
            (Delivery.task_id == row.task_id)
            & (Delivery.state != DeliveryState.DELIVERED)
            & (Delivery.last_error != "")
        )
        found = tuples(query.order_by(Delivery.updated_ns.desc()).limit(1))
        return str(found[0][0]) if found else ""

    # Tasks end.

    def finish(
        self, row: ExportTask, verdict: Verdict, *, reason: str, unreachable: bool, pause_seconds: float
    ) -> None:
        """Commit what a try means for a task."""
        again = verdict.state is TaskState.PENDING
        by_service = row.origin != EMBEDDED
        with self.commit():
            self.change(
                row,
                state=verdict.state,
                last_error=reason[:_LONGEST_REASON],
                unreachable=unreachable and verdict.state is TaskState.FAILED,
                report=verdict.report if by_service else "",
                retries=row.retries + again,
                next_try_ns=(NEVER_NS if by_service else in_seconds(pause_seconds)) if again else 0,
            )

    def to_report(self) -> list[tuple[str, str]]:
        """Outcomes that a results service has still to be told: IDs and reports."""
        query = ExportTask.select(ExportTask.task_id, ExportTask.report).where(ExportTask.report > "")
        return [(task_id, report) for task_id, report in tuples(query.order_by(ExportTask.updated_ns).limit(PAGE_ROWS))]

    def held(self) -> int:
        """How many tasks of a results service of others are not over."""
        of_others = (ExportTask.origin != EMBEDDED) & (ExportTask.next_try_ns < NEVER_NS)
        return int(ExportTask.select().where(of_others & ExportTask.state.in_(_UNDER_WAY)).count())

    def reported(self, task_id: str, report: str) -> None:
        """Its results service knows."""
        with self.commit():
            ExportTask.update(report="").where(
                (ExportTask.task_id == task_id) & (ExportTask.report == report)
            ).execute()

    # Commands.

    def retry(self, task_ids: Collection[str], destination: str) -> list[str]:
        """Take up what failed, and try at once what waits; returns destinations, one for each task."""
        return self._for_all(task_ids, destination, (TaskState.FAILED, TaskState.PENDING), self._retry)

    def _retry(self, row: ExportTask) -> bool:
        if not row.transport:
            return False
        if row.state == TaskState.FAILED:
            # Compared as it is, SQLite would look at all tasks' deliveries in that state.
            is_refused = Delivery.state.concat("") == DeliveryState.REFUSED
            Delivery.update(state=advance(DeliveryState.REFUSED, DeliveryState.PENDING), tries=0).where(
                (Delivery.task_id == row.task_id) & is_refused
            ).execute()
            self.change(row, state=TaskState.PENDING, retries=0, report="", unreachable=False, next_try_ns=0)
        else:
            self.change(row, next_try_ns=0)
        return True

    def revive(self, destination: str) -> int:
        """The destination answers again: try what failed for no other reason."""
        with self.commit():
            rows = rows_of(
                (ExportTask.state == TaskState.FAILED)
                & ExportTask.unreachable
                & (ExportTask.destination == destination)
                & (ExportTask.origin == EMBEDDED)
            )
            for row in rows:
                self.change(row, state=TaskState.PENDING, retries=0, unreachable=False, next_try_ns=0)
        return len(rows)

    def unreachable(self) -> dict[str, str]:
        """Destinations for which tasks failed since they did not answer, each with one of those tasks."""
        query = ExportTask.select(ExportTask.destination, pw.fn.MIN(ExportTask.task_id)).where(
            (ExportTask.state == TaskState.FAILED) & ExportTask.unreachable & (ExportTask.origin == EMBEDDED)
        )
        return dict(tuples(query.group_by(ExportTask.destination).limit(PAGE_ROWS)))

    def cancel(self, task_ids: Collection[str], destination: str) -> list[str]:
        """Give tasks up; returns their IDs."""
        states = (TaskState.FAILED, TaskState.PENDING, TaskState.IN_PROGRESS)
        return self._for_all(task_ids, destination, states, self._cancel, ids=True)

    def _cancel(self, row: ExportTask) -> bool:
        told = row.origin != EMBEDDED and row.state != TaskState.FAILED
        self.change(
            row, state=TaskState.CANCELED, report=FAILURE if told else row.report, unreachable=False, next_try_ns=0
        )
        return True

    # Parts.

    def _for_all(
        self,
        task_ids: Collection[str],
        destination: str,
        states: Collection[TaskState],
        change: Any,
        ids: bool = False,
    ) -> list[str]:
        query = ExportTask.select().where(ExportTask.state.in_(list(states)))
        if task_ids:
            query = query.where(ExportTask.task_id.in_(list(task_ids)))
        if destination:
            query = query.where(pw.fn.LOWER(ExportTask.destination) == destination.lower())
        changed: list[str] = []
        for page in pages(query, ExportTask.task_id):
            with self.commit():
                changed += [row.task_id if ids else row.destination for row in page if change(row)]
        return changed

    @staticmethod
    def _note(delivery_id: int, **columns: Any) -> None:
        Delivery.update(**columns, updated_ns=time.time_ns()).where(Delivery.delivery_id == delivery_id).execute()

    def change(self, row: ExportTask, **columns: Any) -> None:
        """Change a row inside `commit`; in memory it changes when that is committed."""
        if "state" in columns:
            columns["state"] = advance(TaskState(row.state), columns["state"])
        columns["updated_ns"] = time.time_ns()
        ExportTask.update(**columns).where(ExportTask.task_id == row.task_id).execute()
        self._changed.append((row, columns))

    @contextlib.contextmanager
    def commit(self) -> Iterator[None]:
        """Changes that are made together, or not at all."""
        self._changed = []
        self._nothing_until = 0.0
        with self._ledger.transaction():
            yield
        self._availability.committed()
        for row, columns in self._changed:
            for name, value in columns.items():
                setattr(row, name, value)


def _is_waiting() -> Any:
    return (ExportTask.state == TaskState.PENDING) & (ExportTask.transport != "")


def _is_due() -> Any:
    return _is_waiting() & has_come(ExportTask.next_try_ns, LONGEST_PAUSE_SECONDS)


def has_come(moment: Any, longest_seconds: float) -> Any:
    """Whether a time is over, or lies so much further ahead than it was made that the clock was set back since."""
    now = time.time_ns()
    return (moment <= now) | ((moment > now + int(2 * longest_seconds * NANOSECONDS)) & (moment < NEVER_NS))


def rows_of(condition: Any) -> list[ExportTask]:
    """Tasks that it is true of; not more than can be worked on at once."""
    return list(ExportTask.select().where(condition).limit(PAGE_ROWS * 20))


def _deliveries(row: ExportTask, target: Target) -> Iterator[list[Delivery]]:
    """A task's to one destination, as its index has them, in pages.

    Asked for those in one state, SQLite would look at the deliveries of all tasks that are in it.
    """
    of_both = (Delivery.task_id == row.task_id) & (Delivery.destination == target.name)
    return pages(Delivery.select().where(of_both), Delivery.uri)


def in_seconds(seconds: float) -> int:
    """The wall time then, in nanoseconds."""
    return time.time_ns() + int(seconds * NANOSECONDS)
