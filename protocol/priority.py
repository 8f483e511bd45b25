"""Whose turn it is: the four priorities of jobs, and the order with ageing that submitter and platform queue by."""

from protocol.clock import NANOSECONDS

_MINUTES = 60 * NANOSECONDS

# How much longer than a job of the lowest priority each one counts as having waited. An emergency goes before a
# day's backlog, and still nothing waits for ever.
_HEAD_START_NS = {
    "lower": 0,
    "normal": 15 * _MINUTES,
    "higher": 2 * 60 * _MINUTES,
    "immediate": 24 * 60 * _MINUTES,
}
PRIORITIES = tuple(_HEAD_START_NS)


def queue_rank(priority: str, since_ns: int) -> int:
    """Where something stands in a queue: the lowest rank is next, and no rank changes while it waits.

    Args:
        priority: one of `PRIORITIES`; another one counts as normal.
        since_ns: wall time from which it has waited.
    """
    return since_ns - _HEAD_START_NS.get(priority, _HEAD_START_NS["normal"])
