"""A disk that writes down what it is told: a FUSE file system with one file, `disk`, for a loop device to stand on.

Run as `python -I -S recorder.py MOUNTPOINT IMAGE LOG`, as root; it ends when it is unmounted. IMAGE is the disk's
content before, and stays as it is. LOG gets a record for each write and each flush, in their order and before they
are answered, so that the disk's state at any moment can be made again, and any other in which a power cut could have
left a disk with a cache of its own.

The protocol is linux/fuse.h, version 7.31; only what a loop device needs of it.
"""

import ctypes
import errno
import mmap
import os
import stat
import struct
import sys
import time

RECORD = struct.Struct("<QQI")
"""Nanoseconds of CLOCK_REALTIME, offset, and count of the bytes that follow; a flush has none, at offset `FLUSH`."""
FLUSH = 2**64 - 1

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC = 1, 2, 3, 14, 15, 16, 17, 18, 20
_FLUSH, _INIT, _OPENDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = 25, 26, 27, 29, 36, 42
_SILENT = {_FORGET, _INTERRUPT, _BATCH_FORGET}
_IN = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, user, group, process, rest
_OUT = struct.Struct("<IiQ")  # length, error, unique
_RANGE = struct.Struct("<QQI")  # handle, offset, size: the beginning of a read and of a write
_WRITE_HEADER = 40
_BIG_WRITES = 1 << 5
_LONGEST = 128 * 1024
_FILE = 2  # the root is 1
_OPENED = struct.pack("<QII", 0, 0, 0)
_FIXED = {
    **dict.fromkeys((_OPEN, _OPENDIR), _OPENED),
    **dict.fromkeys((_RELEASE, _FLUSH, _RELEASEDIR), b""),
    _STATFS: struct.pack("<QQQQQIIII24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0),
}


class Recorder:
    """The disk.

    Args:
        image: its content before.
        log: where records go.
    """

    def __init__(self, image: str, log: str) -> None:
        with open(image, "rb") as file:
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._log = open(log, "wb", buffering=0)  # noqa: SIM115 - it lives as long as the process

    def serve(self, fd: int) -> None:
        """Answer until the file system is unmounted."""
        while True:
            try:
                request = os.read(fd, _LONGEST + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                raise
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            if opcode in _SILENT:
                continue
            body = self._answer(opcode, node, memoryview(request)[_IN.size :])
            failed = body if isinstance(body, int) else 0
            data = b"" if isinstance(body, int) else body
            os.write(fd, _OUT.pack(_OUT.size + len(data), -failed, unique) + data)

    def _answer(self, opcode: int, node: int, body: memoryview) -> bytes | int:
        if opcode == _READ:
            _, offset, size = _RANGE.unpack_from(body)
            return self._content[offset : offset + size]
        if opcode == _WRITE:
            _, offset, size = _RANGE.unpack_from(body)
            data = bytes(body[_WRITE_HEADER : _WRITE_HEADER + size])
            self._record(offset, data)
            self._content[offset : offset + size] = data
            return struct.pack("<II", size, 0)
        if opcode == _FSYNC:
            self._record(FLUSH, b"")
            return b""
        return self._answer_about_names(opcode, node, body)

    def _answer_about_names(self, opcode: int, node: int, body: memoryview) -> bytes | int:
        if opcode == _INIT:
            return struct.pack("<IIIIHHIIHH32x", 7, 31, _LONGEST, _BIG_WRITES, 16, 12, _LONGEST, 1, 0, 0)
        if opcode == _LOOKUP:
            if bytes(body).rstrip(b"\0") != b"disk":
                return errno.ENOENT
            return struct.pack("<QQQQII", _FILE, 0, 3600, 3600, 0, 0) + self._attributes(_FILE)
        if opcode == _GETATTR:
            return struct.pack("<QII", 3600, 0, 0) + self._attributes(node)
        return _FIXED.get(opcode, errno.ENOSYS)

    def _attributes(self, node: int) -> bytes:
        kind, size = (stat.S_IFREG | 0o600, len(self._content)) if node == _FILE else (stat.S_IFDIR | 0o700, 0)
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, kind, 1, 0, 0, 0, 4096, 0)

    def _record(self, offset: int, data: bytes) -> None:
        self._log.write(RECORD.pack(time.time_ns(), offset, len(data)) + data)


def main(mountpoint: str, image: str, log: str) -> None:
    recorder = Recorder(image, log)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,max_read={_LONGEST}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"recorder", mountpoint.encode(), b"fuse", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount: {os.strerror(ctypes.get_errno())}")
    recorder.serve(fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
