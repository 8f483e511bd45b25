"""What holds the spool's space: sums by AE title over instances on record, by what they wait for, and over results.

An instance that is on disk and not on record yet is in no sum; it will be in a moment.
"""

import enum
import threading
import time
from collections import defaultdict
from typing import Annotated, Any

import msgspec
import peewee as pw
from msgspec import Meta

from actors.api.book import Book
from actors.api.entities import Entity
from protocol.board import Board, Intake
from protocol.ledger import Group, Instance, Job, Reclaim, Retrieval, Run, Submission, tuples
from protocol.ledger.runs import may_read_input
from protocol.states import RUN_UNDER_WAY, GroupState, InstanceState, JobState

_FRESH_SECONDS = 2.0
_FRESH_TIMES = 10  # and so many times what a sum takes: with a million instances on record that is some seconds
_REQUESTS = "(inference requests)"
_OVER = (JobState.COMPLETED, JobState.DISCARDED)


class Hold(enum.StrEnum):
    """Why something is kept, the strongest reason of a group first."""

    FAULTED = "faulted"
    QUEUED = "queued"
    PIPELINE = "waiting for its pipeline"
    FAILED = "its pipeline failed"
    RETRIEVING = "waiting for its retrieval"
    COLLECTING = "waiting for its group"
    REPEATS = "kept for repeats"
    QUARANTINED = "quarantined"
    DISCARDED = "discarded"
    RESULTS = "results of pipelines"


_STRENGTH = {hold: place for place, hold in enumerate(Hold)}


class Holder(Entity, frozen=True, kw_only=True):
    """Instances, or results, that one AE title has in the spool for one reason."""

    ae_title: Annotated[str, Meta(description=f"Called AE title, or {_REQUESTS}.", examples=["COVIDAET"])]
    what: Annotated[str, Meta(description=f"Why: {', '.join(Hold)}.", examples=[Hold.QUEUED.value])]
    instances: Annotated[int, Meta(description="How many; of results, how many runs have some.", examples=[400])]
    bytes: Annotated[int, Meta(examples=[210_000_000])]


class StorageUse(Entity, frozen=True, kw_only=True):
    """The disk as the guardian sees it, and what holds the space."""

    state: Annotated[str, Meta(description="Of intake: open or paused.", examples=["open"])]
    free_bytes: Annotated[int, Meta(examples=[500_000_000_000])]
    reserved_bytes: Annotated[int, Meta(description="Below so many free bytes intake pauses.", examples=[5 * 10**9])]
    holders: Annotated[tuple[Holder, ...], Meta(description="The largest first.")]


class Storage:
    """Sums up what is on record; whoever asks often is told the same for a moment.

    Args:
        book: the ledger.
        board: where the guardian says how much room there is.
    """

    def __init__(self, book: Book, board: Board) -> None:
        self._book = book
        self._board = board
        self._lock = threading.Lock()
        self._holders: tuple[Holder, ...] = ()
        self._fresh_until = 0.0

    def use(self) -> StorageUse:
        """How much room there is, and what holds the rest.

        Raises:
            LedgerError: the ledger is not open.
        """
        with self._lock:
            began = time.monotonic()
            if began >= self._fresh_until:
                self._holders = self._sum_up()
                ended = time.monotonic()
                self._fresh_until = ended + max(_FRESH_SECONDS, _FRESH_TIMES * (ended - began))
            holders = self._holders
        return StorageUse(
            state="paused" if self._board.intake is Intake.PAUSED else "open",
            free_bytes=self._board.free_bytes,
            reserved_bytes=self._board.reserved_bytes,
            holders=holders,
        )

    def _sum_up(self) -> tuple[Holder, ...]:
        sums: dict[tuple[str, Hold], Sum] = defaultdict(Sum)
        with self._book.use():
            groups = _groups()
            for group_id, ae_title, state, count, size in tuples(_instances()):
                hold = groups.get(group_id) if group_id is not None else _without_group(state)
                if hold is not None:  # else its files are gone, and its rows will be
                    sums[ae_title, hold].add(count, size)
            for submission, run, keeps_input, count, size in tuples(_retrieved()):
                hold = _of_job("", submission, run, keeps_input)
                sums[_REQUESTS, Hold.RETRIEVING if submission == JobState.CREATED else hold].add(count, size)
            for ae_title, count, size in tuples(_results()):
                sums[ae_title or _REQUESTS, Hold.RESULTS].add(count, size)
        holders = (
            Holder(ae_title=ae_title, what=hold.value, instances=each.count, bytes=each.bytes)
            for (ae_title, hold), each in sums.items()
        )
        return tuple(sorted(holders, key=lambda holder: (-holder.bytes, holder.ae_title, holder.what)))


