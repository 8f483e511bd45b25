"""The guardian actor: measures the disk, says on the board whether intake is open, and frees what it may."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

import peewee as pw

from actors.actor import Actor
from actors.guardian.disk import Lack, Limits, Room, measure
from actors.guardian.forgetting import forgetting
from actors.guardian.orphans import Orphans, Removed
from actors.guardian.reclaim import Freed, Reclaimer, remove_empty_shards
from actors.guardian.usage import Usage
from protocol.birth import Birth
from protocol.board import Intake
from protocol.config import Settings
from protocol.config.settings import database_file
from protocol.errors import LedgerError
from protocol.ledger import Ledger
from protocol.ledger.past import LOOK_SECONDS, Forgetting
from protocol.ledger.room import LedgerRoom, ledger_bytes
from protocol.spool import Spool

_MEASURE_SECONDS = 0.25
_SHORTEST_MEASURE_SECONDS = 0.01
_FASTEST_BYTES_A_SECOND = 2e9  # that senders may write: the nearer the limit, the sooner is the next look
_COUNT_SECONDS = 3.0
_RECLAIM_SECONDS = 2.0
_LOOK_ANYWAY_SECONDS = 60.0  # for clocks that are set
_SHARDS_SECONDS = 60.0
_FIRST_ORPHANS_SECONDS = 5.0
_ORPHANS_SECONDS = 600.0
_ORPHAN_AGE_SECONDS = 600.0
_STEP_PAUSE_SECONDS = 0.02  # between two directories: looking for orphans must not be felt
_BUSY_SECONDS = 2.0  # below the patience of whoever watches the heartbeats
_PATIENCE_SECONDS = 0.2  # migrating the ledger, which may take long, is left to others
_TELL_SECONDS = 600.0
_NO_ROOM = Room(total_bytes=0, free_bytes=0, total_inodes=0, free_inodes=0)

_Found = TypeVar("_Found")


class Guardian(Actor):
    """Watches the disk. It needs the ledger for freeing only, and goes on watching without it."""

    kind: ClassVar[str] = "guardian"

    def __init__(self, birth: Birth, settings: Settings) -> None:
        super().__init__(birth, settings)
        self._spool = Spool(settings.storage.temporary)
        self._usage = Usage(self.board)
        self._counting: threading.Thread | None = None
        # A predecessor may have paused intake: this process goes on from there, and tells of changes only.
        self._paused = self.board.intake is Intake.PAUSED
        self._lack: Lack | None = None
        self._ledger_is_short = False
        self._ledger: Ledger | None = None
        self._ledger_problem = ""
        self._reclaiming: Iterator[Freed] | None = None
        self._freed = Freed()
        self._version: int | None = None
        self._changed_at = self._looked_at = 0.0
        self._orphans = Orphans(self._spool, _ORPHAN_AGE_SECONDS)
        self._looking: Iterator[Removed] | None = None
        self._tell_failures_at = 0.0
        self._forgetting: Forgetting | None = None

    def start(self) -> None:
        """Count what the spool holds, measure, and begin."""
        self._count_if_needed()
        if self._counting is not None:
            self._counting.join(_COUNT_SECONDS)
        self._measure()
        self.every(_RECLAIM_SECONDS, self._begin_to_reclaim)
        self.every(_SHARDS_SECONDS, self._remove_empty_shards)
        self.after(_FIRST_ORPHANS_SECONDS, self._begin_to_look)
        self.every(LOOK_SECONDS, lambda: self._with_ledger(self._forget))

    def stop(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    def busy_with(self) -> str:
        """For `status`."""
        return f"intake paused: {self._lack.words}" if self._lack else ""

    # Watching.

    @property
    def _is_counted(self) -> bool:
        return self.settings.storage.quota_bytes is None or self._usage.known

    def _count_if_needed(self) -> None:
        if not self._is_counted and (self._counting is None or not self._counting.is_alive()):
            self._counting = threading.Thread(target=self._usage.find, args=(self._spool,), daemon=True)
            self._counting.start()

    def _measure(self) -> None:
        """Look, and look again; while intake is open, before it could go far beyond the limit."""
        self._look_at_room()
        headroom = self.board.free_bytes - self.board.reserved_bytes
        pause = _MEASURE_SECONDS if self._paused else headroom / _FASTEST_BYTES_A_SECOND
        self.after(min(max(pause, _SHORTEST_MEASURE_SECONDS), _MEASURE_SECONDS), self._measure)

    def _look_at_room(self) -> None:
        storage = self.settings.storage
        if self._paused and not self._is_counted:
            return  # a predecessor knew why; it will be known again in a moment
        try:
            room = measure(storage.temporary, storage.quota_bytes, self._usage.bytes)
        except OSError as error:
            self._decide(Lack.ANSWER, _NO_ROOM, 0, is_short=False, reason=error.strerror)
            return
        limits = Limits(watermark_percent=storage.watermark_percent, reserve_gb=storage.reserve_space_gb)
        lack = limits.lacks(room, paused=self._paused)
        if self._ledger_is_spent():
            lack = lack or Lack.LEDGER
        self._decide(lack, room, limits.reserved_bytes(room), is_short=limits.is_short(room))

    def _decide(self, lack: Lack | None, room: Room, reserved_bytes: int, *, is_short: bool, **why: str | None) -> None:
        """Say on the board whether intake is open, and in the log, once, when that has changed."""
        intake = Intake.PAUSED if lack else Intake.OPEN
        self.board.set_storage(intake, room.free_bytes, reserved_bytes, is_short=is_short)
        told = {"free_bytes": room.free_bytes, "reserved_bytes": reserved_bytes, "free_inodes": room.free_inodes}
        if lack and not self._paused:
            self.log.warning("intake_paused", lacking=lack.words, **why, remedy=lack.remedy, **told)
        elif self._paused and not lack:
            self.log.info("intake_resumed", **told)
        self._paused, self._lack = lack is not None, lack

    def _ledger_is_spent(self) -> bool:
        """Whether an SQLite ledger is above its quota; people are warned before it is."""
        quota, path = self.settings.database_quota_bytes, database_file(self.settings)
        if quota is None or path is None:
            return False
        try:
            room = LedgerRoom(bytes=ledger_bytes(path), quota_bytes=quota)
        except OSError:
            return False  # those who need the ledger tell of that
        if room.is_short and not self._ledger_is_short:
            self.log.warning(
                "ledger_nearly_full", bytes=room.bytes, quota_bytes=room.quota_bytes, remedy=Lack.LEDGER.remedy
            )
        elif self._ledger_is_short and not room.is_short:
            self.log.info("ledger_has_room", bytes=room.bytes, quota_bytes=room.quota_bytes)
        self._ledger_is_short = room.is_short
        return room.is_spent

    # Freeing what is done with.

    def _begin_to_reclaim(self) -> None:
        self._count_if_needed()
        if self._reclaiming is None and self._is_counted and self._with_ledger(self._may_find_something):
            self._reclaiming = self._reclaim()
            self._reclaim_step()

    def _may_find_something(self) -> bool:
        """Whether the ledger has changed so lately that something is, or has just become, old enough to be freed."""
        assert self._ledger is not None
        clock, version = time.monotonic(), self._ledger.version()
        if version is None or version != self._version:
            self._version, self._changed_at = version, clock
        kept_seconds = self.settings.dicom.scp.repeat_seconds + 2 * _RECLAIM_SECONDS
        if clock < self._changed_at + kept_seconds or clock >= self._looked_at + _LOOK_ANYWAY_SECONDS:
            self._looked_at = clock
            return True
        return False

    def _reclaim(self) -> Iterator[Freed]:
        assert self._ledger is not None  # steps are taken with the ledger only
        keep_seconds = self.settings.dicom.scp.repeat_seconds
        yield from Reclaimer(self._ledger, self._spool, keep_seconds, self._cannot_delete).steps()

    def _reclaim_step(self) -> None:
        """One step a turn, so that the disk is measured in between."""
        freed = self._next(self._reclaiming)
        if freed is None:
            self._reclaiming = None
            if self._freed != Freed():
                total, self._freed = self._freed, Freed()
                self.log.info("reclaimed", groups=total.groups, files=total.files, bytes=total.bytes)
            return
        self._freed += freed
        self._usage.deleted(freed.bytes)
        self.post(self._reclaim_step)

    def _remove_empty_shards(self) -> None:
        self._with_ledger(lambda: remove_empty_shards(self._spool))

    # Orphans.

    def _begin_to_look(self) -> None:
        self._looking = self._orphans.steps() if self._is_counted else None
        self._look_step()

    def _look_step(self) -> None:
        known = len(self._orphans.unknown)
        removed = self._next(self._looking)
        if len(self._orphans.unknown) > known:
            remedy = "the ledger was lost or replaced; see what is in them, then delete them by hand"
            self.log.warning("payloads_unknown", payloads=len(self._orphans.unknown), remedy=remedy)
        if removed is None:
            self.after(_ORPHANS_SECONDS if self._is_counted else _FIRST_ORPHANS_SECONDS, self._begin_to_look)
            return
        if removed.count:
            self.log.info("orphans_removed", what=removed.what, count=removed.count, bytes=removed.bytes)
            self._usage.deleted(removed.bytes)
        self.after(_STEP_PAUSE_SECONDS, self._look_step)

    # The ledger.

    def _forget(self) -> None:
        assert self._ledger is not None  # it is called with the ledger only
        if self._forgetting is None:
            self._forgetting = forgetting(self._ledger, self.log)
        self._forgetting.look(self.settings)

    def _next(self, steps: Iterator[_Found] | None) -> _Found | None:
        """The next of some steps; None at the end, or when it failed, which is told and tried again later."""
        try:
            return self._with_ledger(lambda: next(steps, None)) if steps is not None else None
        except OSError as error:
            self._cannot_delete(error)
            return None

    def _with_ledger(self, work: Callable[[], _Found]) -> _Found | None:
        """Do something that needs the ledger; while it does not answer, that is told once and nothing is done."""
        try:
            if self._ledger is None:
                self._ledger = Ledger(
                    self.settings.database, busy_seconds=_BUSY_SECONDS, patience_seconds=_PATIENCE_SECONDS
                )
            found = work()
        except (LedgerError, pw.PeeweeException) as error:
            if not self._ledger_problem:
                self.log.warning("ledger_does_not_answer", reason=str(error), remedy="nothing is deleted meanwhile")
            self._ledger_problem = str(error)
            self._version = None
            if self._ledger is not None:
                self._ledger.close()
            return None
        self._ledger_problem = ""
        return found

    def _cannot_delete(self, error: OSError) -> None:
        """What stays is tried again in a moment, and told of now and then."""
        self._version = None
        if time.monotonic() >= self._tell_failures_at:
            self._tell_failures_at = time.monotonic() + _TELL_SECONDS
            self.log.warning("cannot_delete", reason=error.strerror, remedy="check the storage; it is tried again")
