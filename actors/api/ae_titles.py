"""Clara AE titles: what receivers answer to, and what becomes of it.

A deleted one keeps its row, marked, so that what of it is under way ends by its rules; receivers refuse it at once.
Creating it again revives the row.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

from actors.api import validation
from actors.api.book import Book
from actors.api.entities import ClaraAeTitle
from actors.api.processors import Processors
from actors.api.registry import Registry, kept_key
from actors.api.validation import Body
from protocol import ledger
from protocol.clock import NANOSECONDS
from protocol.config import kinds
from protocol.job_processors import DEFAULT
from protocol.states import GroupState, InstanceState

_KEEP_DELETED_SECONDS = 86_400


class AeTitles(Registry[ClaraAeTitle]):
    """The table of AE titles.

    Args:
        book, lock, publish, tell: see `Registry`.
        processors: check the settings of job processors.
    """

    noun = "Clara AE title"

    def __init__(
        self,
        book: Book,
        lock: threading.Lock,
        publish: Callable[[], None],
        tell: Callable[[], None],
        *,
        processors: Processors,
    ) -> None:
        super().__init__(book, lock, publish, tell)
        self._processors = processors

    def query(self) -> tuple[Any, Any]:
        """Rows that are not deleted."""
        return ledger.AeTitle.select().where(ledger.AeTitle.deleted_ns.is_null()), ledger.AeTitle.name

    def entity(self, row: ledger.AeTitle) -> ClaraAeTitle:
        """A row as its entity."""
        return ClaraAeTitle.of(row)

    def key(self, entity: ClaraAeTitle) -> str:
        """Its name."""
        return entity.name

    def find(self, key: str, rows: list[Any]) -> Any | None:
        """By name, else by AE title."""
        by_name = next((row for row in rows if row.name == key), None)
        return by_name or next((row for row in rows if row.ae_title == key), None)

    def read(self, body: Body, old: ClaraAeTitle | None) -> ClaraAeTitle:
        """The name is the AE title unless given; the settings are for the job processor to judge."""
        ae_title = body.required("aeTitle", kinds.ae_title(), "")
        given = body.read("name", validation.optional_text(64, "a name"), "")
        entity = ClaraAeTitle(
            name=kept_key(body, "name", given, old.name if old else None, str.__eq__) or ae_title,
            ae_title=ae_title,
            overwrite_same_instance=body.read("overwriteSameInstance", kinds.flag(), False),
            ignored_sop_classes=tuple(dict.fromkeys(body.texts("ignoredSopClasses", validation.uid()))),
            processor=body.read("processor", validation.optional_text(256, "a job processor's name"), "") or DEFAULT,
            processor_settings=body.text_map("processorSettings"),
        )
        body.errors += self._processors.problems(entity.processor, ae_title, entity.processor_settings)
        return entity

    def taken(self, wanted: ClaraAeTitle, others: list[Any]) -> list[str]:
        """Names and AE titles are both unique."""
        found = []
        if any(row.name == wanted.name for row in others):
            found.append(f"name {wanted.name!r} is taken already: choose another, or replace that one by PUT")
        if any(row.ae_title == wanted.ae_title for row in others):
            found.append(f"aeTitle {wanted.ae_title!r} is taken already: replace or delete the one that has it")
        return found

    def insert(self, wanted: ClaraAeTitle) -> None:
        """Make a row, or revive the deleted one of this AE title."""
        now = time.time_ns()
        self._clear_the_way(wanted)
        ledger.AeTitle.create(**_columns(wanted), name=wanted.name, created_ns=now, updated_ns=now)

    def update(self, row: ledger.AeTitle, wanted: ClaraAeTitle) -> None:
        """Change a row; an AE title that it gives up is kept as a deleted one."""
        now = time.time_ns()
        if row.ae_title != wanted.ae_title:
            self._bury(row, now)
            self._clear_the_way(wanted)
        ledger.AeTitle.update(**_columns(wanted), updated_ns=now).where(ledger.AeTitle.name == row.name).execute()

    def remove(self, row: ledger.AeTitle) -> None:
        """Mark it deleted."""
        row.deleted_ns = row.updated_ns = time.time_ns()
        row.save()

    def forget_deleted(self) -> int:
        """Take away rows that were deleted a day ago and of which nothing is under way; returns how many."""
        with self.book.change():
            groups = ledger.Group.select(ledger.Group.ae_title).where(ledger.Group.state == GroupState.OPEN)
            quarantined = ledger.Instance.select(ledger.Instance.called_ae_title).where(
                ledger.Instance.group_id.is_null(), ledger.Instance.state == InstanceState.QUARANTINED
            )
            forgotten: int = (
                ledger.AeTitle.delete()
                .where(
                    ledger.AeTitle.deleted_ns < time.time_ns() - _KEEP_DELETED_SECONDS * NANOSECONDS,
                    ledger.AeTitle.ae_title.not_in(groups),
                    ledger.AeTitle.ae_title.not_in(quarantined),
                )
                .execute()
            )
        return forgotten

    def _clear_the_way(self, wanted: ClaraAeTitle) -> None:
        """Give the name and the AE title free that deleted rows hold; the rules of another AE title are kept."""
        deleted = ledger.AeTitle.deleted_ns.is_null(False)
        for row in list(ledger.AeTitle.select().where(deleted, ledger.AeTitle.name == wanted.name)):
            if row.ae_title != wanted.ae_title:
                self._bury(row, row.deleted_ns or 0)
            row.delete_instance()
        ledger.AeTitle.delete().where(deleted, ledger.AeTitle.ae_title == wanted.ae_title).execute()

    def _bury(self, row: ledger.AeTitle, deleted_ns: int) -> None:
        """Keep the rules of an AE title whose name goes on to another one, as a deleted row."""
        values = {**row.__data__, "name": f"{row.name}~{deleted_ns}", "deleted_ns": deleted_ns}
        ledger.AeTitle.create(**values)


def _columns(wanted: ClaraAeTitle) -> dict[str, object]:
    return {
        "ae_title": wanted.ae_title,
        "overwrite_same_instance": wanted.overwrite_same_instance,
        "ignored_sop_classes": list(wanted.ignored_sop_classes),
        "processor": wanted.processor,
        "processor_settings": wanted.processor_settings,
        "deleted_ns": None,
    }
