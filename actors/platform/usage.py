"""How many bytes runs take in the spool, counted as they change: the quota is kept by it.

A payload costs nothing: its links are to instances that stay in the spool for as long as the run may need them. What
costs is the copy that a run reads, and what its pipeline writes. The copy is counted when it is made; what is written
is looked at while the run goes on, and once more at its end, when what stays is committed with the run's state.
"""

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

_BLOCK_BYTES = 512  # of st_blocks, see stat(2)


class Usage:
    """What all runs take.

    Args:
        publish: told the sum each time that it changes.
        kept_bytes: what runs that are over have left.
    """

    def __init__(self, publish: Callable[[int], None], kept_bytes: int) -> None:
        self._publish = publish
        self._kept_bytes = kept_bytes
        self._copied: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._tell()

    def copied(self, run_id: str, count: int) -> None:
        """A run's input takes so many bytes of its own."""
        self._copied[run_id] = count
        self._tell()

    def written(self, run_id: str, count: int) -> None:
        """A run had written so much when it was looked at; it may be over by now."""
        if run_id in self._copied:
            self._written[run_id] = count
            self._tell()

    def ended(self, run_id: str, kept_bytes: int) -> None:
        """A try is over, and so much of it stays."""
        self._copied.pop(run_id, None)
        self._written.pop(run_id, None)
        self._kept_bytes += kept_bytes
        self._tell()

    def freed(self, kept_bytes: int) -> None:
        """What a run had left is deleted."""
        self._kept_bytes -= kept_bytes
        self._tell()

    def _tell(self) -> None:
        self._publish(self._kept_bytes + sum(self._copied.values()) + sum(self._written.values()))


def own_bytes(*places: Path) -> int:
    """What files and directories take that is theirs alone: a file that has another name elsewhere counts nothing.

    Args:
        places: may be missing, and may change while this looks.
    """
    total = 0
    waiting = [os.fspath(place) for place in places]
    while waiting:
        path = waiting.pop()
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(path) as entries:
                    waiting += [entry.path for entry in entries]
            elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                total += min(status.st_size, status.st_blocks * _BLOCK_BYTES)  # a hole takes nothing
    return total
