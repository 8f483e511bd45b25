"""What may be left of a run that is over or was lost: processes, directories, data not yet on stable storage."""

import contextlib
import os
import select
import signal
import stat
import time
from pathlib import Path

from protocol.spool import sync_directory

_DYING_SECONDS = 5.0


def end_processes(output: Path) -> int:
    """Kill what runs on after its shim was killed, and wait for its end; returns how many processes that were.

    They are known by the output directory in their environment, which every descendant of a command inherits.

    Args:
        output: the output directory of the try.
    """
    mark = f"OUTPUT_DIR={output}".encode()
    ended = 0
    deadline = time.monotonic() + _DYING_SECONDS
    # One may have started another since it was looked at.
    while (killed := _kill_marked(mark)) and time.monotonic() < deadline:
        ended += len(killed)
        with contextlib.ExitStack() as stack:
            for fd in killed:
                stack.callback(os.close, fd)
            for fd in killed:
                dying = select.poll()  # select() knows descriptors below 1024 only
                dying.register(fd, select.POLLIN)
                dying.poll(max(0.0, deadline - time.monotonic()) * 1000)
    return ended


def _kill_marked(mark: bytes) -> list[int]:
    """Kill the processes that have this in their environment; returns their pidfds.

    Raises:
        OSError: it cannot be seen which do, for want of descriptors.
    """
    killed = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, PermissionError):
            fd = os.pidfd_open(int(entry))
            try:
                # The descriptor first: what is read next then belongs to that process, or to none.
                if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    killed.append(os.dup(fd))
            finally:
                os.close(fd)
    return killed


def remove_tree(directory: Path) -> None:
    """Delete a directory and all below it, also what is not writable; a missing one is no error.

    Raises:
        OSError: something could not be deleted.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            _remove(os.fspath(directory))
        except PermissionError:
            _make_writable(directory)
            _remove(os.fspath(directory))


def _remove(directory: str) -> None:
    """Delete a directory's files, those below it, and itself; at half the cost of `shutil.rmtree`.

    Each directory is opened from the one above and links are not followed, so whoever may write there meanwhile
    leads nowhere else. Nothing recurses: a pipeline may nest directories as deep as it likes.
    """
    levels: list[tuple[str, int, list[str]]] = []  # name, descriptor, and the directories that are left in it
    try:
        levels.append((directory, *_remove_files(directory, None)))
        while levels:
            name, fd, below = levels[-1]
            with contextlib.suppress(FileNotFoundError):
                if below:
                    deeper = below.pop()
                    levels.append((deeper, *_remove_files(deeper, fd)))
                    continue
                levels.pop()
                os.close(fd)
                os.rmdir(name, dir_fd=levels[-1][1] if levels else None)
    finally:
        for _, fd, _ in levels:
            os.close(fd)


def _remove_files(name: str, above: int | None) -> tuple[int, list[str]]:
    """Delete a directory's files; returns its descriptor, and the directories in it.

    Args:
        name: of the directory.
        above: descriptor of the directory that it is in; None for a whole path.
    """
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry, is_directory in found:
            if not is_directory:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry, dir_fd=fd)
    except BaseException:
        os.close(fd)
        raise
    return fd, [entry for entry, is_directory in found if is_directory]


def sync_tree(directory: Path) -> None:
    """Bring files and directories to stable storage, so that what is told of them holds after a power cut.

    Raises:
        OSError: the data may be lost.
    """
    waiting = [directory]
    while waiting:
        current = waiting.pop()
        with os.scandir(current) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)
        sync_directory(current)


def _make_writable(directory: Path) -> None:
    waiting = [directory]
    while waiting:
        current = waiting.pop()
        with contextlib.suppress(OSError):
            os.chmod(current, stat.S_IRWXU)
            with os.scandir(current) as entries:
                waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
