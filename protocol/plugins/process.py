"""One host process as the actor sees it that started it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys


class HostProcess:
    """A living host. It has a process group of its own, and ends when the one that started it does.

    Args:
        name: the job processor's name.
        ae_title: of which AE title.
        output: descriptor for what it prints; None throws that away, for it may hold patient data.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, name: str, ae_title: str, output: int | None = None) -> None:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        printed = subprocess.DEVNULL if output is None else output
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [sys.executable, "-P", "-m", "protocol.plugins.host", str(os.getpid()), f"{name} {ae_title}"],
                    stdin=theirs.fileno(),
                    stdout=printed,
                    stderr=printed,
                    start_new_session=True,
                )
        except OSError:
            self.connection.close()
            raise
        self.pid = self._process.pid
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            self.kill()
            self._process.wait()
            self.connection.close()
            raise

    def kill(self) -> None:
        """End it, and what it has started, now; to be followed by `reap` when its pidfd is readable."""
        if self._process.returncode is None:  # else its process ID may be another's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> str:
        """Wait for its end and let go of it; returns how it ended, as words that follow "it"."""
        code = self._process.wait()
        self.connection.close()
        os.close(self.pidfd)
        if code >= 0:
            return f"exited with code {code}"
        names = {number.value: number.name for number in signal.Signals}
        return f"was ended by {names.get(-code, f'signal {-code}')}"
