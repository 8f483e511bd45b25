"""Where a run works: one directory on the disk that is measured, one in memory, both deleted at its end."""

import contextlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Tell = Callable[[str], None]


class Place:
    """Directories of one run of the bench, and its choices.

    Args:
        disk: on the disk that is measured.
        memory: on a tmpfs.
        rounds: that are counted.
        seconds: after which a comparison ends with the rounds that it has.
        tell: shows progress.
    """

    def __init__(self, disk: Path, memory: Path, rounds: int, seconds: float, tell: Tell) -> None:
        self._disk, self._memory = disk, memory
        self._serial = itertools.count()
        self._seconds = seconds
        self.rounds = rounds
        self.tell = tell

    def turns(self) -> Iterator[int]:
        """Numbers of rounds: 0 warms up and is not counted; on a slow machine there are fewer, but two are counted."""
        start = time.monotonic()
        for number in range(self.rounds + 1):
            yield number
            elapsed = time.monotonic() - start
            if 2 <= number < self.rounds and elapsed + elapsed / (number + 1) > self._seconds:
                self.tell(f"{number} of {self.rounds} rounds: more would take longer than {self._seconds:g} s")
                return

    def on_disk(self) -> Path:
        """A new name."""
        return self._disk / f"{next(self._serial):03d}"

    @contextlib.contextmanager
    def in_memory(self) -> Iterator[Path]:
        """A new directory, deleted at the end of the block."""
        directory = self._memory / f"{next(self._serial):03d}"
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def open_place(rounds: int, seconds: float, tell: Tell) -> Iterator[Place]:
    """Make the directories: below `BENCH_DIRECTORY`, by default the system's temporary one, and in `/dev/shm`.

    Args:
        rounds: see `Place`.
        seconds: see `Place`.
        tell: see `Place`.
    """
    disk = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIRECTORY")))
    memory = Path(tempfile.mkdtemp(prefix="bench-", dir="/dev/shm"))
    disk.chmod(0o755)  # pipelines of another user must get there
    previous = os.environ.pop("TCP_NODELAY", None)
    try:
        yield Place(disk, memory, rounds, seconds, tell)
    finally:
        if previous is not None:
            os.environ["TCP_NODELAY"] = previous
        shutil.rmtree(memory, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)
