"""What systemd is told, and what it may hand over: sd_notify(3) and sd_listen_fds(3), without a library."""

import contextlib
import os
import socket
import time

_FIRST_FD = 3


def listen_descriptors() -> list[int]:
    """Descriptors of sockets that systemd opened for this process; empty without socket activation."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return list(range(_FIRST_FD, _FIRST_FD + count))


class Notifier:
    """The notification socket, when there is one; the watchdog's beat is due every `watchdog_seconds`."""

    def __init__(self) -> None:
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        watched = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        interval = int(os.environ.pop("WATCHDOG_USEC", "0")) if watched else 0
        self.watchdog_seconds = interval / 2_000_000 if self._path else 0.0
        self._next_beat = time.monotonic()
        self._status = ""

    def send(self, *lines: str) -> None:
        """Send lines such as `READY=1`; a manager that does not listen is no reason to stop."""
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto("\n".join(lines).encode(), address)

    def status(self, sentence: str) -> None:
        """Tell the state as a sentence, when it has changed."""
        if sentence != self._status:
            self._status = sentence
            self.send(f"STATUS={sentence}")

    def beat(self, clock: float) -> float:
        """Send the watchdog's beat when it is due; returns when the next one is."""
        if not self.watchdog_seconds:
            return float("inf")
        if clock >= self._next_beat:
            self.send("WATCHDOG=1")
            self._next_beat = clock + self.watchdog_seconds
        return self._next_beat
