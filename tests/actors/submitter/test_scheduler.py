"""Whose turn it is among jobs."""

from hypothesis import given
from hypothesis import strategies as st

from actors.submitter.scheduler import Scheduler
from protocol.priority import PRIORITIES, queue_rank

HOUR_NS = 3600 * 10**9


def test_places_are_given_by_rank_and_only_as_many_as_there_are() -> None:
    scheduler = Scheduler(2)
    for job_id, rank in (("c", 3), ("a", 1), ("b", 2)):
        scheduler.add(job_id, rank)
    assert scheduler.take(0.0) == ["a", "b"]
    assert scheduler.take(0.0) == []
    assert not scheduler.has_work(0.0)
    scheduler.release("a")
    assert scheduler.has_work(0.0)
    assert scheduler.take(0.0) == ["c"]
    assert (scheduler.placed, scheduler.waiting) == (2, 0)


def test_nothing_goes_before_its_time() -> None:
    """A job that waits for its next try has no place, so it holds nobody up."""
    scheduler = Scheduler(1)
    scheduler.add("failed", -100, due=10.0)
    scheduler.add("new", 0)
    assert scheduler.take(9.0) == ["new"]
    scheduler.release("new")
    assert not scheduler.has_work(9.9)
    assert scheduler.take(10.0) == ["failed"]


def test_priority_counts_as_age_so_nothing_waits_for_ever() -> None:
    """An emergency overtakes hours of others; what is lowest goes before everything that comes a day later."""
    assert queue_rank("immediate", 12 * HOUR_NS) < queue_rank("normal", 0)
    assert queue_rank("higher", HOUR_NS) < queue_rank("normal", 0) < queue_rank("lower", 0)
    assert queue_rank("lower", 0) < queue_rank("immediate", 25 * HOUR_NS)


@given(st.lists(st.tuples(st.sampled_from(PRIORITIES), st.integers(0, 10**18)), max_size=30))
def test_the_order_is_that_of_ranks(jobs: list[tuple[str, int]]) -> None:
    scheduler = Scheduler(len(jobs))
    ranks = {str(number): queue_rank(*job) for number, job in enumerate(jobs)}
    for job_id, rank in ranks.items():
        scheduler.add(job_id, rank)
    assert [ranks[job_id] for job_id in scheduler.take(0.0)] == sorted(ranks.values())
