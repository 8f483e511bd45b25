"""Deletes from the spool what every job of its group has, or a person gave up; never anything else."""

import contextlib
import os
import time
from typing import Any

import msgspec
import peewee as pw

from protocol.clock import NANOSECONDS
from protocol.ledger import Group, Instance, Job, Ledger, Reclaim, SealedShard, Submission, tuples
from protocol.spool import Spool
from protocol.states import GroupState, InstanceState, JobState

_GROUPS_AT_ONCE = 50
_DONE = (JobState.COMPLETED, JobState.DISCARDED)


class Freed(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass has deleted."""

    groups: int
    files: int
    bytes: int


class Reclaimer:
    """Finds what is done with, and deletes it.

    Args:
        ledger: read; `Reclaim` rows are written.
        spool: where the files are.
        keep_seconds: how long a closed group's files stay for comparison with repeats.
    """

    def __init__(self, ledger: Ledger, spool: Spool, keep_seconds: float) -> None:
        self._ledger = ledger
        self._spool = spool
        self._keep_seconds = keep_seconds
        self._discarded: set[str] = set()

    def once(self) -> Freed:
        """Delete a bounded number of groups' files; call it again until it frees none.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        files = size = 0
        groups = self._finished_groups()
        for group in groups:
            rows = tuples(Instance.select(Instance.identifier, Instance.size).where(Instance.group_id == group))
            deleted = self._delete(rows)
            with self._ledger.transaction():
                Reclaim.insert(
                    group_id=group, files=len(rows), bytes=deleted, reclaimed_ns=time.time_ns()
                ).on_conflict_ignore().execute()
            files += len(rows)
            size += deleted
        given_up = self._given_up()
        size += self._delete(given_up)
        return Freed(groups=len(groups), files=files + len(given_up), bytes=size)

    def remove_empty_shards(self) -> int:
        """Delete the directories of sealed shards that hold nothing any more; returns how many."""
        removed = 0
        for (shard,) in tuples(SealedShard.select(SealedShard.shard)):
            with contextlib.suppress(OSError):  # not empty, or gone already
                os.rmdir(self._spool.instances / shard)
                removed += 1
        return removed

    def _finished_groups(self) -> list[int]:
        unfinished = (
            Job.select(pw.SQL("1"))
            .join(Submission, pw.JOIN.LEFT_OUTER, on=(Submission.job_id == Job.job_id))
            .where((Job.group_id == Group.group_id) & (Submission.state.is_null() | Submission.state.not_in(_DONE)))
        )
        query = (
            Group.select(Group.group_id)
            .join(Reclaim, pw.JOIN.LEFT_OUTER, on=(Reclaim.group_id == Group.group_id))
            .where(
                (Group.state == GroupState.CLOSED)
                & Reclaim.group_id.is_null()
                & (Group.closed_ns < time.time_ns() - int(self._keep_seconds * NANOSECONDS))
                & ~pw.fn.EXISTS(unfinished)
            )
            .order_by(Group.group_id)
            .limit(_GROUPS_AT_ONCE)
        )
        return [group for (group,) in tuples(query)]

    def _given_up(self) -> list[tuple[Any, ...]]:
        """Instances that a person has discarded, and whose file was not deleted by this process."""
        query = Instance.select(Instance.identifier, Instance.size).where(Instance.state == InstanceState.DISCARDED)
        found = [row for row in tuples(query) if row[0] not in self._discarded]
        self._discarded.update(identifier for identifier, _ in found)
        return found

    def _delete(self, rows: list[tuple[Any, ...]]) -> int:
        deleted = 0
        for identifier, size in rows:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._spool.instance_path(identifier))
                deleted += size
        return deleted
