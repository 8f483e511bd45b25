"""What need not be remembered any more. Each owner deletes rows of its own, a few at a time.

A job is forgotten first, with its group or its request, when nothing that it led to matters any more; its submission,
run and export tasks go when their job is gone. Never the other way round: a job without a submission is one that the
submitter has yet to take over, and would be submitted again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import peewee as pw

from protocol.clock import NANOSECONDS, CautiousClock
from protocol.config import Settings
from protocol.ledger.database import PAGE_ROWS, Ledger, tuples
from protocol.ledger.results import with_files
from protocol.ledger.tables import ExportTask, Job, Result, Submission
from protocol.logs import EventLogger
from protocol.states import RUN_UNDER_WAY, JobState, TaskState

LOOK_SECONDS = 10.0
"""Between two looks of an owner, each at one page of rows of each of its tables."""

_LOOKS_AT_ONCE = 4  # at one table, while there is much: 17 million rows a day
_DAY_NS = 86_400 * NANOSECONDS
_FULL_SHARE, _SPENT_SHARE = 0.7, 0.9  # of the ledger's quota; the second is where people are warned
_FEWEST_DAYS = 1.0


class Past:
    """Rows of one table that may be past.

    Args:
        ledger: the ledger.
        key: a unique column of the table.
        is_past: the condition on a row, given the time in ns before which it must be over.
        among: a condition that an index finds, when few rows of the table may be past.
        at_once: rows that are looked at.
        parts: columns of other tables; the rows in which they have the key's value go before the row.
        may_go: asked for the keys of rows that are past.
    """

    def __init__(
        self,
        ledger: Ledger,
        key: Any,
        is_past: Callable[[int], Any],
        *,
        among: Any = None,
        at_once: int = PAGE_ROWS,
        parts: Sequence[Any] = (),
        may_go: Callable[[Any], bool] = lambda _: True,
    ) -> None:
        self._ledger = ledger
        self._key = key
        self._is_past = is_past
        self._among = among
        self._at_once = at_once
        self._parts = parts
        self._may_go = may_go
        self._last: Any = None
        self.table = key.model

    def look(self, before_ns: int) -> int:
        """Look at the next page of rows, and delete what is past of it; returns how many rows that were.

        A row with many parts takes several looks, since one deletes about a page of rows.

        Args:
            before_ns: what was over then is past, in ns of the wall clock.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        behind = (self._key > self._last) if self._last is not None else None
        conditions = [each for each in (self._among, behind) if each is not None]
        query = self.table.select(self._key).where(*conditions) if conditions else self.table.select(self._key)
        page = [key for (key,) in tuples(query.order_by(self._key).limit(self._at_once))]
        is_past = self._is_past(before_ns)
        # As a column, since among the conditions it might have SQLite look at all rows that another index finds.
        judged = self.table.select(self._key, is_past.alias("is_past")).where(self._key.in_(page)).order_by(self._key)
        past = [key for key, it_is in tuples(judged) if it_is and self._may_go(key)] if page else []
        deleted = 0
        if past:
            with self._ledger.transaction():
                for key in past:
                    if deleted < PAGE_ROWS:
                        deleted += self._delete(key, is_past, PAGE_ROWS - deleted)
        if deleted < PAGE_ROWS:
            self._last = page[-1] if len(page) == self._at_once else None
        return deleted

    def _delete(self, key: Any, is_past: Any, most: int) -> int:
        """Delete a row, or parts of it when there are more than may be deleted now."""
        deleted = 0
        for column in self._parts:
            table, own_key = column.model, column.model._meta.primary_key
            if deleted < most:
                some = [each for (each,) in tuples(table.select(own_key).where(column == key).limit(most - deleted))]
                deleted += table.delete().where(own_key.in_(some)).execute() if some else 0
        if deleted < most:
            deleted += self.table.delete().where((self._key == key) & is_past).execute()
        return deleted


class Forgetting:
    """All that one owner forgets.

    Args:
        ledger: the ledger.
        log: of the actor.
        pasts: its tables; of two that are looked at together the first goes first.
    """

    def __init__(self, ledger: Ledger, log: EventLogger, *pasts: Past) -> None:
        self._ledger = ledger
        self._log = log
        self._pasts = pasts
        self._clock = CautiousClock()

    def look(self, settings: Settings) -> None:
        """Forget some of what is past; to be called every `LOOK_SECONDS`.

        Args:
            settings: that are in force.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        before_ns = self._clock.now_ns() - int(kept_days(settings, self._ledger) * _DAY_NS)
        for past in self._pasts:
            for _ in range(_LOOKS_AT_ONCE):
                rows = past.look(before_ns)
                if rows:
                    self._log.debug("forgotten", table=past.table._meta.table_name, rows=rows)
                if rows < PAGE_ROWS:
                    break


def kept_days(settings: Settings, ledger: Ledger) -> float:
    """How long what is over is remembered.

    That is `historyDays`; less when an SQLite ledger comes near its quota, so that it forgets before intake stops.

    Raises:
        peewee.PeeweeException: the ledger does not answer.
    """
    days, quota = float(settings.history_days), settings.database_quota_bytes
    used = ledger.used_bytes() if quota else None
    if not quota or used is None:
        return days
    left = (_SPENT_SHARE - used / quota) / (_SPENT_SHARE - _FULL_SHARE)
    return max(min(days, _FEWEST_DAYS), days * min(1.0, max(0.0, left)))


def jobs_that_matter(which: Any, before_ns: int) -> Any:
    """Jobs that have not been over for so long.

    They are still to be submitted, faulted, to be canceled, or not at their end on the platform, or have results that
    are kept, or exports that are under way, or one of all this has changed lately.

    Args:
        which: a condition on `Job`.
        before_ns: when they must have been over.

    Returns:
        A select, for EXISTS.
    """
    is_done = Submission.state.in_((JobState.COMPLETED, JobState.DISCARDED))
    to_be_canceled = (Submission.state == JobState.DISCARDED) & (Submission.platform_state == "")
    goes_on = Submission.platform_state.in_(RUN_UNDER_WAY)
    # A task of Clara's results service names the platform's job, or its payload.
    of_job = (
        (ExportTask.job_id == Job.job_id)
        | ((Submission.platform_job_id != "") & (ExportTask.job_id == Submission.platform_job_id))
        | ((Submission.payload_id != "") & (ExportTask.payload_id == Submission.payload_id))
    )
    is_under_way = ExportTask.state.in_((TaskState.PENDING, TaskState.IN_PROGRESS))
    exports = ExportTask.select(pw.SQL("1")).where(of_job & (is_under_way | (ExportTask.updated_ns >= before_ns)))
    matters = (
        Submission.job_id.is_null()
        | ~is_done
        | to_be_canceled
        | goes_on
        | (Submission.updated_ns >= before_ns)
        | with_files()
        | pw.fn.EXISTS(exports)
    )
    return (
        Job.select(pw.SQL("1"))
        .join(Submission, pw.JOIN.LEFT_OUTER, on=(Submission.job_id == Job.job_id))
        .switch(Job)
        .join(Result, pw.JOIN.LEFT_OUTER, on=(Result.job_id == Job.job_id))
        .where(which & matters)
    )
