"""A post: a place in the house that must be filled, whoever fills it now, and what happened there before."""

import random
import signal
import time

from supervisor.child import Child
from supervisor.limits import STEADY_SECONDS

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_EXIT_CONFIGURATION = 78


class Post:
    """One actor's name, with its present process.

    Args:
        name: the actor's name.
        kind: its kind.
    """

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.child: Child | None = None
        self.successor: Child | None = None
        self.restarts = 0
        self.next_start = 0.0  # by the monotonic clock; infinite when it is not to be started
        self.failed = ""
        self._failures = 0
        self._last_code = 0

    @property
    def trouble(self) -> str:
        """Why nobody is there, or a new one just starts, in words for `status`; empty after an orderly end."""
        if self.failed or not self._failures:
            return self.failed
        end = f"exit code {self._last_code}" if self._last_code >= 0 else signal.Signals(-self._last_code).name
        many = f"ended {self._failures} times in a row, the last time by" if self._failures > 1 else "ended by"
        return f"{many} {end}"

    @property
    def state(self) -> str:
        """As `status` shows it."""
        if self.child is not None:
            return self.child.state
        return "failed" if self.failed else "backoff"

    @property
    def filled(self) -> bool:
        """Whether a process is there that takes part."""
        return self.child is not None and self.child.state in ("running", "stalled") and self.successor is None

    def due(self, clock: float) -> bool:
        """Whether a process is to be started now."""
        return self.child is None and clock >= self.next_start

    def start_now(self) -> None:
        """Forget pauses and failures: a person asked."""
        self.failed = ""
        self._failures = 0
        self.next_start = 0.0

    def lost(self, code: int, lived_seconds: float, *, asked: bool) -> float:
        """Decide when the next process starts, after one has ended.

        Args:
            code: its exit code; negative is a signal's number.
            lived_seconds: how long it lived.
            asked: it was told to end.

        Returns:
            The pause in seconds; infinite when the configuration has to be mended first.
        """
        self.restarts += 1
        self._last_code = code
        if asked:
            self._failures = 0
            pause = 0.0
        elif code == _EXIT_CONFIGURATION:
            self.failed = "its configuration has to be mended; see its last log line"
            pause = float("inf")
        else:
            self._failures = 1 if lived_seconds > STEADY_SECONDS else self._failures + 1
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self._failures - 1, 10))
            pause *= random.uniform(0.5, 1.0)  # noqa: S311 # jitter, no secret
        self.next_start = time.monotonic() + pause
        return pause
