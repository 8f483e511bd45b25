"""What may pass, and is tried again: commands of the submitter while the ledger is away or there is no room."""

import errno
import functools
from collections.abc import Callable
from typing import Protocol, TypeVar

from protocol import messages
from protocol.availability import LEDGER_AWAY, Availability

OUT_OF = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})
"""Errors of the system that say that something is short now."""

AWAY = messages.Refused(reason="the platform's ledger does not answer now: try again", transient=True)
"""The answer to a command that may be repeated when the ledger answers again."""


class _Owner(Protocol):
    availability: Availability


_Platform = TypeVar("_Platform", bound=_Owner)
_Command = TypeVar("_Command", bound=messages.Message)


def repeatable(
    handle: Callable[[_Platform, _Command], messages.Message],
) -> Callable[[_Platform, _Command], messages.Message]:
    """Answer that a command may come again when the ledger does not answer, or the disk has no room for it."""

    @functools.wraps(handle)
    def handled(platform: _Platform, command: _Command) -> messages.Message:
        if platform.availability.paused:
            return AWAY  # each try may take as long as the ledger's patience
        try:
            return handle(platform, command)
        except LEDGER_AWAY as error:
            platform.availability.failed(error)
            return AWAY
        except OSError as error:
            if error.errno not in OUT_OF:
                raise
            return messages.Refused(reason=f"the platform has no room now ({error.strerror})", transient=True)

    return handled
