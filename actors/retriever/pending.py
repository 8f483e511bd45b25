"""Requests whose retrieval is not over, and which of them have their turn."""

import threading
from collections.abc import Collection

from protocol.ledger import InferenceRequest
from protocol.priority import queue_rank

PLACES = 4
MOST_DEATHS = 3
"""So many processes in a row that end during a request's rounds, before it has brought a file, and it is given up."""


class Pending:
    """A request whose retrieval is not over.

    Args:
        row: its row.
    """

    def __init__(self, row: InferenceRequest) -> None:
        self.row = row
        self.stopped = threading.Event()
        self.going = False
        self.away = 0
        self.due = 0.0

    @property
    def job_id(self) -> str:
        """Of its job."""
        return str(self.row.job_id)

    @property
    def rank(self) -> int:
        """Its place among those that wait."""
        return queue_rank(self.row.priority, self.row.created_ns)

    @property
    def suspected(self) -> bool:
        """Whether it, or another that was under way with it, may be what ended the last process."""
        return bool(self.row.deaths)


def chosen(requests: Collection[Pending], clock: float) -> list[Pending]:
    """Whose rounds begin now: by rank, and never more than half of the places for those whose source was away.

    Of those that are suspected one at a time has its turn, so that the next death says which it was.

    Args:
        requests: those that are not over.
        clock: `time.monotonic()`.
    """
    going = [each for each in requests if each.going]
    free = PLACES - len(going)
    free_for_away = PLACES // 2 - sum(bool(each.away) for each in going)
    free_for_suspected = 1 - sum(each.suspected for each in going)
    found: list[Pending] = []
    for each in sorted((each for each in requests if not each.going and each.due <= clock), key=_rank):
        may_begin = (not each.away or free_for_away > 0) and (not each.suspected or free_for_suspected > 0)
        if len(found) < free and may_begin:
            free_for_away -= bool(each.away)
            free_for_suspected -= each.suspected
            found.append(each)
    return found


def _rank(pending: Pending) -> int:
    return pending.rank
