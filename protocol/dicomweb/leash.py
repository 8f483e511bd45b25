"""Ends an HTTP exchange of which nothing comes, in whatever way a server keeps it alive.

A client's deadlines are of single waits: a header that comes byte by byte, interim responses (RFC 9110 §15.2) or the
extensions of a chunk (RFC 9112 §7.1.1) without end pass each of them, and give the caller nothing to look at.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

_OPENED = ("connection.connect_tcp.complete", "connection.start_tls.complete")
_MOST_STREAMS = 32  # of those that a client's pool may hold


class Hold:
    """One exchange on a leash.

    Args:
        seconds: how long nothing may come.

    Attributes:
        is_cut: whether it was ended.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.is_cut = False
        self.extend()

    def extend(self) -> None:
        """Something of use has come."""
        self._ends = time.monotonic() + self._seconds

    @property
    def left(self) -> float:
        """Seconds until it is ended."""
        return self._ends - time.monotonic()


class Leash:
    """The leash of one client; what it ends, it ends by closing all connections that this client has open.

    Args:
        seconds: from the request to the first of its body, and between any two pieces of that, at most.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._streams: list[Any] = []

    @property
    def extensions(self) -> dict[str, Any]:
        """What each request of the client must be given as such (see httpx, "trace")."""
        return {"trace": self._trace}

    @contextlib.contextmanager
    def hold(self) -> Iterator[Hold]:
        """Hold an exchange as long as the block lasts."""
        hold, over = Hold(self._seconds), threading.Event()
        watch = threading.Thread(target=self._watch, args=(hold, over), daemon=True, name="leash")
        watch.start()
        try:
            yield hold
        finally:
            over.set()

    def _watch(self, hold: Hold, over: threading.Event) -> None:
        while (left := hold.left) > 0:
            if over.wait(left):
                return
        hold.is_cut = True
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def _trace(self, event: str, told: dict[str, Any]) -> None:
        if event in _OPENED:
            self._streams = [*self._streams[1 - _MOST_STREAMS :], told["return_value"]]
