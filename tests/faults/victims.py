"""Breaks processes of a gateway: at a named point, or at any moment; kills, hangs, or starves them."""

import contextlib
import os
import random
import resource
import signal
from pathlib import Path

from protocol.channels import KINDS
from protocol.errors import AdapterError
from protocol.killpoints import KILL_DIRECTORY
from protocol.spool import Spool
from tests.actors.platform.world import living_shims
from tests.gateway import Gateway

QUICK = {
    "DICOM_ADAPTER_HEARTBEAT_LIMIT_SECONDS": "3",
    "DICOM_ADAPTER_START_LIMIT_SECONDS": "40",
    "DICOM_ADAPTER_STEADY_SECONDS": "0.5",
}
"""Environment of a gateway that replaces what hangs sooner, and takes no series of kills for a crash loop."""

_FEW_DESCRIPTORS = 3


class Points:
    """The named points of a gateway's processes.

    Args:
        directory: of armed points; is made when it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        self.environ = {KILL_DIRECTORY: str(directory)}

    def arm(self, point: str, action: str) -> None:
        """The next process that reaches the point is to `kill` or to `hang` itself."""
        for old in self._directory.glob(f"{point}.*"):
            old.unlink()
        # Whole at once: a process may look at any moment.
        (self._directory / "new").write_text(action, encoding="ascii")
        (self._directory / "new").rename(self._directory / point)

    def disarm(self, point: str) -> None:
        """Nothing happens there any more."""
        (self._directory / point).unlink(missing_ok=True)

    def taken(self, point: str) -> int | None:
        """The process that reached it, or None."""
        for path in self._directory.glob(f"{point}.*"):
            return int(path.suffix[1:])
        return None


class Victims:
    """The processes of a gateway: its actors, the shims of its runs, and its supervisor.

    Args:
        gateway: it runs.
    """

    kinds = (*KINDS, "shim")

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def pids(self, kind: str) -> list[int]:
        """Processes of a kind; none while the supervisor does not answer."""
        if kind == "shim":
            return living_shims(Spool(self._gateway.spool))
        with contextlib.suppress(AdapterError):
            return self._gateway.pids(kind)
        return []

    def kill(self, pid: int) -> bool:
        """End a process at once; False when it is gone already."""
        return self._signal(pid, signal.SIGKILL)

    def hang(self, pid: int) -> bool:
        """Stop it until the supervisor finds it."""
        return self._signal(pid, signal.SIGSTOP)

    def resume(self, pid: int) -> bool:
        """Let a stopped process go on."""
        return self._signal(pid, signal.SIGCONT)

    def starve(self, pid: int) -> bool:
        """Let it open no more files; False when it is gone, or not up yet: it would end for lack of them."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, AdapterError):
            if not any(actor.pid == pid and actor.state == "running" for actor in self._gateway.status().actors):
                return False
            used = len(os.listdir(f"/proc/{pid}/fd"))
            hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + _FEW_DESCRIPTORS, hard))
            return True
        return False

    def feed(self, pid: int) -> None:
        """Take the limit away."""
        with contextlib.suppress(ProcessLookupError):
            hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))

    def choose(self, chance: random.Random) -> tuple[str, int] | None:
        """A kind, and a process of it; None when it has none now."""
        kind = chance.choice(self.kinds)
        found = self.pids(kind)
        return (kind, chance.choice(found)) if found else None

    def _signal(self, pid: int, number: int) -> bool:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor first: what is read next then belongs to that process, or to none.
            if not self._is_ours(pid):
                return False
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def _is_ours(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
            return self._gateway.mark.encode() in words or str(self._gateway.spool).encode() in words
        return False


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """How many a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))
