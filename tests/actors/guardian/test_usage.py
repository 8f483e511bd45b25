"""The spool's bytes are counted as they change."""

import os
import time
from pathlib import Path

from actors.guardian.usage import Usage
from protocol.board import Board
from tests.actors.guardian.house import SIZE, House


def usage_of(house: House, board: Board) -> Usage:
    usage = Usage(board)
    usage.find(house.spool)
    return usage


def test_what_is_there_what_comes_and_what_goes(house: House) -> None:
    board = Board.create()
    row = board.receiver_row(board.claim_row() or 0)
    row.add_stored(7 * SIZE)  # before this guardian was started, as the files show
    for _ in range(7):
        house.file()
    usage = usage_of(house, board)
    assert usage.bytes == 7 * SIZE
    row.add_stored(SIZE)
    board.set_platform_bytes(1000)
    assert usage.bytes == 8 * SIZE + 1000
    usage.deleted(6 * SIZE)
    board.set_platform_bytes(200)
    assert usage.bytes == 2 * SIZE + 200


def test_what_is_stored_while_it_is_counted_counts_once(house: House) -> None:
    board = Board.create()
    row = board.receiver_row(board.claim_row() or 0)
    house.file()
    usage = Usage(board)
    path = Path(house.spool.instance_path(house.file()))
    later = time.time() + 1  # the file system's clock may be a tick behind ours
    os.utime(path, (later, later))
    row.add_stored(SIZE)
    usage.find(house.spool)
    assert usage.bytes == 2 * SIZE


def test_files_from_before_the_clock_was_set_back_count(house: House) -> None:
    path = Path(house.spool.instance_path(house.file()))
    later = time.time() + 86400
    os.utime(path, (later, later))
    assert usage_of(house, Board.create()).bytes == SIZE


def test_payloads_and_what_is_in_transit_count_nothing(house: House) -> None:
    house.payload("job", house.file())
    part = house.writer.open_part("a", 1)
    os.write(part.fd, b"x" * 1000)
    assert usage_of(house, Board.create()).bytes == SIZE


def test_a_spool_that_does_not_answer_is_not_known(house: House) -> None:
    house.spool.instances.rename(house.spool.root / "away")
    usage = usage_of(house, Board.create())
    assert not usage.known
    (house.spool.root / "away").rename(house.spool.instances)
    usage.find(house.spool)
    assert usage.known
