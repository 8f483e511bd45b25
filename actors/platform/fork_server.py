"""Forks shims: a small process that has imported what one needs, since importing was most of what a short run cost.

Started by `launching.ForkServer` with the arguments CONTROL ALIVE, two inherited descriptors. On CONTROL, a stream,
comes one request at a time: its length (4 bytes, little-endian) with the descriptor of the try's lock, then arguments
and environment of the shim, as `marshal` writes lists of bytes. The answer is the shim's process ID (8 bytes) with a
descriptor of that process, or the negative number of the error.

The end of CONTROL is the end of this process. Shims have sessions of their own and nothing of this process, so they
outlive it, and the platform actor too.
"""

import _signal as signal  # type: ignore[import-not-found] # as in the shim
import array
import gc
import marshal
import os
import select
import socket
import sys

from actors.platform import shim

_LENGTH_BYTES, _ANSWER_BYTES = 4, 8


def serve(control: socket.socket, alive: int) -> None:
    """Fork until nobody asks any more.

    Args:
        control: where requests come from.
        alive: descriptor that ends when the supervisor is gone, for the shims.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    for fd in (control.fileno(), reading):
        poll.register(fd, select.POLLIN)
    gc.freeze()  # a collection in a shim would copy every page
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if reading in ready:
            os.read(reading, 4096)
            _reap()
        if control.fileno() in ready:
            head, lock = _receive(control)
            if not head:
                return
            arguments, environment = marshal.loads(_receive_all(control, int.from_bytes(head, "little")))  # noqa: S302 # our own
            try:
                pid = os.fork()
            except OSError as error:
                pid = -(error.errno or 1)
            if pid == 0:
                control.close()
                os.close(reading)
                os.close(writing)
                _become_shim(arguments, environment, lock, alive)
            os.close(lock)
            _answer(control, pid)


def _become_shim(arguments: list[bytes], environment: list[tuple[bytes, bytes]], lock: int, alive: int) -> None:
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        environ = {os.fsdecode(name): os.fsdecode(value) for name, value in environment}
        shim.Shim([os.fsdecode(argument) for argument in arguments], environ, lock=lock, alive=alive).run()
        code = 0
    finally:
        os._exit(code)  # without the interpreter's own end, which is a tenth of a short run


def _receive(control: socket.socket) -> tuple[bytes, int]:
    """A request's length, and the lock; b"" at the end."""
    descriptors = array.array("i")
    size = descriptors.itemsize
    head, ancillary, _, _ = control.recvmsg(_LENGTH_BYTES, socket.CMSG_LEN(size), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) // size * size])
    return (head, descriptors[0]) if descriptors else (b"", -1)


def _receive_all(control: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        some = control.recv(count - len(data))
        if not some:
            os._exit(0)
        data += some
    return bytes(data)


def _answer(control: socket.socket, pid: int) -> None:
    """Tell which process it is. It is not reaped before this returns, so the descriptor is the shim's."""
    number = pid.to_bytes(_ANSWER_BYTES, "little", signed=True)
    if pid < 0:
        control.sendall(number)
        return
    process = os.pidfd_open(pid)
    control.sendmsg([number], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [process]))])
    os.close(process)


def _reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def main() -> None:
    """See the module."""
    control, alive = map(int, sys.argv[2:4])
    os.set_inheritable(control, False)
    os.set_inheritable(alive, False)
    serve(socket.socket(fileno=control), alive)
