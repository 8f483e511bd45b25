"""What a server's answer to a STOW-RS request means for each of its files (PS3.18 §10.5.3).

| answer | files |
|---|---|
| 2xx, and it names the instance as stored, with a warning or without | delivered |
| it names the instance as failed | by its failure reason, as the status of a C-STORE |
| 200 without a body | delivered: by the standard this status alone says that all of them are stored |
| 200 with something that is no DICOM answer, such as a page for people | failed: that was somebody else |
| 202 otherwise, or an instance that the answer does not name | failed: nothing is known of it |
| 413, 400, 409, 415, 422 for several files | each is sent alone, so that one does not spoil the others |
| 4xx otherwise | refused, and with 401, 403, 404, 405, 410, 501 the remaining files, too |
| 408, 429, 502, 503, 504, 507 | the destination is down; what was not reported is still to be sent |
| 5xx otherwise | each is sent alone; then failed; several in a row: the destination is down |
| 3xx | the destination is down: redirects are not followed with patient data |
"""

import enum

from actors.exporter.scu.status import outcome_of
from actors.exporter.sender import Outcome
from protocol.dicomweb.store import StoreAnswer

_SPOILT_BY_ONE = frozenset((400, 409, 413, 415, 422))
_ALL_ALIKE = frozenset((401, 403, 404, 405, 410, 501))
_DOWN = frozenset((408, 429, 502, 503, 504, 507))
_WORDS = {
    401: "it wants other credentials",
    403: "these credentials may not store",
    404: "there is nothing at this address",
    405: "it does not store objects",
    413: "this is too much for it",
    429: "too many requests",
    503: "it cannot serve now",
    507: "out of space",
}


class Next(enum.Enum):
    """What follows from an answer for the request as a whole."""

    JUDGE = enum.auto()  # see what it says of each file
    ALONE = enum.auto()  # send each file in a request of its own
    END = enum.auto()  # nothing else would be taken either
    DOWN = enum.auto()


def what_next(status: int, files: int, answer: StoreAnswer | None) -> Next:
    """What an answer means for the request.

    Args:
        status: of HTTP.
        files: how many were sent.
        answer: what its body says, if it is an answer of STOW-RS.
    """
    if status in _DOWN or 300 <= status < 400:
        return Next.DOWN
    if status in _ALL_ALIKE:
        return Next.END
    tells = answer is not None and bool(answer.failed)
    if files > 1 and not tells and (status in _SPOILT_BY_ONE or status >= 500):
        return Next.ALONE
    return Next.JUDGE


def outcome(status: int, uid: str, answer: StoreAnswer | None, *, empty: bool) -> tuple[Outcome, str]:
    """What became of one file, and why it was not stored.

    Args:
        status: of HTTP.
        uid: the file's SOP Instance UID.
        answer: what the body says, if it is an answer of STOW-RS.
        empty: whether there was no body at all.
    """
    if answer is not None and uid in answer.failed:
        return outcome_of(answer.failed[uid]) if answer.failed[uid] else (Outcome.FAILED, "it failed without a reason")
    if 200 <= status < 300:
        if answer is not None and uid in answer.stored:
            return Outcome.DELIVERED, ""
        if status == 200 and empty:
            return Outcome.DELIVERED, ""
        if answer is None:
            return Outcome.FAILED, f"the destination answered {status} without saying what it stored"
        return Outcome.FAILED, f"the destination answered {status}, and does not name this object"
    return (Outcome.FAILED if status >= 500 else Outcome.REFUSED), told(status)


def told(status: int) -> str:
    """A status in words."""
    words = _WORDS.get(status)
    return f"the destination answered {status}" + (f": {words}" if words else "")
