"""Instances that could not be described: listed with their reason, released or discarded by a person."""

import re
from typing import Annotated, Any

from msgspec import Meta

from actors.api.book import Book
from actors.api.entities import Entity
from actors.api.owners import Owners
from protocol import channels, messages
from protocol.clock import iso
from protocol.errors import NotFoundError, RefusedError
from protocol.ledger import PAGE_ROWS, Instance
from protocol.states import InstanceState

_STEM = re.compile(r"[0-9a-z]{1,64}-\d{1,20}", re.ASCII)


class QuarantinedInstance(Entity, frozen=True, kw_only=True):
    """An instance that waits for a person's decision."""

    id: Annotated[str, Meta(examples=["018d5f0e7c1a9f3b2c4d-000001"])]
    ae_title: str
    calling_ae_title: str
    host: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    reason: str
    size: Annotated[int, Meta(description="Bytes of the file.")]
    stored: str


class Quarantine:
    """Lists quarantined instances, and passes a person's decisions on to the processor.

    Args:
        book: the ledger.
        owners: the processor among them.
    """

    def __init__(self, book: Book, owners: Owners) -> None:
        self._book = book
        self._owners = owners

    def select(self, limit: int, offset: int) -> list[QuarantinedInstance]:
        """What is in quarantine, the newest first."""
        query = Instance.select().where(*quarantined()).order_by(Instance.stored_wall_ns.desc(), Instance.identifier)
        with self._book.use():
            return [_shown(row) for row in list(query.limit(min(limit, PAGE_ROWS)).offset(offset))]

    def release(self, stem: str) -> int:
        """Process an instance as well as can be.

        Raises:
            NotFoundError, RefusedError, UnavailableError: it is not there, the processor refuses, or does not answer.
        """
        return self._decide(messages.ReleaseInstances(identifiers=(self._identifier(stem),)))

    def discard(self, stem: str) -> int:
        """Give an instance up; raises as `release`."""
        return self._decide(messages.DiscardInstances(identifiers=(self._identifier(stem),)))

    def _decide(self, command: messages.ReleaseInstances | messages.DiscardInstances) -> int:
        affected = self._owners.ask(channels.PROCESSOR_COMMANDS, command)
        if not affected:
            raise RefusedError("the instance is no longer in quarantine: list the quarantine again")
        return affected

    def _identifier(self, stem: str) -> str:
        """The whole identifier of a quarantined instance's stem."""
        unknown = NotFoundError(f"there is no {stem!r} in quarantine: see /api/quarantine for what there is")
        if not _STEM.fullmatch(stem):
            raise unknown
        with self._book.use():
            row = Instance.select(Instance.identifier).where(*quarantined(), Instance.identifier.endswith(f"/{stem}"))
            found = row.first()
        if found is None:
            raise unknown
        identifier: str = found.identifier
        return identifier


def quarantined() -> tuple[Any, ...]:
    """Conditions of what is in quarantine: it has no group, which an index finds in the large table."""
    return Instance.group_id.is_null(), Instance.state == InstanceState.QUARANTINED


def _shown(row: Instance) -> QuarantinedInstance:
    return QuarantinedInstance(
        id=row.identifier.rpartition("/")[2],
        ae_title=row.called_ae_title,
        calling_ae_title=row.calling_ae_title,
        host=row.host,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        study_instance_uid=row.study_uid,
        reason=row.reason,
        size=row.size,
        stored=iso(row.stored_wall_ns),
    )
