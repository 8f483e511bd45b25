"""How much room there is for the spool and for the ledger, and whether that is enough to go on receiving."""

import enum
import os

import msgspec

from protocol.spool import floor_bytes

_GIGABYTE = 10**9
_SMALLEST_FREE_INODES = 1000
_INODES_SHARE = 0.01
# Intake resumes only when this much more is free than the limit, so that it does not flutter.
_MARGIN_SHARE = 0.01
_MARGIN_BYTES = 10**9
# So much above the limit, what may be given up has to go; of 1 TB that is what fast senders bring in half a minute.
_AHEAD_SHARE = 0.1


class Lack(enum.Enum):
    """Why intake is paused, in words for people, and what they may do about it."""

    BYTES = "too little free space", "free space, enlarge the storage, or see `dicom-adapter status` for what holds it"
    INODES = "too few free inodes", "delete files, or make the file system anew with more inodes"
    LEDGER = "the ledger is above its quota", "raise values.yaml's database.volumeSize and the space behind it"
    ANSWER = "the storage does not answer", "check that it is mounted and works"

    def __init__(self, words: str, remedy: str) -> None:
        self.words = words
        self.remedy = remedy


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Args:
        total_bytes: of the file system, or of the quota when that is smaller.
        free_bytes: that may still be filled.
        total_inodes, free_inodes: both 0 where the file system does not count them.
    """

    total_bytes: int
    free_bytes: int
    total_inodes: int
    free_inodes: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """When to stop: free space below max(total * (1 - watermark), reserve).

    Args:
        watermark_percent: of the total that may be used.
        reserve_gb: that stays free, in units of 10⁹ bytes.
    """

    watermark_percent: int
    reserve_gb: float

    def reserved_bytes(self, room: Room) -> int:
        """Below this many free bytes intake stops."""
        by_watermark = room.total_bytes * (100 - self.watermark_percent) // 100
        return max(by_watermark, int(self.reserve_gb * _GIGABYTE), floor_bytes(room.total_bytes))

    def lacks(self, room: Room, *, paused: bool) -> Lack | None:
        """What there is too little of; None when intake may be open.

        Args:
            room: what was measured.
            paused: intake is paused now, so a margin above the limit is wanted.
        """
        margin = self._margin_bytes(room) if paused else 0
        if room.free_bytes < self.reserved_bytes(room) + margin:
            return Lack.BYTES
        if room.free_inodes < _wanted_inodes(room):
            return Lack.INODES
        return None

    def is_short(self, room: Room) -> bool:
        """Whether intake will be paused before long, or could not resume, for want of bytes or inodes."""
        reserved = self.reserved_bytes(room)
        ahead = min(int(reserved * _AHEAD_SHARE), max(0, room.total_bytes - reserved) // 2)
        wanted_bytes = reserved + max(ahead, self._margin_bytes(room) * 3 // 2)
        return room.free_bytes < wanted_bytes or room.free_inodes < int(_wanted_inodes(room) * (1 + _AHEAD_SHARE))

    def _margin_bytes(self, room: Room) -> int:
        usable = max(0, room.total_bytes - self.reserved_bytes(room))
        return min(int(room.total_bytes * _MARGIN_SHARE), _MARGIN_BYTES, usable // 2)


def _wanted_inodes(room: Room) -> int:
    """Below this many free ones intake stops; 0 where they are not counted."""
    return min(max(_SMALLEST_FREE_INODES, int(room.total_inodes * _INODES_SHARE)), room.total_inodes // 2)


def measure(path: str, quota_bytes: int | None, used_bytes: int) -> Room:
    """Look at the file system below a path.

    Args:
        path: any place on it.
        quota_bytes: of the spool, or None.
        used_bytes: that the spool holds, for the quota.

    Raises:
        OSError: the file system does not answer.
    """
    status = os.statvfs(path)
    total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    if quota_bytes is not None:
        total, free = min(total, quota_bytes), min(free, max(0, quota_bytes - used_bytes))
    return Room(total_bytes=total, free_bytes=free, total_inodes=status.f_files, free_inodes=status.f_favail)
