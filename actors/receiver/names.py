"""Host names of sources, resolved in the background, so that a slow name server never stops the receive loop."""

import socket
import threading
import time
from collections.abc import Callable, Collection

from protocol.logs import EventLogger

FRESH_SECONDS = 5.0
_REFRESH_SECONDS = 60.0

Resolve = Callable[[str], frozenset[str]]


def resolve(name: str) -> frozenset[str]:
    """All addresses of a name.

    Raises:
        OSError: the name server has no answer.
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return frozenset(str(address[4][0]).partition("%")[0] for address in found)


class HostNames:
    """What each name last meant; the last good answer stays when the name server fails.

    Args:
        post: calls back in the receive loop.
        log: told when a name cannot be resolved.
        resolve: asks the name server; it may take long.
    """

    def __init__(
        self, post: Callable[[Callable[[], None]], None], log: EventLogger, resolve: Resolve = resolve
    ) -> None:
        self._post = post
        self._log = log
        self._resolve = resolve
        self._answers: dict[str, frozenset[str]] = {}
        self._asked: dict[str, float] = {}  # when the last answer came, good or bad
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def addresses(self, name: str) -> frozenset[str]:
        """The last good answer, empty when there was none; an old one is asked for again on the side."""
        if name in self._answers and time.monotonic() - self._asked[name] > _REFRESH_SECONDS:
            self._ask(name)
        return self._answers.get(name, frozenset())

    def is_fresh(self, name: str) -> bool:
        """Whether the name server was asked within the last seconds."""
        return time.monotonic() - self._asked.get(name, float("-inf")) < FRESH_SECONDS

    def refresh(self, names: Collection[str], done: Callable[[], None]) -> None:
        """Ask for some names, and call `done` in the loop once, when all have been answered, well or not."""
        missing = set(names)

        def answered(name: str) -> None:
            missing.discard(name)
            if not missing:
                done()

        for name in names:
            self._ask(name)
            self._waiting[name].append(lambda name=name: answered(name))  # type: ignore[misc] # binds the name

    def _ask(self, name: str) -> None:
        if name not in self._waiting:
            self._waiting[name] = []
            threading.Thread(target=self._look_up, args=(name,), daemon=True, name=f"resolve {name}").start()

    def _look_up(self, name: str) -> None:
        try:
            answer = self._resolve(name)
        except (OSError, UnicodeError) as error:
            reason = str(error)
            self._post(lambda: self._failed(name, reason))
        else:
            self._post(lambda: self._answered(name, answer))

    def _failed(self, name: str, reason: str) -> None:
        kept = ",".join(sorted(self._answers.get(name, ())))
        self._log.warning("host_name_not_resolved", name=name, reason=reason, last_answer=kept)
        self._tell(name)

    def _answered(self, name: str, answer: frozenset[str]) -> None:
        self._answers[name] = answer
        self._tell(name)

    def _tell(self, name: str) -> None:
        self._asked[name] = time.monotonic()
        for done in self._waiting.pop(name, ()):
            done()
