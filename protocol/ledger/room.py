"""What an SQLite ledger takes of its quota."""

import contextlib
import os
import struct

import msgspec

_WARNING_SHARE = 0.9
_HEADER_BYTES = 100
_PAGE_SIZE, _FREE_PAGES = struct.Struct(">16xH"), struct.Struct(">36xI")  # of the database's header
_LARGEST_PAGE = 65536  # which two bytes do not hold: there it is 1


class LedgerRoom(msgspec.Struct, frozen=True, kw_only=True):
    """What an SQLite ledger takes of its quota.

    Args:
        bytes: of the database and of its write-ahead log.
        quota_bytes: that it may take.
    """

    bytes: int
    quota_bytes: int

    @property
    def is_short(self) -> bool:
        """Whether a person should do something about it."""
        return self.bytes > self.quota_bytes * _WARNING_SHARE

    @property
    def is_spent(self) -> bool:
        """Whether intake stops."""
        return self.bytes > self.quota_bytes


def ledger_bytes(path: str) -> int:
    """The size of an SQLite database and its write-ahead log, without the database's free pages, which it fills again.

    Args:
        path: of the database; what does not exist (yet) has 0 bytes.

    Raises:
        OSError: it cannot be read.
    """
    total = 0
    for name in (path, f"{path}-wal"):
        with contextlib.suppress(FileNotFoundError):
            total += os.stat(name).st_size
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as database:
        header = database.read(_HEADER_BYTES)
        if len(header) == _HEADER_BYTES:
            (page_size,), (free_pages,) = _PAGE_SIZE.unpack_from(header), _FREE_PAGES.unpack_from(header)
            total -= free_pages * (page_size if page_size > 1 else _LARGEST_PAGE)
    return total
