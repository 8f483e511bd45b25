"""What the rows of runs say to others than their owner: conditions for queries."""

from typing import Any

import peewee as pw

from protocol.ledger.tables import Run
from protocol.states import RUN_UNDER_WAY


def keeps_input() -> Any:
    """The run keeps its input, to be run again. Written as a comparison, since SQLite uses the index only then."""
    return Run.keeps_input == pw.Value(True)


def may_read_input() -> Any:
    """The run may read its payload, now or when a person has it run again; NULL where there is no run."""
    return Run.state.in_(RUN_UNDER_WAY) | keeps_input()
