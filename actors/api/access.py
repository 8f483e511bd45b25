"""Writes `access.json`, by which receivers admit and extractors read, from the ledger's AE titles and sources."""

import threading
from pathlib import Path

import msgspec

from actors.api.book import Book
from actors.api.processors import Processors
from protocol import killpoints, ledger
from protocol.access import AccessFile, AccessList, AeTitleRule, SourceRule
from protocol.errors import StorageError
from protocol.ledger import pages
from protocol.logs import EventLogger
from protocol.spool import Spool

_Seen = tuple[int, int, int]


def _seen(path: Path) -> _Seen | None:
    """What tells a file from another of its name; None when there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class AccessWriter:
    """Keeps the file equal to the ledger.

    Args:
        spool: where the file stands.
        book: the ledger.
        processors: tell what elements are grouped by.
    """

    def __init__(self, spool: Spool, book: Book, processors: Processors) -> None:
        self._path = spool.access
        self._book = book
        self._processors = processors
        self._log = EventLogger("adapter.api")
        self._lock = threading.Lock()
        self._written: _Seen | None = None
        self.stale = True

    @property
    def is_due(self) -> bool:
        """Whether the file must be written: a change was not, or somebody else has changed, or deleted, it since."""
        seen = _seen(self._path)
        return self.stale or seen is None or seen != self._written

    def write(self) -> None:
        """Bring the file up to the ledger; when it returns, the ledger's rules hold in every process.

        Raises:
            LedgerError: the ledger cannot be read; the old file stays.
            StorageError: the file cannot be written; the old one stays.
        """
        with self._lock:
            self.stale = True
            file = AccessFile(self._path)
            old = self._old(file)
            new, unknown = self._from_ledger(old or AccessList())
            if new != old:
                try:
                    file.replace(new)
                except OSError as error:
                    raise StorageError(
                        f"the change is recorded, but {self._path.name} could not be written ({error.strerror}), so "
                        "receivers do not know of it yet: make space for it; it is tried again"
                    ) from error
                killpoints.reach("api.access-written")
                self._log.info("access_written", ae_titles=len(new.ae_titles), sources=len(new.sources))
            # Somebody else may have been there meanwhile: what was seen counts when the content behind it is ours.
            seen = _seen(self._path)
            self._written = seen if self._old(file) == new else None
            self.stale = unknown

    def _old(self, file: AccessFile) -> AccessList | None:
        if not self._path.exists():
            return None
        try:
            return file.current()
        except (OSError, msgspec.DecodeError) as error:
            self._log.error("access_unreadable", reason=str(error), remedy="it is written anew")
            return None

    def _from_ledger(self, old: AccessList) -> tuple[AccessList, bool]:
        """The rules, and whether a job processor has not told its elements yet, so that this must be done again."""
        known_tags = {rule.ae_title: rule.tags for rule in old.ae_titles}
        with self._book.use():
            titles = [row for page in pages(ledger.AeTitle.select(), ledger.AeTitle.name) for row in page]
            sources = [row for page in pages(ledger.Source.select(), ledger.Source.ae_title) for row in page]
        # A living title after its deleted namesake, so that it wins.
        living = {row.ae_title: row for row in sorted(titles, key=lambda row: (row.deleted_ns is None, row.name))}
        rules = []
        unknown = False
        for title, row in sorted(living.items()):
            tags = self._processors.tags(row.processor, title, row.processor_settings)
            unknown |= tags is None
            rules.append(
                AeTitleRule(
                    ae_title=title,
                    ignored_sop_classes=frozenset(row.ignored_sop_classes),
                    # A plug-in that was taken away for a moment must not send what arrives now into quarantine.
                    tags=known_tags.get(title, ()) if tags is None else tags,
                    accepting=row.deleted_ns is None,
                )
            )
        return AccessList(
            ae_titles=tuple(rules),
            sources=tuple(SourceRule(ae_title=row.ae_title, host_ip=row.host_ip) for row in sources),
        ), unknown
