"""A stand-in for systemd: holds the DICOM port, hears notifications, and starts the gateway as the shipped unit would.

`ManagedGateway` is the manager's side. This module as a program is what systemd does in the child before the service is
executed: the socket becomes descriptor 3, the environment names the process, and the unit's filter of system calls and
its bounding set of capabilities are put on.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.gateway import Gateway

REPOSITORY = Path(__file__).resolve().parent.parent
UNITS = REPOSITORY / "systemd"
WATCHDOG_SECONDS = 3.0
_FIRST_FD = 3
_PR_CAPBSET_DROP, _CAP_NET_BIND_SERVICE, _LAST_CAPABILITY = 24, 10, 40
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # seccomp.h
_QUIT = "quit"


class ManagedGateway(Gateway):
    """A gateway whose port is held, and whose words are heard, over restarts.

    Args:
        arguments: as of `Gateway`.
        sandboxed: with the unit's filter of system calls, where systemd-analyze and libseccomp are installed.
    """

    def __init__(self, *arguments: Any, sandboxed: bool = True, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.heard: list[tuple[float, str]] = []
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self._address = f"{self.runtime}.notify"
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(self._address)
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()
        self._allowed = allowed_system_calls() if sandboxed else []

    def launch(self) -> None:
        self.write_configuration()
        usec = str(int(WATCHDOG_SECONDS * 1_000_000))
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.manager", str(self._listener.fileno()), ",".join(self._allowed)),
                    *(sys.executable, "-m", "cli", "run", "--config", str(self.config)),
                ],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**self._environ, "NOTIFY_SOCKET": self._address, "WATCHDOG_USEC": usec},
                pass_fds=(self._listener.fileno(),),
            )

    def clean_up(self) -> None:
        super().clean_up()
        self._listener.close()
        with contextlib.suppress(OSError):
            self._channel.connect(self._address)
            self._channel.send(_QUIT.encode())
        self._hearing.join(10.0)
        self._channel.close()
        Path(self._address).unlink(missing_ok=True)

    def lines(self, since: float = 0.0) -> list[str]:
        """What was heard after a moment of the monotonic clock, a line each."""
        return [line for at, line in list(self.heard) if at >= since]

    def beats(self) -> list[float]:
        """When the watchdog was fed."""
        return [at for at, line in list(self.heard) if line == "WATCHDOG=1"]

    def status_told(self) -> str:
        """The last sentence."""
        told = [line.removeprefix("STATUS=") for line in self.lines() if line.startswith("STATUS=")]
        return told[-1] if told else ""

    def _hear(self) -> None:
        while (text := self._channel.recv(65536).decode()) != _QUIT:
            clock = time.monotonic()
            self.heard += [(clock, line) for line in text.splitlines()]


def unit_settings(name: str) -> list[tuple[str, str]]:
    """The settings of a unit of ours, in their order."""
    lines = (UNITS / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if "=" in line and line[0] not in "#;["]
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def allowed_system_calls() -> list[str]:
    """What `SystemCallFilter=` of the service leaves; empty where that cannot be found out or applied."""
    if shutil.which("systemd-analyze") is None or _libseccomp() is None:
        return []
    told = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    sets: dict[str, list[str]] = {}
    for line in told.splitlines():
        word = line.strip()
        if line.startswith("@"):
            sets[word] = []
        elif line.startswith(" ") and not word.startswith("#"):
            next(reversed(sets.values())).append(word)

    def members(name: str) -> set[str]:
        return set().union(*(members(one) for one in sets[name])) if name.startswith("@") else {name}

    allowed: set[str] = set()
    for key, value in unit_settings("dicom-adapter.service"):
        if key == "SystemCallFilter":
            named = set().union(*(members(name) for name in value.lstrip("~").split()))
            allowed = allowed - named if value.startswith("~") else allowed | named
    return sorted(allowed)


def _libseccomp() -> "ctypes.CDLL | None":
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    return library


def _put_on(allowed: list[str]) -> None:
    """Every other system call fails with EPERM from now on, here and in what is executed."""
    library = _libseccomp()
    assert library is not None
    context = library.seccomp_init(_ERRNO | errno.EPERM)
    for name in allowed:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # this machine has it
            library.seccomp_rule_add_array(context, _ALLOW, number, 0, None)
    assert library.seccomp_load(context) == 0


def _bound_capabilities() -> None:
    """What root executes from now on has the unit's capabilities only."""
    if os.geteuid() == 0:
        for capability in set(range(_LAST_CAPABILITY + 1)) - {_CAP_NET_BIND_SERVICE}:
            ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def main() -> None:
    """Execute a command as systemd would: `LISTENER ALLOWED COMMAND…`."""
    listener, allowed, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    if listener == _FIRST_FD:
        os.set_inheritable(listener, True)
    else:
        os.dup2(listener, _FIRST_FD, inheritable=True)
        os.close(listener)
    pid = str(os.getpid())
    environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": pid, "WATCHDOG_PID": pid}
    if allowed:
        _bound_capabilities()
        _put_on(allowed.split(","))
    os.execve(command[0], command, environ)


if __name__ == "__main__":
    main()
