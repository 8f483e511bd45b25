"""How many bytes the spool holds, counted as they change: found once at start, then by what each process tells.

    found at start + stored by receivers, and retrieved, since + taken by runs of the embedded platform
    - deleted by the guardian

A file counts its length. The payloads of jobs count nothing, since they are links to instances that the guardian keeps
for as long as a run may need them. An object in transit counts when it has become an instance.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from protocol.board import Board
from protocol.clock import NANOSECONDS
from protocol.spool import PART_SUFFIX, REQUEST_DIRECTORIES, Spool


class Usage:
    """What the spool holds.

    Args:
        board: where receivers and the platform tell what they have written.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._began_ns = time.time_ns()
        self._stored_before = board.stored_bytes + board.retrieved_bytes
        self._found_bytes: int | None = None
        self._deleted_bytes = 0

    def find(self, spool: Spool) -> None:
        """Count the instances that were there when this object was made; for a thread, since there may be millions.

        Args:
            spool: where they are.
        """
        with contextlib.suppress(OSError):  # who measures the disk tells of that, and this is tried again
            self._found_bytes = _stored_until(spool, self._began_ns)

    @property
    def known(self) -> bool:
        """Whether the instances that were there at the start are counted."""
        return self._found_bytes is not None

    @property
    def bytes(self) -> int:
        """What the spool holds; before it is known, what came since the start."""
        stored = self._board.stored_bytes + self._board.retrieved_bytes - self._stored_before
        return max(0, (self._found_bytes or 0) + stored + self._board.platform_bytes - self._deleted_bytes)

    def deleted(self, count: int) -> None:
        """The guardian has deleted instances of so many bytes."""
        self._deleted_bytes += count


def _directories(spool: Spool) -> Iterator[Path]:
    """Where what was received and retrieved lies."""
    for root in (spool.instances, spool.arrivals().instances):
        for shard in os.listdir(root):
            yield root / shard
    for request in os.listdir(spool.requests):
        yield from (spool.requests / request / kind for kind in REQUEST_DIRECTORIES)


def _stored_until(spool: Spool, moment_ns: int) -> int:
    """Bytes of the files that were complete before a moment; what comes later is counted by who stores it."""
    total = 0
    for directory in _directories(spool):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if not entry.name.endswith(PART_SUFFIX) and entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        # A step of the clock may have left files in the future; those are as old as the rest.
                        if not moment_ns <= status.st_mtime_ns < moment_ns + 3600 * NANOSECONDS:
                            total += status.st_size
    return total
