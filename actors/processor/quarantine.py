"""A person's decisions about quarantined instances: release or discard."""

import os
from collections.abc import Sequence

from actors.processor.asking import Asker
from protocol.errors import RefusedError
from protocol.ledger import PAGE_ROWS, Instance, Ledger, tuples
from protocol.spool import Spool
from protocol.states import InstanceState, advance

RELEASED = "released by a person: waits to be described again"
"""The reason of an instance that may leave quarantine and was not described since; kept through a restart."""

_GONE = "its file is gone from the storage: discard it, and have it sent again"


class Quarantine:
    """The quarantined instances.

    Args:
        ledger: the ledger.
        spool: where their files are.
        asker: has released ones described again.
    """

    def __init__(self, ledger: Ledger, spool: Spool, asker: Asker) -> None:
        self._ledger = ledger
        self._spool = spool
        self._asker = asker

    def load(self) -> None:
        """Go on with what was released before this start.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        query = Instance.select(Instance.identifier).where(
            Instance.group_id.is_null() & (Instance.state == InstanceState.QUARANTINED) & (Instance.reason == RELEASED)
        )
        released = [row[0] for row in tuples(query)]
        gone = {each for each in released if self._is_gone(each)}
        for some in _pages(sorted(gone)):
            with self._ledger.transaction():
                Instance.update(reason=_GONE).where(Instance.identifier.in_(some)).execute()
        self._asker.release([each for each in released if each not in gone])

    def release(self, identifiers: Sequence[str]) -> int:
        """Have instances described leniently; returns how many.

        Raises:
            RefusedError: none of them is quarantined, or has its file.
            peewee.PeeweeException: the ledger does not answer.
        """
        found = [each for each in self._find(identifiers) if not self._is_gone(each)]
        if not found:
            raise RefusedError(_GONE)
        with self._ledger.transaction():
            for some in _pages(found):
                Instance.update(reason=RELEASED).where(Instance.identifier.in_(some)).execute()
        self._asker.release(found)
        return len(found)

    def discard(self, identifiers: Sequence[str]) -> int:
        """Give instances up, so that their files may be deleted; returns how many.

        Raises:
            RefusedError: none of them is quarantined.
            peewee.PeeweeException: the ledger does not answer.
        """
        found = self._find(identifiers)
        state = advance(InstanceState.QUARANTINED, InstanceState.DISCARDED)
        with self._ledger.transaction():
            for some in _pages(found):
                Instance.update(state=state).where(Instance.identifier.in_(some)).execute()
        self._asker.answered(found)
        return len(found)

    def _is_gone(self, identifier: str) -> bool:
        """Whether it has no file; a storage that cannot tell is none that has lost it."""
        try:
            os.stat(self._spool.instance_path(identifier))
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return False

    def _find(self, identifiers: Sequence[str]) -> list[str]:
        found = []
        for some in _pages(identifiers):
            query = Instance.select(Instance.identifier).where(
                Instance.identifier.in_(some) & (Instance.state == InstanceState.QUARANTINED)
            )
            found += [row[0] for row in tuples(query)]
        if not found:
            raise RefusedError(
                f"no instance is quarantined under {', '.join(identifiers[:3]) or 'no identifier'}: "
                "see `dicom-adapter quarantine list`"
            )
        return found


def _pages(identifiers: Sequence[str]) -> list[Sequence[str]]:
    return [identifiers[start : start + PAGE_ROWS] for start in range(0, len(identifiers), PAGE_ROWS)]
