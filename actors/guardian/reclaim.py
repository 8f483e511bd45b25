"""Deletes from the spool what every job of its group has, or a person gave up; never anything else."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator

import msgspec
import peewee as pw

from protocol import killpoints
from protocol.clock import NANOSECONDS
from protocol.ledger import (
    PAGE_ROWS,
    Group,
    InferenceRequest,
    Instance,
    Job,
    Ledger,
    Reclaim,
    Run,
    SealedShard,
    Submission,
    pages,
    tuples,
)
from protocol.ledger.runs import may_read_input
from protocol.spool import Spool, sync_directory, walk_files
from protocol.states import GroupState, InstanceState, JobState, RequestState

_GROUPS_AT_ONCE = 50
_FILES_A_COMMIT = 1000
_FILES_A_STEP = 50  # on a disk that is busy with syncs, one deletion may take tens of milliseconds
_AHEAD_NS = 60 * NANOSECONDS  # what closed later than so much from now closed before the clock was set back
_DONE = (JobState.COMPLETED, JobState.DISCARDED)
_RETRIEVED = (RequestState.COMPLETED, RequestState.FAILED)


class Freed(msgspec.Struct, frozen=True, kw_only=True):
    """What one step has deleted.

    Args:
        groups: whose files are all gone, which is committed.
        files: deleted.
        bytes: of these files.
    """

    groups: int = 0
    files: int = 0
    bytes: int = 0

    def __add__(self, other: "Freed") -> "Freed":
        return Freed(groups=self.groups + other.groups, files=self.files + other.files, bytes=self.bytes + other.bytes)


class _Deleted(msgspec.Struct, kw_only=True):
    """A group whose files were deleted, and which is not committed yet.

    Args:
        group_id: its row.
        files: that it had.
        bytes: of the files that were deleted now.
        kept: how many could not be deleted.
    """

    group_id: int
    files: int = 0
    bytes: int = 0
    kept: int = 0


class Reclaimer:
    """Finds what is done with, and deletes it.

    Args:
        ledger: read; `Reclaim` rows are written.
        spool: where the files are.
        keep_seconds: how long a closed group's files stay for comparison with repeats.
        failed: told why a file could not be deleted; its group is tried again later.
    """

    def __init__(self, ledger: Ledger, spool: Spool, keep_seconds: float, failed: Callable[[OSError], None]) -> None:
        self._ledger = ledger
        self._spool = spool
        self._keep_seconds = keep_seconds
        self._failed = failed

    def steps(self) -> Iterator[Freed]:
        """Delete everything that may be deleted now, a few files a step.

        Files first, then their directories are synced, then the group is recorded: a kill in between costs a
        repetition, and after a power cut no file is back that the ledger takes for deleted.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        waiting: list[_Deleted] = []
        shards: set[str] = set()
        for group_id in self._finished_groups():
            deleted = _Deleted(group_id=group_id)
            yield from self._delete_group(deleted, shards)
            if deleted.kept:
                continue
            waiting.append(deleted)
            if sum(each.files for each in waiting) >= _FILES_A_COMMIT:
                yield from self._record(waiting, shards)
                waiting, shards = [], set()
        if waiting:
            yield from self._record(waiting, shards)
        yield from self._delete_given_up()
        yield from self._delete_requests()

    def _delete_requests(self) -> Iterator[Freed]:
        """What was retrieved for jobs that have it, or were given up, and that no run reads."""
        names = sorted(name for name in os.listdir(self._spool.requests) if not name.startswith("."))
        for start in range(0, len(names), PAGE_ROWS):
            query = (
                Submission.select(Submission.job_id)
                .join(Run, pw.JOIN.LEFT_OUTER, on=(Run.job_id == Submission.job_id))
                .join(InferenceRequest, pw.JOIN.LEFT_OUTER, on=(InferenceRequest.job_id == Submission.job_id))
                .where(
                    Submission.job_id.in_(names[start : start + PAGE_ROWS])
                    & Submission.state.in_(_DONE)
                    & (Run.state.is_null() | ~may_read_input())
                    & InferenceRequest.state.in_(_RETRIEVED)
                )
            )
            for (job_id,) in tuples(query):
                try:
                    files, size = remove_request(self._spool, job_id)
                except OSError as error:
                    self._failed(error)
                    continue
                killpoints.reach("guardian.request-deleted")
                yield Freed(files=files, bytes=size)

    def _finished_groups(self) -> Iterator[int]:
        """Closed groups that nobody needs any more; one that could not be deleted does not hold up those behind it."""
        needed = (
            Job.select(pw.SQL("1"))
            .join(Submission, pw.JOIN.LEFT_OUTER, on=(Submission.job_id == Job.job_id))
            .switch(Job)
            .join(Run, pw.JOIN.LEFT_OUTER, on=(Run.job_id == Job.job_id))
            .where(
                (Job.group_id == Group.group_id)
                # A payload is links: while a run may read it, now or again, deleting instances would free nothing.
                & (Submission.state.is_null() | Submission.state.not_in(_DONE) | may_read_input())
            )
        )
        now, kept = time.time_ns(), int(self._keep_seconds * NANOSECONDS)
        last = 0
        while True:
            query = (
                Group.select(Group.group_id)
                .join(Reclaim, pw.JOIN.LEFT_OUTER, on=(Reclaim.group_id == Group.group_id))
                .where(
                    (Group.state == GroupState.CLOSED)
                    & (Group.group_id > last)
                    & Reclaim.group_id.is_null()
                    & ((Group.closed_ns < now - kept) | (Group.closed_ns > now + _AHEAD_NS))
                    & ~pw.fn.EXISTS(needed)
                )
                .order_by(Group.group_id)
                .limit(_GROUPS_AT_ONCE)
            )
            found = [group for (group,) in tuples(query)]
            yield from found
            if len(found) < _GROUPS_AT_ONCE:
                return
            last = found[-1]

    def _delete_group(self, deleted: _Deleted, shards: set[str]) -> Iterator[Freed]:
        query = Instance.select(Instance.identifier, Instance.size).where(Instance.group_id == deleted.group_id)
        for page in pages(query.namedtuples(), Instance.identifier):
            shards.update(_shards(row.identifier for row in page))
            for start in range(0, len(page), _FILES_A_STEP):
                some = page[start : start + _FILES_A_STEP]
                step, kept = self._delete((row.identifier, row.size) for row in some)
                deleted.files += len(some)
                deleted.bytes += step.bytes
                deleted.kept += kept
                yield step
        killpoints.reach("guardian.files-deleted")

    def _record(self, deleted: list[_Deleted], shards: set[str]) -> Iterator[Freed]:
        """Commit that groups' files are gone; a group that got a late repeat meanwhile is left for the next time."""
        groups = 0
        for shard in shards:
            if not self._sync({shard}):
                return
            yield Freed()
        with self._ledger.transaction():
            for each in deleted:
                if Instance.select().where(Instance.group_id == each.group_id).count() == each.files:
                    groups += 1
                    Reclaim.insert(
                        group_id=each.group_id, files=each.files, bytes=each.bytes, reclaimed_ns=time.time_ns()
                    ).on_conflict_ignore().execute()
        killpoints.reach("guardian.reclaimed")
        yield Freed(groups=groups)

    def _delete_given_up(self) -> Iterator[Freed]:
        """Instances that a person has discarded; the processor takes their rows away when their files are gone."""
        query = Instance.select(Instance.identifier, Instance.size).where(
            Instance.group_id.is_null() & (Instance.state == InstanceState.DISCARDED)
        )
        for page in pages(query.namedtuples(), Instance.identifier):
            for start in range(0, len(page), _FILES_A_STEP):
                some = page[start : start + _FILES_A_STEP]
                step, _ = self._delete((row.identifier, row.size) for row in some)
                if step.files:
                    self._sync(_shards(row.identifier for row in some))
                yield step

    def _delete(self, instances: Iterable[tuple[str, int]]) -> tuple[Freed, int]:
        """Delete files; returns also how many could not be."""
        files = size = kept = 0
        for identifier, count in instances:
            try:
                os.unlink(self._spool.instance_path(identifier))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._failed(error)
                kept += 1
            else:
                files += 1
                size += count
        return Freed(files=files, bytes=size), kept

    def _sync(self, shards: set[str]) -> bool:
        """Whether what was deleted in them stays deleted after a power cut."""
        try:
            for shard in shards:
                with contextlib.suppress(FileNotFoundError):
                    sync_directory(self._spool.instances / shard)
        except OSError as error:
            self._failed(error)
            return False
        return True


def remove_request(spool: Spool, job_id: str) -> tuple[int, int]:
    """Delete the directory of a request; returns how many files that were, and their bytes.

    Raises:
        OSError: something cannot be deleted.
    """
    home = spool.requests / job_id
    sizes = [path.stat().st_size for path in walk_files(home)]
    shutil.rmtree(home)
    sync_directory(spool.requests)
    return len(sizes), sum(sizes)


def remove_empty_shards(spool: Spool) -> int:
    """Delete the directories of sealed shards that hold nothing any more; returns how many.

    Raises:
        peewee.PeeweeException: the ledger does not answer.
    """
    removed = 0
    for page in pages(SealedShard.select(SealedShard.shard).namedtuples(), SealedShard.shard):
        for row in page:
            with contextlib.suppress(OSError):  # not empty, or gone already
                os.rmdir(spool.instances / row.shard)
                killpoints.reach("guardian.shard-removed")
                removed += 1
    return removed


def _shards(identifiers: Iterable[str]) -> set[str]:
    return {identifier.partition("/")[0] for identifier in identifiers}
