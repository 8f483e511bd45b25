"""One actor's process: how it is started, heard, judged, and ended."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from protocol import messages
from protocol.birth import Birth
from supervisor.limits import HEARTBEAT_LIMIT_SECONDS, START_LIMIT_SECONDS

_FROM_ACTOR = messages.decoder(messages.FromActor)


class Child:
    """A living process.

    Args:
        birth: its inheritance, with `lifeline` not yet set.
        held: descriptors that it merely keeps open.
    """

    def __init__(self, birth: Birth, held: tuple[int, ...]) -> None:
        self.lifeline, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.lifeline.setblocking(False)
        self.name = birth.name
        self.row = birth.row
        with theirs:
            complete = msgspec.structs.replace(birth, lifeline=theirs.fileno())
            self._process = subprocess.Popen(  # our own interpreter and module
                [sys.executable, "-P", "-m", "actors"],
                env={**os.environ, **complete.environment()},
                pass_fds=(*complete.descriptors, *held),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.state = "starting"
        self.detail = ""
        self.outdated = False  # settings changed while it started
        self.started = self.last_beat = time.monotonic()
        self.deadline = float("inf")  # when a drain is cut
        self._quiet_seconds = 0.0

    def hear(self) -> list[messages.Message]:
        """What it has said; states and the heartbeat are kept here."""
        heard: list[messages.Message] = []
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self.lifeline.recv(65536):
                message: messages.Message = _FROM_ACTOR.decode(data)
                self.last_beat = time.monotonic()
                if isinstance(message, messages.Heartbeat):
                    self.detail = message.detail
                    self._quiet_seconds = message.quiet_seconds
                    if self.state == "stalled":
                        self.state = "running"
                elif isinstance(message, messages.Ready) and self.state == "starting":
                    self.state = "running"
                heard.append(message)
        return heard

    def drain(self, seconds: float, *, gateway_stops: bool) -> None:
        """Ask it to finish; `judge` ends it when it has not."""
        self.state = "draining"
        self.deadline = time.monotonic() + seconds
        self._tell(messages.Drain(seconds=seconds, gateway_stops=gateway_stops))

    def tell_settings_changed(self) -> None:
        """Have it read the settings file again."""
        self._tell(messages.SettingsChanged())

    def limit(self) -> float:
        """When, by the monotonic clock, it is late unless it is heard before."""
        allowed = START_LIMIT_SECONDS if self.state == "starting" else HEARTBEAT_LIMIT_SECONDS
        return min(self.last_beat + max(allowed, self._quiet_seconds), self.deadline + 1.0)

    def judge(self) -> str:
        """What a late process is: "stalled" in uninterruptible disk wait, where killing is useless, else "hung"."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return "hung"
        return "stalled" if stat.rpartition(")")[2].split()[0] == "D" else "hung"

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int:
        """Collect its exit code after its pidfd became readable (negative: the signal that ended it)."""
        code = self._process.wait()
        self.lifeline.close()
        os.close(self.pidfd)
        return code

    def _tell(self, message: messages.Message) -> None:
        with contextlib.suppress(OSError):
            self.lifeline.send(messages.encode(message))
