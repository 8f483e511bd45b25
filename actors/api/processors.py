"""Job processors as the API needs them: to check an AE title's settings, and to know what elements it groups by.

Ours are called here. Those of other packages are called in a process of their own with a time limit: what they do wrong
is their author's fault, is told as a problem of their AE title, and harms nothing else.
"""

import dataclasses
import queue
import threading
import time
from collections.abc import Mapping

from actors.api.checking import CheckFailedError, check
from actors.api.problems import ProblemError
from protocol.errors import NotFoundError
from protocol.job_processors import JobProcessor, find, is_own, load
from protocol.logs import EventLogger
from protocol.plugins.calls import Loaded

_CHECKS_AT_ONCE = 4
_WAIT_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0


@dataclasses.dataclass(slots=True)
class _Known:
    """What was found out about one AE title's job processor.

    Args:
        name: the processor's name.
        settings: with which it was asked.
        tags: the elements that it groups by; None when it did not tell.
        pause_seconds: since it did not.
        next_at: when it may be asked again, on the monotonic clock.
    """

    name: str
    settings: dict[str, str]
    tags: tuple[str, ...] | None = None
    pause_seconds: float = 0.0
    next_at: float = 0.0


class Processors:
    """The installed job processors."""

    def __init__(self) -> None:
        self._log = EventLogger("adapter.api")
        self._own: dict[str, type[JobProcessor]] = {}
        self._known: dict[str, _Known] = {}
        self._checks = threading.BoundedSemaphore(_CHECKS_AT_ONCE)
        self._unknown: queue.SimpleQueue[tuple[str, _Known]] = queue.SimpleQueue()
        self._finder: threading.Thread | None = None

    def problems(self, name: str, ae_title: str, settings: Mapping[str, str]) -> list[str]:
        """Everything that is wrong with a processor's name and settings; one of another package may take its time.

        Raises:
            ProblemError: too many of them are checking settings now.
        """
        try:
            own = self._find_own(name)
        except NotFoundError as error:
            return [f"processor: {error}"]
        if own is not None:
            return [f"processorSettings: {problem}" for problem in own.validate(settings)]
        if not self._checks.acquire(timeout=_WAIT_SECONDS):
            raise ProblemError(
                503, "other job processors are checking settings now: try again", headers={"Retry-After": "5"}
            )
        try:
            answer = check(name, ae_title, dict(settings))
        except CheckFailedError as error:
            self._log.error("job_processor_failed", processor=name, step="validate", reason=f"it {error}")
            return [f"processor: {name!r} could not check its settings (it {error}): mend the plug-in"]
        finally:
            self._checks.release()
        if isinstance(answer, Loaded):
            self._known[ae_title] = _Known(name, dict(settings), answer.tags)
            return []
        return [f"processorSettings: {problem}" for problem in answer.problems]

    def tags(self, name: str, ae_title: str, settings: Mapping[str, str]) -> tuple[str, ...] | None:
        """The elements that a processor groups by; None while that is not known: then it must be asked again."""
        known = self._known.get(ae_title)
        if known is None or (known.name, known.settings) != (name, settings):
            known = _Known(name, dict(settings))
        if known.tags is not None or time.monotonic() < known.next_at:
            return known.tags
        try:
            own = self._find_own(name)
            if own is not None:
                return tuple(own(ae_title, settings).tags)
        except Exception as error:
            self._fail(ae_title, known, type(error).__name__)
            return None
        known.next_at = float("inf")
        self._known[ae_title] = known
        self._unknown.put((ae_title, known))
        if self._finder is None:
            self._finder = threading.Thread(target=self._find_out, name="job-processors", daemon=True)
            self._finder.start()
        return None

    def _find_own(self, name: str) -> type[JobProcessor] | None:
        """The class of a job processor of ours; None when it is another package's.

        Raises:
            NotFoundError: it is not installed; it is looked for again each time.
        """
        if name not in self._own:
            if not is_own(find(name)):
                return None
            self._own[name] = load(name)
        return self._own[name]

    def _find_out(self) -> None:
        """In a thread of its own: have job processors of other packages tell their tags, one by one."""
        while True:
            ae_title, known = self._unknown.get()
            try:
                answer = check(known.name, ae_title, known.settings)
            except CheckFailedError as error:
                self._fail(ae_title, known, f"it {error}")
                continue
            if isinstance(answer, Loaded):
                known.tags = answer.tags
            else:
                self._fail(ae_title, known, "; ".join(answer.problems))

    def _fail(self, ae_title: str, known: _Known, reason: str) -> None:
        """Asked again after a pause that grows."""
        known.pause_seconds = min(_LONGEST_PAUSE_SECONDS, max(_FIRST_PAUSE_SECONDS, 2 * known.pause_seconds))
        known.next_at = time.monotonic() + known.pause_seconds
        self._known[ae_title] = known
        self._log.error("job_processor_failed", processor=known.name, step="tags", ae_title=ae_title, reason=reason)
