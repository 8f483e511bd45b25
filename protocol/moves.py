"""From where receivers expect what a C-MOVE of ours brings: written by the retriever, read at association requests.

It is a file in the spool, as the access list is. Every expectation ends by itself, so that a retriever that was killed
leaves no door open.
"""

import os
import time
from pathlib import Path

import msgspec

from protocol.spool import write_durably

EXPECTED_SECONDS = 120.0
"""How long an expectation holds that nobody renews."""


class ExpectedMove(msgspec.Struct, frozen=True, kw_only=True):
    """A host that may send to our own AE title.

    Args:
        host: its address, normalized.
        until_ns: wall time until which it is expected.
    """

    host: str
    until_ns: int


class MovesFile:
    """The expectations on disk, read again when they have changed.

    Args:
        path: `Spool.moves`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(tuple[ExpectedMove, ...])
        self._seen: tuple[int, int, int] | None = None
        self._current: tuple[ExpectedMove, ...] = ()

    def expects(self, host: str) -> bool:
        """Whether a host is expected to send now; nobody is while the file cannot be read."""
        now_ns = time.time_ns()
        return any(each.host == host and each.until_ns > now_ns for each in self._read())

    def replace(self, moves: tuple[ExpectedMove, ...]) -> None:
        """Write new expectations; they hold for every association request from now on."""
        write_durably(self._path, msgspec.json.encode(moves))

    def _read(self) -> tuple[ExpectedMove, ...]:
        try:
            status = os.stat(self._path)
            identity = (status.st_ino, status.st_mtime_ns, status.st_size)
            if identity != self._seen:
                self._current = self._decoder.decode(self._path.read_bytes())
                self._seen = identity
        except (OSError, msgspec.DecodeError):
            return ()
        return self._current
