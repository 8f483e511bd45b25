"""Which requests have their turn: the oldest first, and not all places for a source that is away."""

import time

from actors.retriever.pending import PLACES, Pending, chosen
from protocol.ledger import InferenceRequest


def pending(number: int, *, away: int = 0, going: bool = False, due: float = 0.0, deaths: int = 0) -> Pending:
    row = InferenceRequest(job_id=str(number), priority="normal", created_ns=number * 1_000_000_000, deaths=deaths)
    made = Pending(row)
    made.away, made.going, made.due = away, going, due
    return made


def test_the_oldest_first_and_no_more_than_there_are_places() -> None:
    requests = [pending(number) for number in reversed(range(10))]
    assert [each.job_id for each in chosen(requests, 1.0)] == ["0", "1", "2", "3"]
    assert not chosen([pending(number, due=2.0) for number in range(3)], 1.0)


def test_a_source_that_is_away_leaves_places_to_others() -> None:
    """However many requests wait for it, and have waited longer."""
    away = [pending(number, away=3) for number in range(100)]
    assert len(chosen(away, time.monotonic())) == PLACES // 2
    late = pending(1000)
    assert late in chosen([*away, late], time.monotonic())
    going = [pending(number, away=1, going=True) for number in range(PLACES // 2)]
    assert chosen([*going, *away, late], time.monotonic()) == [late]


def test_of_those_that_may_have_ended_a_process_one_at_a_time() -> None:
    """Others go on beside it, the one that is under way among them."""
    suspected = [pending(number, deaths=1) for number in range(3)]
    others = [pending(number) for number in range(10, 20)]
    assert chosen([*suspected, *others], 1.0) == [suspected[0], *others[:3]]
    going = pending(5, deaths=2, going=True)
    assert chosen([going, *suspected, *others], 1.0) == others[:3]
    assert chosen(suspected, 1.0) == suspected[:1]
