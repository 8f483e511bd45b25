"""The guardian actor: measures every second, says on the board whether intake is open, and frees what it may."""

import contextlib
import os
from collections.abc import Callable
from typing import ClassVar

import peewee as pw

from actors.actor import Actor
from actors.guardian.disk import Limits, measure
from actors.guardian.reclaim import Reclaimer
from protocol.birth import Birth
from protocol.board import Intake
from protocol.config import Settings
from protocol.errors import LedgerError
from protocol.ledger import Ledger
from protocol.spool import Spool

_MEASURE_SECONDS = 1.0
_RECLAIM_SECONDS = 2.0
_SHARDS_SECONDS = 60.0


class Guardian(Actor):
    """Watches the disk. It needs the ledger for reclaiming only, and goes on watching without it."""

    kind: ClassVar[str] = "guardian"

    def __init__(self, birth: Birth, settings: Settings) -> None:
        super().__init__(birth, settings)
        self._spool = Spool(settings.storage.temporary)
        self._ledger: Ledger | None = None
        self._reclaimer: Reclaimer | None = None
        self._ledger_problem = ""
        self._lacking = ""
        self._measure_problem = ""
        self._freed_bytes = 0
        self._found_bytes = 0

    def start(self) -> None:
        """Count what the spool holds, measure, and begin."""
        if self.settings.storage.quota_bytes is not None:
            # Stored bytes are counted on the board from here on; what was there before is counted once.
            self._found_bytes = _bytes_in(self._spool) - self.board.stored_bytes
        self._measure()
        self.every(_MEASURE_SECONDS, self._measure)
        self.every(_RECLAIM_SECONDS, self._reclaim)
        self.every(_SHARDS_SECONDS, self._remove_empty_shards)

    def stop(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    def busy_with(self) -> str:
        """For `status`."""
        return f"intake paused: too few free {self._lacking}" if self._lacking else ""

    def _measure(self) -> None:
        storage = self.settings.storage
        used = self._found_bytes + self.board.stored_bytes - self._freed_bytes
        try:
            room = measure(storage.temporary, storage.quota_bytes, used)
        except OSError as error:
            if not self._measure_problem:
                self.log.error("storage_does_not_answer", reason=error.strerror, remedy="check that it is mounted")
            self._measure_problem = str(error.strerror)
            self.board.set_storage(Intake.PAUSED, 0, self.board.reserved_bytes)
            return
        self._measure_problem = ""
        limits = Limits(watermark_percent=storage.watermark_percent, reserve_gb=storage.reserve_space_gb)
        lacking = limits.lacks(room, paused=bool(self._lacking))
        reserved = limits.reserved_bytes(room)
        self.board.set_storage(Intake.PAUSED if lacking else Intake.OPEN, room.free_bytes, reserved)
        if bool(lacking) != bool(self._lacking):
            told = {"free_bytes": room.free_bytes, "reserved_bytes": reserved, "free_inodes": room.free_inodes}
            if lacking:
                remedy = "free space, enlarge the storage, or see `dicom-adapter jobs list` for jobs that hold it"
                self.log.warning("intake_paused", lacking=lacking, remedy=remedy, **told)
            else:
                self.log.info("intake_resumed", **told)
        self._lacking = lacking

    def _reclaim(self) -> None:
        self._with_ledger(self._reclaim_once)

    def _reclaim_once(self, reclaimer: Reclaimer) -> None:
        freed = reclaimer.once()
        self._freed_bytes += freed.bytes
        if freed.files:
            self.log.info("reclaimed", groups=freed.groups, files=freed.files, bytes=freed.bytes)
        if freed.groups and not self.draining:
            self.after(0.0, self._reclaim)

    def _remove_empty_shards(self) -> None:
        self._with_ledger(lambda reclaimer: reclaimer.remove_empty_shards())

    def _with_ledger(self, work: Callable[[Reclaimer], object]) -> None:
        """Do something that needs the ledger; while it does not answer, that is told once and nothing is done."""
        try:
            if self._reclaimer is None:
                self._ledger = Ledger(self.settings.database)
                self._reclaimer = Reclaimer(self._ledger, self._spool, self.settings.dicom.scp.repeat_seconds)
            work(self._reclaimer)
        except (LedgerError, pw.PeeweeException) as error:
            if not self._ledger_problem:
                self.log.warning("ledger_does_not_answer", reason=type(error).__name__)
            self._ledger_problem = type(error).__name__
        else:
            self._ledger_problem = ""


def _bytes_in(spool: Spool) -> int:
    total = 0
    for shard in os.scandir(spool.instances):
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(shard.path):
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
