"""Who may run when several workers run tests: most beside each other, some alone, since they measure time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def turn(directory: Path, *, alone: bool) -> Iterator[None]:
    """Wait for a turn, and have it while the block lasts.

    Args:
        directory: the same for all that take turns.
        alone: beside nobody else. Who waits for that comes before all who ask later.
    """
    with (directory / "turnstile").open("w") as turnstile, (directory / "turn").open("w") as place:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(place, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(place, fcntl.LOCK_UN)  # also for whoever was forked meanwhile
