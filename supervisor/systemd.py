"""What systemd is told, and what it may hand over: sd_notify(3) and sd_listen_fds(3), without a library."""

import contextlib
import os
import socket
import time

_FIRST_FD = 3
# A start may last while the supervisor's loop turns: an actor may have to migrate its ledger, or wait for a server.
_START_EXTENSION_SECONDS = 120
# Beyond the time that the gateway takes to stop by itself.
_STOP_EXTENSION_SECONDS = 10


def listen_descriptors() -> list[int]:
    """Descriptors of sockets that systemd opened for this process; empty without socket activation."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return list(range(_FIRST_FD, _FIRST_FD + count))


class Notifier:
    """The notification socket, when there is one; the watchdog's beat is due every `watchdog_seconds`.

    A manager that does not listen is no reason to stop.
    """

    def __init__(self) -> None:
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        watched = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        interval = int(os.environ.pop("WATCHDOG_USEC", "0")) if watched else 0
        self.watchdog_seconds = interval / 2_000_000 if self._path else 0.0
        self._next_beat = time.monotonic()
        self._status = ""
        self._started = False

    def ready(self) -> None:
        """Every actor takes part."""
        self._started = True
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again; `reloaded` follows. During a start neither says anything."""
        if self._started:
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """A configuration is in force again, the new one or still the old one."""
        if self._started:
            self._send("READY=1")

    def stopping(self, seconds: float) -> None:
        """The end begins, and may take so long, whatever the unit says."""
        self._send("STOPPING=1", _extend(seconds + _STOP_EXTENSION_SECONDS))

    def status(self, sentence: str) -> None:
        """Tell the state as a sentence, when it has changed."""
        if sentence != self._status:
            self._status = sentence
            self._send(f"STATUS={sentence}")

    def beat(self, clock: float) -> float:
        """Send the watchdog's beat when it is due; returns when the next one is."""
        if not self.watchdog_seconds:
            return float("inf")
        if clock >= self._next_beat:
            self._send("WATCHDOG=1", *(() if self._started else (_extend(_START_EXTENSION_SECONDS),)))
            self._next_beat = clock + self.watchdog_seconds
        return self._next_beat

    def _send(self, *lines: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto("\n".join(lines).encode(), address)


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"
