"""The notice board: one shared page of memory that every process can read at the price of a memory access.

It carries what must hold over all receivers at once, or be known before the next C-STORE: association slots,
whether intake is open, how many bytes were stored. Each word has one writer, so no lock can be left behind by a
process that was killed: a receiver writes its own row, the guardian writes the storage words, the platform what its
runs take, the retriever what it has retrieved, the processor what it waits for, the exporter how far it has looked, the
supervisor clears the row of a dead receiver.
"""

import enum
import hashlib
import mmap
import os

_ROWS = 64
_HOSTS = 1000
_ROW_WORDS = 4 + _HOSTS
_HEADER_WORDS = 16
_SIZE = 8 * (_HEADER_WORDS + _ROWS * _ROW_WORDS)

# Header words.
_INTAKE, _FREE_BYTES, _RESERVED_BYTES, _RETIRED_BYTES, _PLATFORM_BYTES, _RETRIEVED_BYTES, _AWAITED, _SHORT, _TASKS = (
    range(9)
)
# Words of a row; the hosts follow.
_PID, _ACTIVE, _STORED_BYTES, _ACCEPTING = 0, 1, 2, 3


class Intake(enum.IntEnum):
    """Whether new data may come in, as the guardian sees the disk."""

    OPEN = 0
    PAUSED = 1


def host_key(address: str) -> int:
    """A host's address as a word that is never 0."""
    return int.from_bytes(hashlib.blake2b(address.encode(), digest_size=8).digest(), "little") or 1


_OPEN = int(Intake.OPEN)


class Board:
    """The page, mapped into this process.

    Args:
        fd: descriptor of the page: from `create` in the supervisor, inherited elsewhere.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls) -> "Board":
        """A new, empty page."""
        fd = os.memfd_create("dicom-adapter-board", os.MFD_CLOEXEC)
        os.ftruncate(fd, _SIZE)
        return cls(fd)

    # The disk: written by the guardian.

    def set_storage(self, intake: Intake, free_bytes: int, reserved_bytes: int, *, is_short: bool) -> None:
        """Publish what the guardian found."""
        self._words[_SHORT] = is_short
        self._words[_FREE_BYTES] = max(0, free_bytes)
        self._words[_RESERVED_BYTES] = max(0, reserved_bytes)
        self._words[_INTAKE] = intake

    @property
    def intake(self) -> Intake:
        """Whether new data may come in."""
        return Intake(self._words[_INTAKE])

    @property
    def intake_is_open(self) -> bool:
        """The same as a comparison of two numbers, for each object that comes."""
        return self._words[_INTAKE] == _OPEN

    @property
    def is_short(self) -> bool:
        """Whether there is so little room that what may be given up has to go, so that intake stays open."""
        return bool(self._words[_SHORT])

    @property
    def free_bytes(self) -> int:
        """Free bytes, as last seen by the guardian."""
        return self._words[_FREE_BYTES]

    @property
    def reserved_bytes(self) -> int:
        """Below this many free bytes intake is paused."""
        return self._words[_RESERVED_BYTES]

    # The embedded platform's share of the spool: written by the platform.

    def set_platform_bytes(self, count: int) -> None:
        """Publish what runs take beside the links of their payloads."""
        self._words[_PLATFORM_BYTES] = max(0, count)

    @property
    def platform_bytes(self) -> int:
        """Bytes that runs of the embedded platform take beside the links of their payloads."""
        return self._words[_PLATFORM_BYTES]

    # What was retrieved for inference requests: written by the retriever.

    def add_retrieved(self, count: int) -> None:
        """Count bytes of files that were retrieved."""
        self._words[_RETRIEVED_BYTES] += count

    @property
    def retrieved_bytes(self) -> int:
        """Bytes retrieved since the supervisor started, without what C-MOVEs brought."""
        return self._words[_RETRIEVED_BYTES]

    # What groups wait for: written by the processor.

    def set_awaited(self, boot_ns: int) -> None:
        """Publish that a group waits for the description of what was stored up to a moment of the boot clock."""
        self._words[_AWAITED] = max(0, boot_ns)

    @property
    def awaited_boot_ns(self) -> int:
        """What was stored up to here, in nanoseconds of the boot clock, must be described without delay."""
        return self._words[_AWAITED]

    # Exports: written by the exporter.

    def set_tasks_made(self, wall_ns: int) -> None:
        """Publish that the results of runs have their export tasks, as far as they were registered by a moment."""
        self._words[_TASKS] = max(0, wall_ns)

    @property
    def tasks_made_ns(self) -> int:
        """What runs left before this has its export tasks, in ns of the wall clock; 0 when nobody has looked yet."""
        return self._words[_TASKS]

    # Rows: one a receiver process.

    def claim_row(self) -> int | None:
        """A free row for a process that is about to be spawned; the supervisor alone calls this."""
        for row in range(_ROWS):
            if self._words[self._at(row, _PID)] == 0:
                self._words[self._at(row, _PID)] = 1  # reserved until the process says who it is
                return row
        return None

    def clear_row(self, row: int) -> None:
        """Free a dead process's row and its slots, keeping the count of bytes that it stored."""
        self._words[_RETIRED_BYTES] += self._words[self._at(row, _STORED_BYTES)]
        start = self._at(row, 0)
        self._map[8 * start : 8 * (start + _ROW_WORDS)] = bytes(8 * _ROW_WORDS)

    @property
    def active_associations(self) -> int:
        """Associations over all receivers."""
        return sum(self._words[self._at(row, _ACTIVE)] for row in range(_ROWS))

    @property
    def stored_bytes(self) -> int:
        """Bytes stored by all receivers since the supervisor started."""
        rows = self._words[_HEADER_WORDS + _STORED_BYTES :: _ROW_WORDS]
        return self._words[_RETIRED_BYTES] + sum(rows)

    def receiver_row(self, row: int) -> "ReceiverRow":
        """The row of this process."""
        return ReceiverRow(self._words, row)

    @staticmethod
    def _at(row: int, word: int) -> int:
        return _HEADER_WORDS + row * _ROW_WORDS + word


