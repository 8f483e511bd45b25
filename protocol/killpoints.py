"""Named points between two durable steps at which a test can end or hang the process that gets there.

Nothing happens unless the environment names a point when the process starts, as tests do:
`DICOM_ADAPTER_KILL_POINT=NAME[:kill|hang[:COUNT]]` acts when the point is reached for the COUNTth time (from 1).
With `DICOM_ADAPTER_KILL_FILE` it acts only while that file exists, and deletes it first, so that it acts once
although the process is started again.
"""

import contextlib
import os
import signal

_NAME, _, _REST = os.environ.get("DICOM_ADAPTER_KILL_POINT", "").partition(":")
_ACTION, _, _COUNT = _REST.partition(":")
_FILE = os.environ.get("DICOM_ADAPTER_KILL_FILE", "")


class _Fuse:
    """Counts how often the armed point was reached."""

    def __init__(self) -> None:
        self.left = int(_COUNT or 1)

    def burn(self) -> None:
        self.left -= 1
        if self.left:
            return
        if _FILE:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_FILE)
                os.kill(os.getpid(), signal.SIGSTOP if _ACTION == "hang" else signal.SIGKILL)
            return
        os.kill(os.getpid(), signal.SIGSTOP if _ACTION == "hang" else signal.SIGKILL)


_fuse = _Fuse()


def reach(name: str) -> None:
    """Say that a point is reached; it costs a comparison.

    Args:
        name: `actor.what-was-just-done`.
    """
    if name == _NAME:
        _fuse.burn()
