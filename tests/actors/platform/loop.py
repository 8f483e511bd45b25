"""A platform actor of which only the loop is needed: what is to be done in it, or in a thread, is done at once."""

from collections.abc import Callable

from protocol.config import load
from protocol.logs import EventLogger


class Loop:
    """Calls what is to be called every now and then when a test says so."""

    def __init__(self) -> None:
        self.log = EventLogger("adapter.platform")
        self.settings = load(None, None, [], {}).settings
        self.draining = False
        self.board = self
        self.is_short = False
        self.tasks_made_ns = 0
        self.freed: list[int] = []
        self.look: Callable[[], None] = lambda: None

    def every(self, _: float, look: Callable[[], None]) -> None:
        self.look = look

    def in_thread(self, work: Callable[[], None]) -> None:
        work()

    post = surely = in_thread
