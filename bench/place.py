"""Where a run works: one directory on the disk that is measured, one in memory, both deleted at its end."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

Tell = Callable[[str], None]


class Place:
    """Directories of one run of the bench, and its choices.

    Args:
        disk: on the disk that is measured.
        memory: on a tmpfs.
        rounds: that are counted.
        tell: shows progress.
    """

    def __init__(self, disk: Path, memory: Path, rounds: int, tell: Tell) -> None:
        self._disk, self._memory = disk, memory
        self._serial = itertools.count()
        self.rounds = rounds
        self.tell = tell

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
def open_place(rounds: int, tell: Tell) -> Iterator[Place]:
    """Make the directories: below `BENCH_DIRECTORY`, by default the system's temporary one, and in `/dev/shm`.

    Args:
        rounds: see `Place`.
        tell: see `Place`.
    """
    disk = Path(tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIRECTORY")))
    memory = Path(tempfile.mkdtemp(prefix="bench-", dir="/dev/shm"))
    disk.chmod(0o755)  # pipelines of another user must get there
    previous = os.environ.pop("TCP_NODELAY", None)
    try:
        yield Place(disk, memory, rounds, tell)
    finally:
        if previous is not None:
            os.environ["TCP_NODELAY"] = previous
        shutil.rmtree(memory, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)
