"""The notice board: what holds over all receivers at once."""

import multiprocessing
from typing import Any

import pytest

from protocol.board import Board, Intake, host_key


@pytest.fixture
def board() -> Board:
    return Board.create()


def test_the_maximum_holds_over_all_rows(board: Board) -> None:
    rows = [board.receiver_row(board.claim_row() or 0) for _ in range(2)]
    slots = [row.claim_slot(host_key("10.0.0.1"), 3, 0) for row in (rows[0], rows[1], rows[0])]
    assert None not in slots
    assert rows[1].claim_slot(host_key("10.0.0.1"), 3, 0) is None
    assert board.active_associations == 3
    assert slots[0] is not None
    rows[0].free_slot(slots[0])
    assert rows[1].claim_slot(host_key("10.0.0.1"), 3, 0) is not None


def test_a_hosts_share_holds_over_all_rows_and_leaves_the_rest_to_others(board: Board) -> None:
    rows = [board.receiver_row(board.claim_row() or 0) for _ in range(2)]
    greedy, other = host_key("10.0.0.1"), host_key("10.0.0.2")
    assert rows[0].claim_slot(greedy, 10, 2) is not None
    assert rows[1].claim_slot(greedy, 10, 2) is not None
    assert rows[0].claim_slot(greedy, 10, 2) is None
    assert rows[0].claim_slot(other, 10, 2) is not None


def test_a_dead_receivers_slots_are_freed_and_what_it_stored_stays_counted(board: Board) -> None:
    number = board.claim_row()
    assert number is not None
    row = board.receiver_row(number)
    row.claim_slot(host_key("10.0.0.1"), 10, 0)
    row.add_stored(1000)
    board.clear_row(number)
    assert board.active_associations == 0
    assert board.stored_bytes == 1000
    assert board.claim_row() == number


def test_what_receivers_store_is_counted_over_all_rows(board: Board) -> None:
    rows = [board.receiver_row(board.claim_row() or 0) for _ in range(64)]
    for number, row in enumerate(rows):
        row.add_stored(number)
    assert board.stored_bytes == sum(range(64))


def test_rows_run_out_and_come_back(board: Board) -> None:
    claimed = []
    while (row := board.claim_row()) is not None:
        claimed.append(row)
    assert len(claimed) == len(set(claimed)) == 64
    board.clear_row(claimed[10])
    assert board.claim_row() == claimed[10]


def test_balance_looks_at_those_who_accept(board: Board) -> None:
    mine, other, draining = (board.receiver_row(board.claim_row() or 0) for _ in range(3))
    for row in (mine, other):
        row.set_accepting(True)
    other.claim_slot(1, 10, 0)
    assert mine.least_active_other() == 1
    other.set_accepting(False)
    assert mine.least_active_other() is None
    assert draining.active == 0


def test_the_guardians_words_reach_every_reader(board: Board) -> None:
    assert Board(board.fd).intake is Intake.OPEN
    board.set_storage(Intake.PAUSED, 5, 10, is_short=False)
    again = Board(board.fd)
    assert (again.intake, again.free_bytes, again.reserved_bytes) == (Intake.PAUSED, 5, 10)


def test_what_runs_take_reaches_the_guardian(board: Board) -> None:
    assert board.platform_bytes == 0
    Board(board.fd).set_platform_bytes(2**40)
    assert board.platform_bytes == 2**40
    board.set_storage(Intake.PAUSED, 5, 10, is_short=False)
    assert board.platform_bytes == 2**40


def _claim_many(board: Board, number: int, start: Any, results: Any) -> None:
    row = board.receiver_row(number)
    start.wait()
    results.put(sum(row.claim_slot(host_key("10.0.0.1"), 100, 0) is not None for _ in range(200)))


def test_processes_that_race_never_exceed_the_maximum(board: Board) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    numbers = [board.claim_row() or 0 for _ in range(4)]
    racers = [context.Process(target=_claim_many, args=(board, number, start, results)) for number in numbers]
    for racer in racers:
        racer.start()
    start.set()
    claimed = sum(results.get(timeout=30) for _ in racers)
    for racer in racers:
        racer.join(timeout=30)
    assert claimed == board.active_associations <= 100
    assert claimed > 90