class Sum(msgspec.Struct):
    """A count and its bytes."""

    count: int = 0
    bytes: int = 0

    def add(self, count: int, size: int) -> None:
        """Some more."""
        self.count += count
        self.bytes += int(size)


def _groups() -> dict[int, Hold]:
    """Why each group is kept whose files are still there: the strongest reason that a job of it gives."""
    query = (
        Group.select(Group.group_id, Group.state, Job.job_id, Submission.state, Run.state, Run.keeps_input)
        .join(Job, pw.JOIN.LEFT_OUTER, on=(Job.group_id == Group.group_id))
        .join(Submission, pw.JOIN.LEFT_OUTER, on=(Submission.job_id == Job.job_id))
        .join(Run, pw.JOIN.LEFT_OUTER, on=(Run.job_id == Job.job_id))
        .join(Reclaim, pw.JOIN.LEFT_OUTER, on=(Reclaim.group_id == Group.group_id))
        .where(Group.state.in_((GroupState.OPEN, GroupState.CLOSED)) & Reclaim.group_id.is_null())
    )
    holds: dict[int, Hold] = {}
    for group_id, state, job_id, submission, run, keeps_input in tuples(query):
        hold = Hold.COLLECTING if state == GroupState.OPEN else _of_job(job_id, submission, run, keeps_input)
        holds[group_id] = min(hold, holds.get(group_id, hold), key=_STRENGTH.__getitem__)
    return holds


def _of_job(job_id: str | None, submission: str | None, run: str | None, keeps_input: bool | None) -> Hold:
    if job_id is None:
        return Hold.REPEATS
    if submission == JobState.FAULTED:
        return Hold.FAULTED
    if submission not in _OVER:
        return Hold.QUEUED
    if run in RUN_UNDER_WAY:
        return Hold.PIPELINE
    return Hold.FAILED if keeps_input else Hold.REPEATS


def _without_group(state: str) -> Hold:
    return Hold.DISCARDED if state == InstanceState.DISCARDED else Hold.QUARANTINED


def _instances() -> Any:
    group = (Instance.group_id, Instance.called_ae_title)
    without_group = pw.Case(None, [(Instance.group_id.is_null(), Instance.state)], "")
    counted = (pw.fn.COUNT(Instance.identifier), pw.fn.SUM(Instance.size))
    return Instance.select(*group, without_group, *counted).group_by(*group, without_group)


def _retrieved() -> Any:
    """Files of requests whose job has not got them, or whose run reads them; others are deleted, or will be soon."""
    states = (Submission.state, Run.state, Run.keeps_input)
    return (
        Retrieval.select(*states, pw.fn.COUNT(Retrieval.path), pw.fn.SUM(Retrieval.size))
        .join(Submission, pw.JOIN.LEFT_OUTER, on=(Submission.job_id == Retrieval.job_id))
        .join(Run, pw.JOIN.LEFT_OUTER, on=(Run.job_id == Retrieval.job_id))
        .where(Submission.state.is_null() | Submission.state.not_in(_OVER) | may_read_input())
        .group_by(*states)
    )


def _results() -> Any:
    counted = (pw.fn.COUNT(Run.run_id), pw.fn.SUM(Run.kept_bytes))
    query = Run.select(Job.ae_title, *counted).join(Job, on=(Job.job_id == Run.job_id))
    return query.where(Run.kept_bytes > 0).group_by(Job.ae_title)
