"""The input of a run: a view of the payload that the pipeline may read, and cannot change for others.

A payload's files are hard links into the spool, so whoever may write them would change what was received. A pipeline
of the service's own user could (it owns them), so it gets copies: reflinks, which share the blocks and cost nothing,
where the file system has them, else real ones. A pipeline of another user gets the links themselves: the files stay
the service's and read-only, the directories too, so it can neither write, rename, nor delete. All that changes is the
files' group, which lets it read them.
"""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from actors.platform.accounts import Account
from protocol.spool import FILE_MODE, floor_bytes

_FICLONE = 0x40049409
_NO_REFLINKS = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
_NO_KERNEL_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_COPIES_AT_ONCE = 2
_READABLE, _SEALED = 0o750, 0o550
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Inputs:
    """Makes the inputs of runs; one object serves all threads."""

    def __init__(self) -> None:
        self._regrouping = threading.Lock()

    def make(self, payload: Path, directory: Path, account: Account) -> int:
        """Fill a new directory with a view of a payload; returns how many bytes were really copied.

        Args:
            payload: the payload's directory.
            directory: the input; must not exist.
            account: who will read it.

        Raises:
            OSError: as the file system says (no space, no inodes, an input/output error).
        """
        directories: list[str] = []
        copies: list[tuple[Path, Path]] = []
        waiting = [(os.fspath(payload), os.fspath(directory))]
        while waiting:
            source, target = waiting.pop()
            os.mkdir(target, _READABLE)
            directories.append(target)
            files: list[str] = []
            with os.scandir(source) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, f"{target}/{entry.name}"))
                    elif entry.is_file(follow_symlinks=False):
                        files.append(entry.name)
            if account.other and files:
                files = self._link(source, target, files, account.gid)
            copies += [(Path(source, name), Path(target, name)) for name in files]
        copied = _copy_all(copies) if copies else 0
        if account.other:
            for _, to in copies:
                os.chown(to, -1, account.gid)
            for made in directories:
                os.chown(made, -1, account.gid)
        else:
            for made in reversed(directories):
                os.chmod(made, _SEALED)
        return copied

    def _link(self, source: str, target: str, names: Iterable[str], gid: int) -> list[str]:
        """Link files of a directory into another one and let a group read them.

        Returns:
            Names of those that were not linked, since another pipeline's group reads them already.
        """
        left, ours = [], (gid, os.getegid())
        reading = os.open(source, _DIRECTORY)
        try:
            writing = os.open(target, _DIRECTORY)
            try:
                for name in names:
                    with self._regrouping:
                        group = os.stat(name, dir_fd=reading).st_gid
                        if group not in ours:
                            left.append(name)
                            continue
                        if group != gid:
                            os.chown(name, -1, gid, dir_fd=reading)
                    os.link(name, name, src_dir_fd=reading, dst_dir_fd=writing)
            finally:
                os.close(writing)
        finally:
            os.close(reading)
        return left


def _copy_all(files: list[tuple[Path, Path]]) -> int:
    """Copy one file or more, some at once; the first failure is raised after all have stopped. Returns the bytes."""
    reflinks = _reflink(files[0])
    files = files[1:] if reflinks else files
    if not reflinks:
        _check_room(files)
    with ThreadPoolExecutor(_COPIES_AT_ONCE, thread_name_prefix="copy") as pool:
        shares = [files[start::_COPIES_AT_ONCE] for start in range(_COPIES_AT_ONCE)]
        copying = [pool.submit(_copy_some, share, reflinks=reflinks) for share in shares if share]
        return sum(share.result() for share in copying)


def _check_room(files: list[tuple[Path, Path]]) -> None:
    """See that copies fit with something to spare: the last of the space belongs to what frees some.

    Raises:
        OSError: they do not.
    """
    if files:
        status = os.statvfs(files[0][1].parent)
        free = status.f_bavail * status.f_frsize - floor_bytes(status.f_blocks * status.f_frsize)
        if sum(path.stat().st_size for path, _ in files) > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _copy_some(files: list[tuple[Path, Path]], *, reflinks: bool) -> int:
    return sum(_copy(*file) for file in files if not (reflinks and _reflink(file)))


def _reflink(file: tuple[Path, Path]) -> bool:
    """Clone a file; False, and nothing left, when the file system cannot."""
    source, target = _open(*file)
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file[1])
        if error.errno not in _NO_REFLINKS:
            raise
        return False
    finally:
        os.close(source)
        os.close(target)
    return True


def _copy(path: Path, to: Path) -> int:
    source, target = _open(path, to)
    try:
        size = left = os.fstat(source).st_size
        while left:
            try:
                copied = os.copy_file_range(source, target, left)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                copied = os.sendfile(target, source, None, left)
            if copied == 0:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            left -= copied
        return size
    finally:
        os.close(source)
        os.close(target)


def _open(path: Path, to: Path) -> tuple[int, int]:
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return source, os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    except BaseException:
        os.close(source)
        raise
