"""Names of jobs: `{AE title or transaction ID}-{NAME}-{UTC time}`, as Kubernetes takes them, unique in the ledger."""

import itertools
import re
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

LONGEST = 63  # a DNS label, RFC 1035 §2.3.4
_TIME = "%Y%m%d%H%M%S"
_ROOM = LONGEST - len("-20201231235959")
_BATCHES = (1, 16, 256)
_REMEMBERED = 10_000


def job_name(prefix: str, label: str, moment: datetime) -> str:
    """The name of a job.

    Args:
        prefix: the called AE title, or the transaction ID of an inference request.
        label: NAME; what is too long is cut from it, and from the prefix when it is too long alone.
        moment: UTC.
    """
    return _with_time(_head(prefix, label), moment)


class JobNames:
    """Gives names that nobody has: a name's time moves on by a second until it is free.

    Args:
        taken: tells which of some names are in use.
    """

    def __init__(self, taken: Callable[[Sequence[str]], Collection[str]]) -> None:
        self._taken = taken
        # The first second that is probably free, by the name without its time: many groups close in one second.
        self._free: dict[str, datetime] = {}

    def new(self, prefix: str, label: str, moment: datetime) -> str:
        """A name that is free, and given to nobody else.

        Args:
            prefix: the called AE title, or the transaction ID of an inference request.
            label: NAME.
            moment: UTC.
        """
        head = _head(prefix, label)
        moment = max(moment, self._free.get(head, moment))
        for size in itertools.chain(_BATCHES, itertools.repeat(_BATCHES[-1])):
            seconds = [moment + timedelta(seconds=more) for more in range(size)]
            names = [_with_time(head, second) for second in seconds]
            used = self._taken(names)
            for name, second in zip(names, seconds, strict=True):
                if name not in used:
                    self._note(head, second + timedelta(seconds=1))
                    return name
            moment = seconds[-1] + timedelta(seconds=1)
        raise AssertionError("seconds do not end")

    def _note(self, head: str, free: datetime) -> None:
        if len(self._free) >= _REMEMBERED:
            self._free.clear()  # what is forgotten is found in the ledger again
        self._free[head] = free


def _head(prefix: str, label: str) -> str:
    first = _clean(prefix)
    if len(first) > _ROOM:
        first = first[:_ROOM].rstrip("-")
    return _clean(f"{first}-{label}")[:_ROOM].rstrip("-")


def _with_time(head: str, moment: datetime) -> str:
    return f"{head}-{moment.astimezone(UTC):{_TIME}}".lstrip("-")


def _clean(text: str) -> str:
    """What is no ASCII letter, digit or dash becomes a dash; dashes do not repeat, lead or trail; lower case."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()
