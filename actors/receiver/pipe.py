"""A pipe between a peer's socket and a file: what goes through it is never copied into this process.

It pays for large objects alone: each fragment takes some calls more than in the receive buffer, and for an object of
half a megabyte these cost more than the copies that are saved.
"""

import errno
import fcntl
import os
from collections.abc import Callable

from actors.receiver.store import write_all

_PIPE_BYTES = 1024 * 1024
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_NOT_HERE = frozenset((errno.EINVAL, errno.ENOSYS, errno.EPERM))


class Pipe:
    """The pipe of this process. It is empty but between a `take` and the `put` or `drop` that follows it at once.

    Args:
        tell: called with the reason when the pipe is of no use here.

    Attributes:
        works: False where the system gives small pipes only, or from when it has refused splice(2) for a socket or for
            a file of the spool.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._exit, self._entry = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.works = True
        try:
            fcntl.fcntl(self._entry, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError as error:  # the user has many pipes; a small one takes a few kB at a time
            self._give_up(error)

    def take(self, fd: int, most: int) -> int:
        """Take what has come on a socket.

        Args:
            fd: of the socket, which does not block.
            most: how many bytes at most.

        Returns:
            How many bytes are in the pipe; 0 when the peer has closed the connection.

        Raises:
            BlockingIOError: nothing has come, or urgent data is next, or the pipe does not work with sockets.
            OSError: as the connection says.
        """
        try:
            return os.splice(fd, self._entry, most, flags=_FLAGS)
        except OSError as error:
            if error.errno in _NOT_HERE:
                self._give_up(error)
                raise BlockingIOError from error
            raise

    def put(self, fd: int, count: int) -> None:
        """Write what is in the pipe to a file, where it stands; whatever happens, the pipe is empty then.

        Args:
            fd: of the file.
            count: how many bytes there are.

        Raises:
            OSError: as the file system says.
        """
        try:
            while count:
                written = os.splice(self._exit, fd, count, flags=os.SPLICE_F_MOVE)
                if not written:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                count -= written
        except OSError as error:
            rest = self._drain(count)
            if error.errno not in _NOT_HERE:
                raise
            write_all(fd, [rest])
            self._give_up(error)

    def drop(self, count: int) -> None:
        """Throw away what is in the pipe.

        Args:
            count: how many bytes there are.
        """
        self._drain(count)

    def close(self) -> None:
        """Let go of both ends."""
        os.close(self._entry)
        os.close(self._exit)

    def _drain(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            content += os.read(self._exit, count - len(content))
        return content

    def _give_up(self, error: OSError) -> None:
        self.works = False
        self._tell(error.strerror or type(error).__name__)
