"""As much of an actor's loop as the durable write needs."""

import queue
import select
import time
from collections.abc import Callable


class Loop:
    """As much of an actor's loop as a syncer uses."""

    def __init__(self) -> None:
        self.posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.post = self.posted.put
        self.epoll = select.epoll()
        self.watched: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, callback: Callable[[int], None]) -> None:
        self.watched[fd] = callback
        self.epoll.register(fd, 1)

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]
        self.epoll.unregister(fd)

    def turn(self, seconds: float) -> None:
        for fd, events in self.epoll.poll(min(seconds, 0.01)):
            self.watched[fd](events)
        while not self.posted.empty():
            self.posted.get()()

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            self.turn(1.0)
