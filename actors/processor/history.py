"""Moves the rows of reclaimed instances to the history table, so that the hot table stays small."""

import os
import time
from collections.abc import Iterator

from protocol import killpoints
from protocol.ledger import PAGE_ROWS, Group, Instance, InstanceHistory, Ledger, Reclaim, tuples
from protocol.spool import Spool
from protocol.states import GroupState, InstanceState, advance

_GROUPS_AT_ONCE = 200


class History:
    """What is done with.

    Args:
        ledger: the ledger.
        spool: tells whether a discarded instance's file is gone.
    """

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self._ledger = ledger
        self._spool = spool

    def steps(self) -> Iterator[None]:
        """Move what was reclaimed, a page of rows a step.

        Raises:
            peewee.PeeweeException: the ledger does not answer; the next sweep goes on.
        """
        reclaimed = (
            Group.select(Group.group_id, Reclaim.reclaimed_ns)
            .join(Reclaim, on=(Reclaim.group_id == Group.group_id))
            .where(Group.state == GroupState.CLOSED)
            .limit(_GROUPS_AT_ONCE)
        )
        for group_id, reclaimed_ns in tuples(reclaimed):
            of_group = Instance.select(Instance.identifier).where(Instance.group_id == group_id).limit(PAGE_ROWS)
            while identifiers := [row[0] for row in tuples(of_group)]:
                self._move(identifiers, reclaimed_ns)
                killpoints.reach("processor.history-moved")
                yield
            with self._ledger.transaction():
                Group.update(state=advance(GroupState.CLOSED, GroupState.RECLAIMED)).where(
                    Group.group_id == group_id
                ).execute()
            yield
        discarded = Instance.select(Instance.identifier).where(
            Instance.group_id.is_null() & (Instance.state == InstanceState.DISCARDED)
        )
        gone = [row[0] for row in tuples(discarded) if not os.path.exists(self._spool.instance_path(row[0]))]
        for start in range(0, len(gone), PAGE_ROWS):
            self._move(gone[start : start + PAGE_ROWS], time.time_ns())
            yield

    def _move(self, identifiers: list[str], reclaimed_ns: int) -> None:
        columns = Instance._meta.sorted_fields
        with self._ledger.transaction():
            InstanceHistory.insert_from(
                Instance.select(*columns, reclaimed_ns).where(Instance.identifier.in_(identifiers)),
                fields=[*(getattr(InstanceHistory, field.name) for field in columns), InstanceHistory.reclaimed_ns],
            ).on_conflict_ignore().execute()
            Instance.delete().where(Instance.identifier.in_(identifiers)).execute()
