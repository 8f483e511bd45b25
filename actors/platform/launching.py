"""Starts shims by a fork server, see `fork_server`: this actor's end of it.

A fork server that has died is replaced at the next launch. Then it may not be known whether the last shim was started;
the try's lock, which every shim holds, tells.
"""

import array
import contextlib
import marshal
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

_ROOT = Path(__file__).parents[2]
_RUN = "import sys; sys.path.append(sys.argv[1]); from actors.platform import fork_server; fork_server.main()"
_ANSWER_SECONDS = 60.0  # it takes milliseconds, a start on a stalled disk longer; who says nothing was stopped
# Not this actor's: its marks would make actors of shims (`supervisor/orphans.py`), and it may hold secrets.
_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C.UTF-8"}


class NoAnswerError(Exception):
    """The fork server died, or was stopped, while it was asked: the shim may live."""


class ForkServer:
    """A child process that forks shims. It is used by several threads, and ends with this process.

    Args:
        alive: descriptor that ends when the supervisor is gone.
    """

    def __init__(self, alive: int) -> None:
        self._alive = alive
        self._turn = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process ID, 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it, so that the first launch need not; it is no error when that cannot be done now."""
        with contextlib.suppress(OSError), self._turn:
            self._connect()

    def launch(self, arguments: Sequence[str], environment: Mapping[str, str], lock: int) -> int:
        """Start a shim; returns a descriptor of its process.

        Args:
            arguments: as in the shim's docstring.
            environment: of the command.
            lock: of the try, open and locked.

        Raises:
            OSError: no process can be started now; none was.
            NoAnswerError: it is not known whether one was.
        """
        told = (list(map(os.fsencode, arguments)), [tuple(map(os.fsencode, pair)) for pair in environment.items()])
        request = marshal.dumps(told)
        with self._turn:
            # For the descriptor that comes back, so that a shim is not started when there are no more.
            reserve = os.dup(lock)
            try:
                control = self._connect()
                self._send(control, request, lock)
            finally:
                os.close(reserve)
            return self._hear(control)

    def close(self) -> None:
        """End it; shims go on."""
        with self._turn:
            self._end()

    def _connect(self) -> socket.socket:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._control is None:
            self._control, theirs = socket.socketpair()
            try:
                self._control.settimeout(_ANSWER_SECONDS)
                self._process = subprocess.Popen(  # noqa: S603 # our own
                    [sys.executable, "-I", "-S", "-c", _RUN, str(_ROOT), str(theirs.fileno()), str(self._alive)],
                    pass_fds=(theirs.fileno(), self._alive),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=_ENVIRONMENT,
                    start_new_session=True,
                )
            except OSError:
                self._end()
                raise
            finally:
                theirs.close()
        return self._control

    def _send(self, control: socket.socket, request: bytes, lock: int) -> None:
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [lock]))]
            control.sendmsg([len(request).to_bytes(4, "little")], rights)
            control.sendall(request)
        except OSError:  # how much was sent is not known
            self._end()
            raise NoAnswerError from None

    def _hear(self, control: socket.socket) -> int:
        descriptors = array.array("i")
        size = descriptors.itemsize
        try:
            data, ancillary, _, _ = control.recvmsg(8, socket.CMSG_LEN(size), socket.MSG_CMSG_CLOEXEC)
        except OSError:
            data, ancillary = b"", []
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(rights[: len(rights) // size * size])
        number = int.from_bytes(data, "little", signed=True)
        if number < 0:
            raise OSError(-number, os.strerror(-number))
        if len(data) < 8:
            self._end()
            raise NoAnswerError
        if not descriptors:
            raise NoAnswerError  # this process has no descriptor left for it
        return descriptors[0]

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)
            self._process.kill()
            self._process.wait()
            self._process = None