class ReceiverRow:
    """A receiver's own row: its association slots and what it stored. Only its process writes here."""

    def __init__(self, words: "memoryview[int]", row: int) -> None:
        self._words = words
        self._row = row
        self._start = _HEADER_WORDS + row * _ROW_WORDS
        self._stored = self._start + _STORED_BYTES
        self._free = list(range(_HOSTS - 1, -1, -1))
        words[self._start + _PID] = os.getpid()

    def set_accepting(self, accepting: bool) -> None:
        """Say whether this process takes new connections."""
        self._words[self._start + _ACCEPTING] = accepting

    def claim_slot(self, host: int, maximum: int, maximum_per_host: int) -> int | None:
        """Take an association slot, or None when the maximum of all, or of this host, is reached.

        It claims first and counts afterwards, so that two processes can never both take the last slot; both may
        then give it back, which the refused peer sees as a transient rejection.

        Args:
            host: `host_key` of the peer's address.
            maximum: associations over all receivers.
            maximum_per_host: associations of one host over all receivers; 0 is no limit.
        """
        if not self._free:
            return None
        slot = self._free.pop()
        self._words[self._start + 4 + slot] = host
        self._words[self._start + _ACTIVE] += 1
        if self._total() > maximum or (maximum_per_host and self._of_host(host) > maximum_per_host):
            self.free_slot(slot)
            return None
        return slot

    def free_slot(self, slot: int) -> None:
        """Give a slot back."""
        self._words[self._start + 4 + slot] = 0
        self._words[self._start + _ACTIVE] -= 1
        self._free.append(slot)

    def add_stored(self, count: int) -> None:
        """Count bytes that were stored."""
        self._words[self._stored] += count

    @property
    def active(self) -> int:
        """Associations of this process."""
        return self._words[self._start + _ACTIVE]

    def least_active_other(self) -> int | None:
        """The smallest number of associations of another accepting receiver; None when there is no other."""
        others = [
            self._words[start + _ACTIVE]
            for row in range(_ROWS)
            if row != self._row and self._words[(start := _HEADER_WORDS + row * _ROW_WORDS) + _ACCEPTING]
        ]
        return min(others, default=None)

    def _total(self) -> int:
        return sum(self._words[_HEADER_WORDS + row * _ROW_WORDS + _ACTIVE] for row in range(_ROWS))

    def _of_host(self, host: int) -> int:
        count = 0
        for row in range(_ROWS):
            start = _HEADER_WORDS + row * _ROW_WORDS
            if self._words[start + _ACTIVE]:
                count += self._words[start + 4 : start + _ROW_WORDS].tolist().count(host)
        return count
