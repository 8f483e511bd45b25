"""What a supervisor that was killed has left: its actors, which finish by themselves and are waited for."""

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

from protocol.errors import CannotCreateError
from protocol.logs import EventLogger

_log = EventLogger("adapter.supervisor")


def make_private_directory(path: Path) -> None:
    """Make the runtime directory, for its owner alone.

    Raises:
        CannotCreateError: it cannot be made, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid != os.geteuid():
            raise PermissionError(1, "it belongs to another user")
        path.chmod(0o700)
    except OSError as error:
        raise CannotCreateError(
            f"the runtime directory {path} cannot be used ({error.strerror}): set RUNTIME_DIRECTORY to a directory "
            "of the user that runs dicom-adapter"
        ) from error


def open_lock(runtime: Path) -> int:
    """The file that every actor inherits a descriptor of, so that its lock is free only when all of them are gone."""
    return os.open(runtime / "actors.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def are_orphans_left(runtime: Path) -> bool:
    """Whether actors of a supervisor that was killed still have the runtime directory, and with it the ports."""
    try:
        lock = open_lock(runtime)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def wait_for_orphans(lock: int, runtime: Path, stop_seconds: float) -> None:
    """Wait until the actors of a supervisor that was killed are gone; end those that outlive their time.

    Args:
        lock: descriptor that every actor inherits a share of.
        runtime: the runtime directory, by which they are known.
        stop_seconds: how long they may take.
    """
    deadline = time.monotonic() + stop_seconds + 2.0
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            orphans = _actors_of_runtime(runtime)
            if not told:
                _log.warning("waiting_for_orphans", pids=",".join(map(str, orphans)), seconds=stop_seconds)
                told = True
            if time.monotonic() > deadline:
                for pid in orphans:
                    _log.warning("orphan_killed", pid=pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                deadline = time.monotonic() + 2.0
            time.sleep(0.05)  # a lock cannot be waited for with a deadline
        else:
            return


def _actors_of_runtime(runtime: Path) -> list[int]:
    """Process IDs of actors that were born with this runtime directory."""
    mark = f"DICOM_ADAPTER_RUNTIME={runtime}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
    return sorted(found)
