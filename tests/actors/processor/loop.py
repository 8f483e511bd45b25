"""A main loop for what lives in the processor's, without the processor."""

import select
import time
from collections.abc import Callable

from actors.actor import Timer
from tests.actors.launcher import PATIENCE_SECONDS


class Loop:
    """Turns while the test waits for something."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._timers: list[Timer] = []

    def watch(self, fd: int, callback: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._watched[fd] = callback
        self._epoll.register(fd, events)

    def rewatch(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, callback)
        self._timers.append(timer)
        return timer

    @property
    def watched(self) -> int:
        """How many descriptors are watched."""
        return len(self._watched)

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Turn until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
            self._turn()

    def _turn(self) -> None:
        self._timers = [timer for timer in self._timers if timer.callback is not None]
        next_at = min((timer.at for timer in self._timers), default=float("inf"))
        for fd, events in self._epoll.poll(max(0.0, min(0.1, next_at - time.monotonic()))):
            if fd in self._watched:
                self._watched[fd](events)
        for timer in self._timers:
            if timer.callback is not None and timer.at <= time.monotonic():
                callback, timer.callback = timer.callback, None
                callback()
