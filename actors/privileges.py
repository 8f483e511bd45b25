"""Gives up what the service was given and an actor does not need: who listens to strangers has no privileges."""

import ctypes
import os

_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


def drop_capabilities() -> None:
    """Drop every capability of this process and of what it starts, for good. Root keeps what root is.

    Raises:
        OSError: the kernel, or the service's sandbox, does not allow it.
    """
    if os.geteuid() == 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)  # of this process
    none = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 of each
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")
