"""A pipe between a peer's socket and a file: what goes through it is never copied into this process.

It pays for large objects alone. A fragment costs some calls more than in the receive buffer, and two or three copies of
half a megabyte, which the processor's cache holds, less than those.
"""

import contextlib
import errno
import fcntl
import os

from actors.receiver.store import write_all

PIPE_BYTES = 1024 * 1024
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_NOT_HERE = frozenset((errno.EINVAL, errno.ENOSYS, errno.EPERM))


class Pipe:
    """The pipe of this process. It is empty but between a `take` and the `put` or `drop` that follows it at once.

    Attributes:
        works: False from when the system has refused splice(2) for a socket or for a file of the spool.
    """

    def __init__(self) -> None:
        self._exit, self._entry = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.works = True
        with contextlib.suppress(OSError):  # who has many pipes gets no large ones
            fcntl.fcntl(self._entry, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def take(self, fd: int, most: int) -> int:
        """Take what has come on a socket.

        Args:
            fd: of the socket, which does not block.
            most: how many bytes at most.

        Returns:
            How many bytes are in the pipe; 0 when the peer has closed the connection.

        Raises:
            BlockingIOError: nothing has come, or the pipe does not work with sockets.
            OSError: as the connection says.
        """
        try:
            return os.splice(fd, self._entry, most, flags=_FLAGS)
        except OSError as error:
            if error.errno in _NOT_HERE:
                self.works = False
                raise BlockingIOError from error
            raise

    def put(self, fd: int, count: int) -> None:
        """Write what is in the pipe to the end of a file; whatever happens, the pipe is empty then.

        Args:
            fd: of the file.
            count: how many bytes there are.

        Raises:
            OSError: as the file system says.
        """
        try:
            while count:
                count -= os.splice(self._exit, fd, count, flags=os.SPLICE_F_MOVE)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                self.drop(count)
                raise
            self.works = False
            write_all(fd, [os.read(self._exit, count)])

    def drop(self, count: int) -> None:
        """Throw away what is in the pipe.

        Args:
            count: how many bytes there are.
        """
        while count:
            count -= len(os.read(self._exit, count))

    def close(self) -> None:
        """Let go of both ends."""
        os.close(self._entry)
        os.close(self._exit)
